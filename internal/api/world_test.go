package api_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quickims/quickims"
	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

// world is a running server over a real database, with users of every role.
type world struct {
	url      string
	database string // its URL
	server   *httptest.Server
	db       *database.DB
	catalog  *catalog.Catalog
	identity *identity.Service
	importer *acceptor
	disks    *disks
	logs     *logBuffer
	registry *prometheus.Registry
	limits   ims.Limits
	domain   string
	logins   map[ims.Role]string // unscoped tokens
}

// shared is the world of all tests that need none of their own: each makes its own
// project in it.
var shared *world

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quickims-api")
	if err != nil {
		panic(err)
	}
	shared, err = makeWorld(dir, nil)
	if err != nil {
		panic(err)
	}
	code := m.Run()
	shared.close()
	os.RemoveAll(dir)
	os.Exit(code)
}

// newWorld is a world of the test's own, with settings changed.
func newWorld(t testing.TB, change func(*api.Config)) *world {
	t.Helper()
	w, err := makeWorld(t.TempDir(), change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func makeWorld(dir string, change func(*api.Config)) (*world, error) {
	ctx := context.Background()
	url := "sqlite:" + filepath.Join(dir, "quickims.db")
	db, err := database.Open(ctx, url, database.Options{LockTimeout: 3 * time.Second})
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx); err != nil {
		return nil, err
	}
	w := &world{
		database: url, db: db, catalog: catalog.New(db, catalog.Options{}), logs: &logBuffer{}, registry: prometheus.NewRegistry(),
		disks: &disks{content: map[string]diskContent{}}, limits: ims.Limits{Images: 20, Imports: 10, Attachments: 20}, logins: map[ims.Role]string{},
	}
	if w.identity, err = identity.New(db, identity.Options{
		SealKey: bytes.Repeat([]byte{7}, identity.SealKeySize), PasswordCost: identity.PasswordCost{MemoryKiB: 8, Passes: 1, Lanes: 1},
	}); err != nil {
		return nil, err
	}
	if err := w.users(ctx); err != nil {
		return nil, err
	}
	w.importer = &acceptor{catalog: w.catalog, disks: w.disks}
	c := api.Config{
		Catalog: w.catalog, Importer: w.importer, Auth: w.identity, Disks: w.disks,
		Keystone: keystone.New(w.identity, keystone.Options{Region: "region-1"}),
		Limits:   w.limits, OpenAPI: quickims.OpenAPI, Registry: w.registry,
		NBDURI:      func(token string) string { return "nbd://127.0.0.1:10809/" + token },
		Unavailable: func(err error) bool { return errors.Is(err, database.ErrUnavailable) },
		Logger:      slog.New(slog.NewJSONHandler(w.logs, nil)),
	}
	if change != nil {
		change(&c)
	}
	w.limits = c.Limits
	w.importer.limits = c.Limits
	h, err := api.New(c)
	if err != nil {
		return nil, err
	}
	w.server = httptest.NewUnstartedServer(h)
	w.server.Config = api.NewServer(h, slog.New(slog.NewJSONHandler(w.logs, nil)))
	w.server.Start()
	w.url = w.server.URL
	return w, nil
}

func (w *world) users(ctx context.Context) error {
	d, err := w.identity.CreateDomain(ctx, "", "a domain")
	if err != nil {
		return err
	}
	w.domain = d.ID
	for _, role := range []ims.Role{ims.RoleAdmin, ims.RoleMember, ims.RoleReader} {
		const password = "correct horse"
		if _, err := w.identity.CreateUser(ctx, identity.User{Name: string(role), DomainID: d.ID}, password); err != nil {
			return err
		}
		token, _, err := w.identity.LoginPassword(ctx, identity.PasswordLogin{UserName: string(role), DomainID: d.ID, Password: password}, identity.Scope{})
		if err != nil {
			return err
		}
		w.logins[role] = token
	}
	return nil
}

func (w *world) close() {
	w.server.Close()
	w.db.Close()
}

// caller sends requests as a user in a project.
type caller struct {
	*world
	token   string
	project string
}

// newProject makes a project and gives a member's token for it.
func (w *world) newProject(t testing.TB) caller {
	t.Helper()
	p, err := w.identity.CreateProject(t.Context(), identity.Project{Name: "p " + ims.NewJobID(), DomainID: w.domain})
	if err != nil {
		t.Fatal(err)
	}
	return w.as(t, ims.RoleMember, p.ID)
}

// as is a caller with the role in the project.
func (w *world) as(t testing.TB, role ims.Role, project string) caller {
	t.Helper()
	users, err := w.identity.Users(t.Context(), w.domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		if u.Name == string(role) {
			if err := w.identity.Grant(t.Context(), identity.Grant{UserID: u.ID, ProjectID: project, Role: role}); err != nil {
				t.Fatal(err)
			}
		}
	}
	token, _, err := w.identity.LoginToken(t.Context(), w.logins[role], identity.Scope{ProjectID: project})
	if err != nil {
		t.Fatal(err)
	}
	return caller{world: w, token: token, project: project}
}

// answer is what came back, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
	image  bool // it came from below /image
	head   bool // to a HEAD: it has no body
}

