// Package outside asks an outside Keystone who somebody is: what a token stands for, which
// grants were revoked, and which roles a user has in a project.
package outside

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
)

// DefaultTimeout is how long one question to Keystone may take.
const DefaultTimeout = 5 * time.Second

// maxAnswer is the most of one answer, in bytes, that is read: lists of revocation events
// and role assignments are the longest.
const maxAnswer = 8 << 20

// Faults of the questions. errors.Is finds them. Every other error means that Keystone
// cannot be asked just now.
var (
	// ErrUnknown says that Keystone knows no such token, user or project, or that it is
	// disabled.
	ErrUnknown = errors.New("unknown to Keystone")
	// ErrForbidden says that the service's own user may not ask this.
	ErrForbidden = errors.New("not told to the service's user")
)

// Config says where Keystone is and as whom it is asked.
type Config struct {
	// URL is Keystone's root, with or without /v3. PublicURL is its v3 address as clients
	// reach it.
	URL, PublicURL string
	// User, by name in UserDomain, with its Password, in Project of ProjectDomain; domains
	// by name.
	User, UserDomain, Password string
	Project, ProjectDomain     string
	// CAFile is a PEM file of the authorities to trust; "": those of the system.
	CAFile string
	// Timeout bounds each question, DefaultTimeout if 0.
	Timeout time.Duration
}

// Client asks Keystone. It logs in when it is first asked, and again when its own token
// has ended. It is safe for concurrent use.
type Client struct {
	root     string // with a slash at its end
	public   string
	provider *gophercloud.ProviderClient
	opts     gophercloud.AuthOptions
	login    sync.Mutex
}

