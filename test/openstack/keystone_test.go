package openstack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

// outsideWorld is an outside Keystone with a project of two users, and a quickims that asks it.
type outsideWorld struct {
	*harness.Keystone
	server
	admin   string // a token of Keystone's admin
	project string // "lab" of the domain "tenant"
	users   map[string]string
	roles   map[string]string
}

const pass = "a password of a user"

// startOutside makes the world. "ann" is a member of the project, "rea" may only look; the
// role of "max" has another name here; "odd" has a role that means nothing here.
func startOutside(t *testing.T) *outsideWorld {
	t.Helper()
	k := harness.StartKeystone(t)
	w := &outsideWorld{Keystone: k, users: map[string]string{}, roles: map[string]string{}}
	w.admin = w.login(t, harness.KeystoneAdmin, "Default", harness.KeystonePassword, `"project":{"name":"admin","domain":{"name":"Default"}}`)
	var list struct{ Roles []struct{ ID, Name string } }
	if err := json.Unmarshal(k.Do(t, w.admin, "GET", "/roles", ""), &list); err != nil {
		t.Fatal(err)
	}
	for _, r := range list.Roles {
		w.roles[r.Name] = r.ID
	}
	for _, name := range []string{"image-worker", "unheard-of"} {
		w.roles[name] = k.Make(t, w.admin, "/roles", fmt.Sprintf(`{"role":{"name":%q}}`, name))
	}
	domain := k.Make(t, w.admin, "/domains", `{"domain":{"name":"tenant"}}`)
	w.project = k.Make(t, w.admin, "/projects", fmt.Sprintf(`{"project":{"name":"lab","domain_id":%q}}`, domain))
	service := k.Make(t, w.admin, "/projects", `{"project":{"name":"service","domain_id":"default"}}`)
	w.user(t, "default", "quickims", "admin", service)
	w.user(t, domain, "ann", "member", w.project)
	w.user(t, domain, "rea", "reader", w.project)
	w.user(t, domain, "max", "image-worker", w.project)
	w.user(t, domain, "odd", "unheard-of", w.project)
	w.server = server{harness.Start(t, harness.Options{S3: true, NBD: true, Config: fmt.Sprintf(`identity:
  keystone:
    url: %s
    user: quickims
    password: %q
    cache: 1s
    timeout: 30s
    roles: { admin: [admin], member: [member, Image-Worker], reader: [reader] }
`, k.URL, pass)})}
	for kind, address := range map[string]string{"identity": k.URL + "/v3", "image": w.API + "/image"} {
		id := k.Make(t, w.admin, "/services", fmt.Sprintf(`{"service":{"name":%q,"type":%q}}`, kind, kind))
		k.Make(t, w.admin, "/endpoints", fmt.Sprintf(`{"endpoint":{"service_id":%q,"interface":"public","url":%q}}`, id, address))
	}
	return w
}