// send sends a request and holds the answer against openapi.yaml.
func (c caller) send(t testing.TB, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	if method == "PATCH" && strings.HasPrefix(path, glanceImages) {
		req.Header.Set("Content-Type", "application/openstack-images-v2.1-json-patch")
	}
	if method == "PUT" && (strings.HasSuffix(path, "/file") || strings.HasSuffix(path, "/stage")) {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, content, strings.HasPrefix(path, "/image/"), method == http.MethodHead}
	if a.header.Get("X-Request-Id") == "" {
		t.Errorf("%s %s: no X-Request-Id", method, path)
	}
	checkAgainstOpenAPI(t, req, body, a)
	return a
}

// expect sends a request that must succeed with the status, and reads the answer.
func (c caller) expect(t testing.TB, status int, method, path, body string) map[string]any {
	t.Helper()
	a := c.send(t, method, path, body)
	if a.status != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
	if len(a.body) == 0 {
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
	}
	return v
}

// refused sends a request that must be refused with the code's published text, and
// gives the details.
func (c caller) refused(t testing.TB, status int, code ims.Code, method, path, body string) string {
	t.Helper()
	return c.send(t, method, path, body).refused(t, status, code)
}

func (a answer) refused(t testing.TB, status int, code ims.Code) string {
	t.Helper()
	if a.head {
		if a.status != status {
			t.Fatalf("got %d, want %d", a.status, status)
		}
		return ""
	}
	var v struct {
		Error struct{ Code, Message, Details string }
	}
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("status %d, not an error of our form: %v: %.200s", a.status, err, a.body)
	}
	message := published(t)[code].message
	if a.image && v.Error.Details != "" {
		message += " (" + v.Error.Details + ")" // OpenStack's clients print the message alone
	}
	if a.status != status || v.Error.Code != string(code) || v.Error.Message != message {
		t.Fatalf("got %d %s, want %d %s %q", a.status, a.body, status, code, message)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	return v.Error.Details
}

type publishedCode struct {
	status  string
	message string
}

var readPublished = sync.OnceValues(func() (map[ims.Code]publishedCode, error) {
	f, err := os.Open("../ims/errorcodes.csv")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, err
	}
	out := map[ims.Code]publishedCode{}
	for _, row := range rows[1:] {
		out[ims.Code(row[0])] = publishedCode{row[1], row[2]}
	}
	return out, nil
})