// New makes a client. It does not ask Keystone yet.
func New(c Config) (*Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authorities of Keystone's certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", c.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	root := strings.TrimSuffix(strings.TrimRight(c.URL, "/"), "/v3") + "/"
	provider := &gophercloud.ProviderClient{
		IdentityBase: root, IdentityEndpoint: root + "v3/",
		HTTPClient: http.Client{
			Transport: limited{transport}, Timeout: cmp.Or(c.Timeout, DefaultTimeout),
			// The service's token goes to no other host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	provider.UseTokenLock()
	return &Client{root: root, public: c.PublicURL, provider: provider, opts: gophercloud.AuthOptions{
		IdentityEndpoint: root + "v3/", AllowReauth: true,
		Username: c.User, DomainName: c.UserDomain, Password: c.Password,
		Scope: &gophercloud.AuthScope{ProjectName: c.Project, DomainName: c.ProjectDomain},
	}}, nil
}

// URL is the address that clients log in at.
func (c *Client) URL() string { return c.public }

// limited bounds what is read of an answer.
type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := l.next.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// get asks for a path below /v3 and reads the answer's JSON.
func (c *Client) get(ctx context.Context, path string, header map[string]string, into any) error {
	if err := c.ensure(ctx); err != nil {
		return err
	}
	_, err := c.provider.Request(ctx, http.MethodGet, c.root+"v3/"+path, &gophercloud.RequestOpts{
		MoreHeaders: header, JSONResponse: into, OkCodes: []int{http.StatusOK},
	})
	switch {
	case hasStatus(err, http.StatusNotFound):
		return ErrUnknown
	case hasStatus(err, http.StatusForbidden):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	case err != nil:
		return fmt.Errorf("ask Keystone: %w", err)
	}
	return nil
}

// ensure logs in unless that was done.
func (c *Client) ensure(ctx context.Context) error {
	c.login.Lock()
	defer c.login.Unlock()
	if c.provider.Token() != "" {
		return nil
	}
	if err := openstack.AuthenticateV3(ctx, c.provider, &c.opts, gophercloud.EndpointOpts{}); err != nil {
		return fmt.Errorf("log in at Keystone as %s: %w", c.opts.Username, err)
	}
	return nil
}

func hasStatus(err error, status int) bool {
	if again, ok := errors.AsType[*gophercloud.ErrErrorAfterReauthentication](err); ok {
		err = again.ErrOriginal
	}
	return err != nil && gophercloud.ResponseCodeIs(err, status)
}

// Named is something with an id and a name; "" and "" for none.
type Named struct{ ID, Name string }

// Token is what a token of Keystone stands for.
type Token struct {
	User, UserDomain       Named
	Project, ProjectDomain Named // without a project in scope, both are empty
	Domain                 Named // the domain in scope
	Roles                  []string
	Methods                []string
	// AuditIDs are the token's own, and that of the first token of its chain.
	AuditIDs            []string
	IssuedAt, ExpiresAt time.Time
}

type entity struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Enabled *bool  `json:"enabled"`
	Domain  Named  `json:"domain"`
}

// Token tells what a token stands for. ErrUnknown: it is none, or it has ended.
func (c *Client) Token(ctx context.Context, secret string) (Token, error) {
	var body struct {
		Token struct {
			User     entity   `json:"user"`
			Project  entity   `json:"project"`
			Domain   Named    `json:"domain"`
			Roles    []Named  `json:"roles"`
			Methods  []string `json:"methods"`
			AuditIDs []string `json:"audit_ids"`
			Issued   string   `json:"issued_at"`
			Expires  string   `json:"expires_at"`
		} `json:"token"`
	}
	err := c.get(ctx, "auth/tokens?nocatalog", map[string]string{"X-Subject-Token": secret}, &body)
	for _, status := range []int{http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge} { // the token is malformed, or too long
		if hasStatus(err, status) {
			return Token{}, ErrUnknown
		}
	}
	if err != nil {
		return Token{}, err
	}
	b := body.Token
	t := Token{
		User: Named{b.User.ID, b.User.Name}, UserDomain: b.User.Domain, Domain: b.Domain,
		Project: Named{b.Project.ID, b.Project.Name}, ProjectDomain: b.Project.Domain,
		Methods: b.Methods, AuditIDs: b.AuditIDs,
	}
	for _, role := range b.Roles {
		t.Roles = append(t.Roles, role.Name)
	}
	if t.IssuedAt, err = time.Parse(time.RFC3339Nano, b.Issued); err == nil {
		t.ExpiresAt, err = time.Parse(time.RFC3339Nano, b.Expires)
	}
	if err != nil || t.User.ID == "" || t.UserDomain.ID == "" || t.Project.ID != "" && t.ProjectDomain.ID == "" {
		return Token{}, errors.New("ask Keystone: its answer about a token is none of its API")
	}
	return t, nil
}

// Event says that Keystone revoked what has all of the fields that are set and was issued
// at IssuedBefore or earlier. Partial: it says more than these fields do.
type Event struct {
	UserID, ProjectID, DomainID string
	AuditID, AuditChainID       string
	IssuedBefore                time.Time
	Partial                     bool
}

// Revoked lists what Keystone revoked at since or later; the zero time: all that it
// remembers.
func (c *Client) Revoked(ctx context.Context, since time.Time) ([]Event, error) {
	path := "OS-REVOKE/events"
	if !since.IsZero() {
		path += "?since=" + url.QueryEscape(since.UTC().Format("2006-01-02T15:04:05Z"))
	}
	var body struct {
		Events []map[string]any `json:"events"`
	}
	if err := c.get(ctx, path, nil, &body); err != nil {
		return nil, err
	}
	events := make([]Event, 0, len(body.Events))
	for _, fields := range body.Events {
		var e Event
		known := map[string]*string{"user_id": &e.UserID, "project_id": &e.ProjectID, "domain_id": &e.DomainID,
			"audit_id": &e.AuditID, "audit_chain_id": &e.AuditChainID}
		for name, v := range fields {
			text, _ := v.(string)
			switch field := known[name]; {
			case name == "issued_before":
				// Without a time it is about all tokens that there are: the zero time would be none.
				if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
					e.IssuedBefore = t
				}
			case name == "revoked_at" || v == nil:
			case field != nil && text != "":
				*field = text
			default:
				e.Partial = true
			}
		}
		events = append(events, e)
	}
	return events, nil
}

// Roles lists the names of the roles that a user has in a project, those of its groups and
// implied ones included. ErrUnknown: one of them is gone or disabled.
func (c *Client) Roles(ctx context.Context, userID, projectID string) ([]string, error) {
	for _, of := range []string{"users/" + url.PathEscape(userID), "projects/" + url.PathEscape(projectID)} {
		var body map[string]entity
		if err := c.get(ctx, of, nil, &body); err != nil {
			return nil, err
		}
		for _, e := range body {
			if e.Enabled != nil && !*e.Enabled {
				return nil, ErrUnknown
			}
		}
	}
	var body struct {
		Assignments []struct {
			Role Named `json:"role"`
		} `json:"role_assignments"`
	}
	query := url.Values{"user.id": {userID}, "scope.project.id": {projectID}, "effective": {"true"}, "include_names": {"true"}}
	if err := c.get(ctx, "role_assignments?"+query.Encode(), nil, &body); err != nil {
		return nil, err
	}
	var names []string
	for _, a := range body.Assignments {
		names = append(names, a.Role.Name)
	}
	return names, nil
}
