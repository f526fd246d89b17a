// Package client calls a running quickims: its API, with signed requests, and the
// object store beside it. The command line is built on it.
//
// An [Error] is what the service answered; every other error means that there was
// no proper answer. All calls may be made by many goroutines at once.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/identity/signature"
)

// ErrNotConfigured is wrapped by errors about a setting that is missing or of a
// wrong form.
var ErrNotConfigured = errors.New("not configured")

type configError struct{ text string }

func (e *configError) Error() string { return e.text }
func (e *configError) Unwrap() error { return ErrNotConfigured }

// Error is an answer of the service that says that a request failed.
type Error struct {
	Request   string // what was asked: method and path
	Status    int    // of HTTP
	Code      string // such as IMG.0057, or an S3 code such as NoSuchBucket; may be ""
	Message   string
	Details   string // "" when the service gave none
	RequestID string // for the service's log; "" when the service gave none
}

// Error is the answer on one line.
func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString(e.Request + ": ")
	if e.Code != "" {
		s.WriteString(e.Code + ": ")
	}
	s.WriteString(e.Message)
	if e.Details != "" {
		s.WriteString(" (" + e.Details + ")")
	}
	if e.RequestID != "" {
		s.WriteString(" [request id " + e.RequestID + "]")
	}
	return s.String()
}

// Options are what tests set; zero values mean the usual.
type Options struct {
	UserAgent string
	HTTP      *http.Client
	Now       func() time.Time
	// Sleep waits between two looks at a job. It returns early with ctx's error.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Client calls the API of one service as one user.
type Client struct {
	config   Config
	endpoint *url.URL
	opts     Options
	streams  *http.Client // for answers of any length and time
}

const (
	// requestTimeout bounds one request of the API: none of them moves data.
	requestTimeout = time.Minute
	// maxAnswer bounds an answer's body: 1000 images of 4 KiB, the longest page,
	// with room.
	maxAnswer = 16 << 20
)

// New makes a client. The error wraps ErrNotConfigured and says what to set.
func New(config Config, opts Options) (*Client, error) {
	if config.Endpoint == "" {
		return nil, &configError{"no service is named: set " + EnvEndpoint + ", or name the server's DIR/credentials.env with --credentials"}
	}
	endpoint, err := parseEndpoint(EnvEndpoint, config.Endpoint)
	if err != nil {
		return nil, &configError{err.Error()}
	}
	if config.Token == "" && (config.AccessKey == "" || config.SecretKey == "") {
		return nil, &configError{"no credentials: set " + EnvAccessKey + " and " + EnvSecretKey + " (or " + EnvToken +
			"), or name the server's DIR/credentials.env with --credentials"}
	}
	if opts.HTTP == nil {
		opts.HTTP = &http.Client{}
		if config.Authorities != nil {
			transport := http.DefaultTransport.(*http.Transport).Clone()
			transport.TLSClientConfig = &tls.Config{RootCAs: config.Authorities}
			opts.HTTP.Transport = transport
		}
	}
	bounded, streams := *opts.HTTP, *opts.HTTP
	bounded.Timeout, streams.Timeout = requestTimeout, 0
	// A redirect would carry token or signature to a host that nobody named.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	bounded.CheckRedirect, streams.CheckRedirect = stay, stay
	opts.HTTP = &bounded
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sleep == nil {
		opts.Sleep = sleep
	}
	return &Client{config: config, endpoint: endpoint, opts: opts, streams: &streams}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// ProjectID is the project that the client works in.
func (c *Client) ProjectID() string { return c.config.ProjectID }

// project is ProjectID where a path needs it.
func (c *Client) project() (string, error) {
	if c.config.ProjectID == "" {
		return "", &configError{"no project is named: set " + EnvProjectID}
	}
	return c.config.ProjectID, nil
}

// do sends one request and gives the answer's body, JSON or empty. in is the body
// to send, nil for none.
func (c *Client) do(ctx context.Context, method string, path []string, query url.Values, in any) (json.RawMessage, error) {
	req, err := c.request(ctx, method, path, query, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(c.opts.HTTP, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := readAnswer(resp.Body)
	if err != nil {
		return nil, c.unreachable(req, fmt.Errorf("read the answer: %w", err))
	}
	if len(answer) > 0 && !json.Valid(answer) {
		return nil, fmt.Errorf("%s: the answer is not JSON: is %s a quickims?", what(req), c.endpoint)
	}
	return answer, nil
}

// request makes a signed request.
func (c *Client) request(ctx context.Context, method string, path []string, query url.Values, in any) (*http.Request, error) {
	u := *c.endpoint
	for _, segment := range path {
		// A slash would be signed as %2F by one side and as two segments by the other.
		if segment == "" || segment == "." || segment == ".." || strings.Contains(segment, "/") {
			return nil, fmt.Errorf("%s: %q can't be part of a path", method, segment)
		}
		u.Path += "/" + segment
		u.RawPath += "/" + url.PathEscape(segment)
	}
	u.RawQuery = query.Encode()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("%s %s: encode the request: %w", method, u.EscapedPath(), err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, u.EscapedPath(), err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.opts.UserAgent != "" {
		req.Header.Set("User-Agent", c.opts.UserAgent)
	}
	if c.config.ProjectID != "" {
		req.Header.Set("X-Project-Id", c.config.ProjectID)
	}
	if c.config.Token != "" {
		req.Header.Set("X-Auth-Token", string(c.config.Token))
	} else if err := signature.Sign(req, body, c.config.AccessKey, string(c.config.SecretKey), c.opts.Now()); err != nil {
		return nil, fmt.Errorf("%s: sign the request: %w", what(req), err)
	}
	return req, nil
}

// what names a request in errors.
func what(req *http.Request) string { return req.Method + " " + req.URL.EscapedPath() }

// send sends a request and gives the answer if it is a success.
func (c *Client) send(via *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := via.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // it would name the address a second time
		}
		return nil, c.unreachable(req, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := readAnswer(resp.Body)
	if err != nil {
		body = nil // the status says enough
	}
	return nil, readError(what(req), resp, body)
}

func readAnswer(r io.Reader) ([]byte, error) {
	answer, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("it is longer than %d bytes", maxAnswer)
	}
	return answer, err
}

// unreachable says that there was no answer to req, or that the caller gave up.
func (c *Client) unreachable(req *http.Request, err error) error {
	if cause := context.Cause(req.Context()); cause != nil {
		return cause
	}
	return &unreachableError{what: what(req), endpoint: c.endpoint.String(), err: err}
}

// unreachableError: there was no answer. Asking again may help.
type unreachableError struct {
	what, endpoint string
	err            error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("%s: the service at %s can't be reached: %v", e.what, e.endpoint, e.err)
}
func (e *unreachableError) Unwrap() error { return e.err }

// readError makes an Error of an answer, whatever it is: a proxy's page too.
func readError(what string, resp *http.Response, body []byte) error {
	e := &Error{Request: what, Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-Id")}
	var wire struct {
		Error struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Details json.RawMessage `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &wire) == nil {
		e.Code, e.Message = wire.Error.Code, wire.Error.Message
		if json.Unmarshal(wire.Error.Details, &e.Details) != nil && string(wire.Error.Details) != "null" {
			e.Details = string(wire.Error.Details)
		}
	}
	if e.Message == "" {
		e.Message = "the service answered " + resp.Status
	}
	return e
}

// passing reports whether the same request may succeed in a moment: the service is
// not there (it restarts, say), or says so itself.
func passing(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status >= 500 || e.Status == http.StatusTooManyRequests
	}
	_, unreachable := errors.AsType[*unreachableError](err)
	return unreachable
}