// published is the table of codes as it was published.
func published(t testing.TB) map[ims.Code]publishedCode {
	t.Helper()
	table, err := readPublished()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// systemDisk is an import that is accepted, with fields changed; nil takes one out.
func systemDisk(change map[string]any) string {
	return body(map[string]any{
		"name": "web server", "image_url": "disks:web.zvhd2", "os_version": "Ubuntu 22.04 server 64bit", "min_disk": 40,
	}, change)
}

// dataDisk is an import of a data disk.
func dataDisk(change map[string]any) string {
	return body(map[string]any{"name": "store", "image_url": "disks:store.raw", "type": "DataImage", "min_disk": 10}, change)
}

func body(fields, change map[string]any) string {
	maps.Copy(fields, change)
	maps.DeleteFunc(fields, func(_ string, v any) bool { return v == nil })
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const quickImport = "/v2/cloudimages/quickimport/action"

// accepted imports and gives the job's and the image's id.
func (c caller) accepted(t testing.TB, request string) (job, image string) {
	t.Helper()
	job, _ = c.expect(t, http.StatusOK, "POST", quickImport, request)["job_id"].(string)
	v := c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+job, "")
	image, _ = v["entities"].(map[string]any)["image_id"].(string)
	if image == "" {
		t.Fatalf("job %s names no image: %v", job, v)
	}
	return job, image
}

// active imports and publishes an image of some data.
func (c caller) active(t testing.TB, request string) string {
	t.Helper()
	job, image := c.accepted(t, request)
	c.publish(t, job, image, 4096)
	return image
}

// saving imports as far as the adoption; publish of the job goes on from there.
func (c caller) saving(t testing.TB, request string) (job ims.Job, image string) {
	t.Helper()
	id, image := c.accepted(t, request)
	job = c.claim(t, id)
	if err := c.catalog.BeginAdopt(t.Context(), job, sourceOf(job, 4096)); err != nil {
		t.Fatal(err)
	}
	return job, image
}

// publish does with the catalog what an importer does.
func (c caller) publish(t testing.TB, jobID, imageID string, size int64) {
	t.Helper()
	job := c.claim(t, jobID)
	if err := c.catalog.BeginAdopt(t.Context(), job, sourceOf(job, size)); err != nil {
		t.Fatal(err)
	}
	data := ims.Data{
		Key: fmt.Sprintf("%s/%d/disk", imageID, job.Attempt), ETag: `"e-` + imageID + `"`, Format: "zvhd2", Size: size / 2, VirtualSize: size,
	}
	if err := c.catalog.Publish(t.Context(), job, data); err != nil {
		t.Fatal(err)
	}
}

// sourceOf is what a job adopts: a pinned source.
func sourceOf(job ims.Job, size int64) ims.Data {
	return ims.Data{Bucket: job.Source.Bucket, Version: "v1", Key: job.Source.Key, ETag: "source", Format: "zvhd2", Size: size / 2, VirtualSize: size}
}

func (c caller) claim(t testing.TB, jobID string) ims.Job {
	t.Helper()
	job, ok, err := c.catalog.ClaimJob(t.Context(), jobID, time.Minute)
	if err != nil || !ok {
		t.Fatalf("claim job %s: %v, %v", jobID, ok, err)
	}
	return job
}

// anotherDomain is an admin of a project in a domain of its own.
func (w *world) anotherDomain(t testing.TB) caller {
	t.Helper()
	const password = "correct horse"
	ctx := t.Context()
	d, err := w.identity.CreateDomain(ctx, "", "d "+ims.NewJobID())
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.identity.CreateProject(ctx, identity.Project{Name: "p", DomainID: d.ID})
	if err != nil {
		t.Fatal(err)
	}
	u, err := w.identity.CreateUser(ctx, identity.User{Name: "u", DomainID: d.ID}, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.identity.Grant(ctx, identity.Grant{UserID: u.ID, ProjectID: p.ID, Role: ims.RoleAdmin}); err != nil {
		t.Fatal(err)
	}
	token, _, err := w.identity.LoginPassword(ctx, identity.PasswordLogin{UserID: u.ID, Password: password}, identity.Scope{ProjectID: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	return caller{world: w, token: token, project: p.ID}
}

func decode(t testing.TB, a answer, into any) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

// metrics is what the registry shows to Prometheus.
func (w *world) metrics() string {
	r := httptest.NewRecorder()
	promhttp.HandlerFor(w.registry, promhttp.HandlerOpts{}).ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return r.Body.String()
}