func (w *outsideWorld) login(t *testing.T, user, domain, password, scope string) string {
	t.Helper()
	return w.Keystone.Login(t, fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"domain":{"name":%q},"password":%q}}},"scope":{%s}}}`,
		user, domain, password, scope))
}

// token is one of a user's in the project.
func (w *outsideWorld) token(t *testing.T, user string) string {
	t.Helper()
	return w.login(t, user, "tenant", pass, fmt.Sprintf(`"project":{"id":%q}`, w.project))
}

func (w *outsideWorld) user(t *testing.T, domain, name, role, project string) {
	t.Helper()
	id := w.Keystone.Make(t, w.admin, "/users", fmt.Sprintf(`{"user":{"name":%q,"domain_id":%q,"password":%q}}`, name, domain, pass))
	w.users[name] = id
	w.Keystone.Do(t, w.admin, "PUT", "/projects/"+project+"/users/"+id+"/roles/"+w.roles[role], "")
}

// run runs Debian's program as a user of the project, at an address to log in at.
func (w *outsideWorld) run(user, auth, program string, words ...string) (string, error) {
	cmd := exec.Command("/usr/bin/"+program, words...)
	cmd.Env = append(os.Environ(), "OS_AUTH_URL="+auth, "OS_IDENTITY_API_VERSION=3", "OS_USERNAME="+user, "OS_PASSWORD="+pass, "OS_USER_DOMAIN_NAME=tenant",
		"OS_PROJECT_NAME=lab", "OS_PROJECT_DOMAIN_NAME=tenant")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// status sends a request to the image service.
func (w *outsideWorld) status(t *testing.T, method, path, token string, body any) (int, string) {
	t.Helper()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	a, err := w.server.Send(method, path, token, content)
	if err != nil {
		t.Fatal(err)
	}
	return a.Status, string(a.Body)
}

// attach attaches an image and gives the attachment's path.
func (w *outsideWorld) attach(t *testing.T, token, image string) string {
	t.Helper()
	status, body := w.status(t, "POST", "/v1/"+w.project+"/attachments", token, map[string]any{"image_id": image})
	var a harness.Attachment
	if err := json.Unmarshal([]byte(body), &a); err != nil || status >= 300 {
		t.Fatalf("attach: %d %s", status, body)
	}
	return "/v1/" + w.project + "/attachments/" + a.ID
}

// accessKey gives a user of Keystone an access key here, as the operator does.
func (w *outsideWorld) accessKey(t *testing.T, user string) [2]string {
	t.Helper()
	out, err := exec.Command(harness.Binary(t), "account", "add", "--data", w.Dir, "--domain", "tenant", "--project", "lab", "--user", user).Output()
	if err != nil {
		t.Fatalf("account add: %v %s", err, out)
	}
	var key [2]string
	for i, name := range []string{"QUICKIMS_ACCESS_KEY=", "QUICKIMS_SECRET_KEY="} {
		_, rest, _ := strings.Cut(string(out), name)
		value, _, _ := strings.Cut(rest, "\n")
		key[i] = strings.Trim(value, "'")
	}
	return key
}

// signed lists the images with an access key.
func (w *outsideWorld) signed(t *testing.T, key [2]string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.API+"/v2/cloudimages", nil)
	if err == nil {
		err = signature.Sign(req, nil, key[0], key[1], time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// TestOutsideKeystone: with Debian's Keystone as the one that knows who callers are, its
// users, projects, roles and revocations count here, and a flood of made-up tokens stays
// away from it.
func TestOutsideKeystone(t *testing.T) {
	if os.Getenv("QUICKIMS_TEST_CLIENTS") == "" {
		t.Skip("QUICKIMS_TEST_CLIENTS is not set; make test-clients sets it")
	}
	t.Parallel()
	w := startOutside(t)
	disk := harness.Disk(3, 1)
	file, out := writeFile(t, "disk.raw", disk), filepath.Join(t.TempDir(), "out.raw")
	client := compat.Client{Area: "OpenStack", Name: "python3-openstackclient", Version: compat.DebianVersion(t, "python3-openstackclient")}
	over := "a Keystone of its own"
	for _, k := range []struct {
		user, line, want string
		auth             string
		fails            bool
	}{
		{user: "ann", line: "image create --file FILE --disk-format raw --container-format bare one -f value -c name", want: "one"},
		{user: "ann", line: "image show one -f value -c owner -c status", want: w.project + "\nactive"},
		{user: "rea", line: "image list -f value -c Name", want: "one"},
		{user: "rea", line: "image save --file OUT one"},
		{user: "rea", line: "image delete one", want: "403", fails: true},
		{user: "max", line: "image set --property by=max one"},
		{user: "odd", line: "image list", want: "no role", fails: true},
		{user: "ann", line: "catalog show image -f value -c endpoints", want: w.API + "/image"},
		// The service itself as the address to log in at: it sends the client on.
		{user: "ann", line: "image list -f value -c Name --long", want: "one", auth: w.API + "/v3"},
		{user: "ann", line: "image list --property by=max -f value -c Name", want: "one", auth: w.API},
	} {
		if k.auth == "" {
			k.auth = w.URL + "/v3"
		}
		c := compat.Case{Did: "openstack " + strings.ReplaceAll(k.line, w.project, "PROJECT"), Over: over}
		if k.fails {
			c.Result = "refused: " + k.want
		}
		client.Run(t, c, func(t *testing.T) {
			printed, err := w.run(k.user, k.auth, "openstack", strings.Fields(strings.NewReplacer("FILE", file, "OUT", out).Replace(k.line))...)
			if (err != nil) != k.fails || !strings.Contains(printed, k.want) {
				t.Fatalf("as %s at %s: %v, it prints\n%s\nwant %q", k.user, k.auth, err, printed, k.want)
			}
		})
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("what was saved are %d bytes, %v", len(got), err)
	}

	ann := w.token(t, "ann")
	var list struct{ Images []image }
	if _, body := w.status(t, "GET", images, ann, nil); json.Unmarshal([]byte(body), &list) != nil || len(list.Images) != 1 {
		t.Fatalf("images: %s", body)
	}
	id := list.Images[0].ID

	t.Run("strangers", func(t *testing.T) {
		other := w.Keystone.Make(t, w.admin, "/projects", `{"project":{"name":"elsewhere","domain_id":"default"}}`)
		w.user(t, "default", "eve", "admin", other)
		eve := w.login(t, "eve", "Default", pass, fmt.Sprintf(`"project":{"id":%q}`, other))
		if status, body := w.status(t, "GET", images+"/"+id, eve, nil); status != http.StatusNotFound {
			t.Errorf("another project reads the image: %d %s", status, body)
		}
		// Enterprise projects are a domain's.
		status, body := w.status(t, "POST", "/v1.0/enterprise-projects", eve, map[string]any{"name": "eves"})
		if status >= 300 {
			t.Errorf("an enterprise project of an outside domain: %d %s", status, body)
		}
		if status, body := w.status(t, "GET", "/v1.0/enterprise-projects?name=eves", ann, nil); status != http.StatusOK || strings.Contains(body, "eves") {
			t.Errorf("another domain sees it: %d %s", status, body)
		}
	})

	t.Run("application credential", func(t *testing.T) {
		secret := "a secret of a credential"
		app := w.Keystone.Make(t, ann, "/users/"+w.users["ann"]+"/application_credentials",
			fmt.Sprintf(`{"application_credential":{"name":"ci","secret":%q}}`, secret))
		token := w.Keystone.Login(t, fmt.Sprintf(`{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":%q,"secret":%q}}}}`, app, secret))
		if status, body := w.status(t, "GET", images+"/"+id, token, nil); status != http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
	})

	t.Run("revoked token", func(t *testing.T) {
		token := w.token(t, "ann")
		path := w.attach(t, token, id)
		w.Keystone.Do(t, token, "DELETE", "/auth/tokens", "")
		harness.Eventually(t, "the token has ended", func() bool { s, _ := w.status(t, "GET", images, token, nil); return s == http.StatusUnauthorized })
		harness.Eventually(t, "the attachment has ended", func() bool { s, _ := w.status(t, "GET", path, ann, nil); return s == http.StatusNotFound })
	})

	t.Run("role taken away", func(t *testing.T) {
		token := w.token(t, "max")
		path := w.attach(t, token, id)
		key := w.accessKey(t, "max")
		if status := w.signed(t, key); status != http.StatusOK {
			t.Fatalf("a signed request: %d", status)
		}
		w.Keystone.Do(t, w.admin, "DELETE", "/projects/"+w.project+"/users/"+w.users["max"]+"/roles/"+w.roles["image-worker"], "")
		harness.Eventually(t, "the attachment has ended", func() bool { s, _ := w.status(t, "GET", path, ann, nil); return s == http.StatusNotFound })
		harness.Eventually(t, "the token has ended", func() bool { s, _ := w.status(t, "GET", images, token, nil); return s == http.StatusUnauthorized })
		harness.Eventually(t, "the access key has ended", func() bool { return w.signed(t, key) == http.StatusUnauthorized })
	})

	t.Run("user disabled", func(t *testing.T) {
		path := w.attach(t, w.token(t, "rea"), id)
		w.Keystone.Do(t, w.admin, "PATCH", "/users/"+w.users["rea"], `{"user":{"enabled":false}}`)
		harness.Eventually(t, "the attachment has ended", func() bool { s, _ := w.status(t, "GET", path, ann, nil); return s == http.StatusNotFound })
	})

	t.Run("flood", func(t *testing.T) {
		before := w.Asked("GET /v3/auth/tokens")
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[int]int{}
		work := make(chan int)
		for range 16 {
			wg.Go(func() {
				for i := range work {
					// Each made-up token comes twice.
					a, err := w.server.Send("GET", images, fmt.Sprintf("gAAAAAB-made-up-%d", i/2), nil)
					mu.Lock()
					if err != nil {
						t.Error(err)
					}
					seen[a.Status]++
					mu.Unlock()
				}
			})
		}
		begun := time.Now()
		for i := 0; i < 3000 && time.Since(begun) < 8*time.Second; i++ {
			work <- i
		}
		close(work)
		wg.Wait()
		asked := w.Asked("GET /v3/auth/tokens") - before
		t.Logf("%v, Keystone was asked %d times", seen, asked)
		// 100 at once, ten a second, and those that were on their way.
		if most := 100 + int(10*time.Since(begun).Seconds()) + 16; asked > most {
			t.Errorf("%v: Keystone was asked %d times, want at most %d", seen, asked, most)
		}
		// A Keystone that is slow, as on a busy machine, is one that does not answer: 503.
		if n := seen[http.StatusUnauthorized] + seen[http.StatusTooManyRequests] + seen[http.StatusServiceUnavailable]; n == 0 || len(seen) > 3 {
			t.Errorf("made-up tokens are answered %v", seen)
		}
		harness.Eventually(t, "a good token is taken", func() bool { s, _ := w.status(t, "GET", images, ann, nil); return s == http.StatusOK })
	})

	t.Run("away", func(t *testing.T) {
		w.Keystone.Stop()
		harness.Eventually(t, "what Keystone said has aged", func() bool {
			status, body := w.status(t, "GET", images, ann, nil)
			return status == http.StatusServiceUnavailable && strings.Contains(body, w.URL)
		})
		w.Keystone.Start(t)
		harness.Eventually(t, "it is asked again", func() bool { s, _ := w.status(t, "GET", images, ann, nil); return s == http.StatusOK })
	})
}
