package tenancy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/test/harness"
)

// states of an image. They are the owner's, and but for "private" and "deleted" shared with
// the three member projects; "shared" is active and has nothing else to it. "public" is an
// image of the service's own project.
var states = []string{"queued", "saving", "shared", "private", "deactivated", "protected", "attached", "killed", "deleted", "public"}

// persona is who calls: the column of the table whose answers it must get, and how it
// proves itself.
type persona struct {
	name, column string
	token        string
	project      string // "{self}": the project it acts for, or would like to
	user         string // "{caller}"
	sign         bool   // with the first user's access key, instead of the token
	// once: it asks about the first image of each line alone, since it is refused before
	// any is looked at, or is another persona once it is known.
	once bool
}

// object is an image and what hangs on it.
type object struct{ image, job, attachment string }

// world is a running service with projects, users and images. Calls that are refused
// all meet the same world, since they change nothing.
type world struct {
	*harness.Server
	db       *database.DB
	identity *identity.Service
	personas []persona
	things   map[string]string // what the table's names stand for
	images   map[string]object // by state
	// secrets are ids that nobody but the owner may learn, shared those that the member
	// projects may, too.
	secrets, shared []string
	// credentials are application credentials of the personas' own, by persona.
	credentials map[string]string
	made        int // for names that nobody has yet
}

const (
	password = "correct horse"
	disk     = "disk.raw"
)

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	dir, hold := t.TempDir(), filepath.Join(t.TempDir(), "hold")
	w := &world{things: map[string]string{}, images: map[string]object{}, credentials: map[string]string{}}
	w.Server = harness.Start(t, harness.Options{
		Dir: dir, Database: url, NBD: true, Faults: "adopt.begun=hold", Env: []string{"QUICKIMS_FAULTPOINT_HOLD=" + hold},
		Args:   []string{"--log-level", "warn"}, // thousands of requests
		Config: "limits:\n  images: 100000\n  imports: 100000\n  attachments: 100000\n",
	})
	t.Cleanup(func() { os.Remove(hold) }) // before the server is asked to end
	if url == "" {
		url = "sqlite:" + filepath.Join(dir, "quickims.db")
	}
	var err error
	if w.db, err = database.Open(t.Context(), url, database.Options{LockTimeout: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	if w.identity, err = identity.New(w.db, identity.Options{
		SealKey: bytes.Repeat([]byte{7}, identity.SealKeySize), PasswordCost: identity.PasswordCost{MemoryKiB: 8, Passes: 1, Lanes: 1},
	}); err != nil {
		t.Fatal(err)
	}
	w.makePersonas(t)
	w.makeImages(t, hold)
	w.secrets = []string{w.things["user"], w.things["credential"]}
	w.shared = []string{w.things["owner"]}
	for state, o := range w.images {
		switch state {
		case "public":
		case "private", "deleted":
			w.secrets = append(w.secrets, o.image, o.job)
		default:
			w.shared, w.secrets = append(w.shared, o.image), append(w.secrets, o.job, o.attachment)
		}
	}
	w.secrets = slices.DeleteFunc(w.secrets, func(id string) bool { return id == "" })
	return w
}

// must gives v, or ends the test.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// user makes a user with a role in a project, or with none.
func (w *world) user(t *testing.T, domain, project, name string, role ims.Role) string {
	t.Helper()
	u := must(w.identity.CreateUser(t.Context(), identity.User{Name: name, DomainID: domain}, password))(t)
	if err := w.identity.Grant(t.Context(), identity.Grant{UserID: u.ID, ProjectID: project, Role: role}); err != nil {
		t.Fatal(err)
	}
	return u.ID
}

// login gives a token of a user.
func (w *world) login(t *testing.T, user string, scope identity.Scope) (string, ims.Principal) {
	t.Helper()
	secret, token, err := w.identity.LoginPassword(t.Context(), identity.PasswordLogin{UserID: user, Password: password}, scope)
	if err != nil {
		t.Fatal(err)
	}
	return secret, token.Principal
}

func (w *world) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := w.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (w *world) makePersonas(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	domain := func(name string) string { return must(w.identity.CreateDomain(ctx, "", name))(t).ID }
	project := func(domain, name string) string {
		return must(w.identity.CreateProject(ctx, identity.Project{Name: name, DomainID: domain}))(t).ID
	}
	acme, globex := domain("acme"), domain("globex")
	owner := project(acme, "owner")
	in := identity.Scope{ProjectID: owner}
	add := func(name, column, user, project string, scope identity.Scope) {
		token, _ := w.login(t, user, scope)
		w.personas = append(w.personas, persona{name: name, column: column, token: token, project: project, user: user})
	}
	admin, member, reader := w.user(t, acme, owner, "admin", ims.RoleAdmin), w.user(t, acme, owner, "member", ims.RoleMember), w.user(t, acme, owner, "reader", ims.RoleReader)
	add("admin", "adm", admin, owner, in)
	add("member", "mem", member, owner, in)
	add("reader", "rdr", reader, owner, in)
	demoted := w.user(t, acme, owner, "demoted", ims.RoleAdmin)
	add("demoted", "rdr", demoted, owner, in) // its token was an admin's
	w.personas[len(w.personas)-1].once = true
	if err := w.identity.SetRole(ctx, identity.Grant{UserID: demoted, ProjectID: owner, Role: ims.RoleReader}); err != nil {
		t.Fatal(err)
	}

	// Application credentials of the admin, who is a reader too: of all its rights, and of few.
	if err := w.identity.Grant(ctx, identity.Grant{UserID: admin, ProjectID: owner, Role: ims.RoleReader}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []identity.ApplicationCredential{
		{Name: "all", Roles: []ims.Role{ims.RoleAdmin}, Unrestricted: true},
		{Name: "few", Roles: []ims.Role{ims.RoleReader}},
	} {
		_, principal := w.login(t, admin, in)
		made, secret, err := w.identity.CreateApplicationCredential(ctx, principal, a, "")
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := w.identity.LoginApplicationCredential(ctx, identity.ApplicationLogin{ID: made.ID, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		column := map[string]string{"all": "app", "few": "res"}[a.Name]
		w.personas = append(w.personas, persona{name: "application credential with " + a.Name, column: column, token: token, project: owner, user: admin})
	}

	for name, column := range map[string]string{"pending": "pen", "accepted": "acc", "rejected": "rej"} {
		p := project(globex, name)
		w.things[name] = p
		add(name, column, w.user(t, globex, p, name, ims.RoleAdmin), p, identity.Scope{ProjectID: p})
	}
	guests := w.things["accepted"]
	add("guest", "gst", w.user(t, globex, guests, "guest", ims.RoleReader), guests, identity.Scope{ProjectID: guests})
	neighbour, strange := project(acme, "neighbour"), project(domain("initech"), "stranger")
	add("neighbour", "nbr", w.user(t, acme, neighbour, "neighbour", ims.RoleAdmin), neighbour, identity.Scope{ProjectID: neighbour})
	initech := must(w.identity.Project(ctx, strange))(t).DomainID
	add("stranger", "str", w.user(t, initech, strange, "stranger", ims.RoleAdmin), strange, identity.Scope{ProjectID: strange})
	var first string
	if err := w.db.QueryRowContext(ctx, "SELECT id FROM identity_users WHERE name = $1 AND domain_id = $2", harness.User, harness.DomainID).Scan(&first); err != nil {
		t.Fatal(err)
	}
	w.personas = append(w.personas, persona{name: "service", column: "svc", token: w.Token(t), project: harness.ProjectID, user: first},
		persona{name: "signed", column: "sig", project: harness.ProjectID, user: first, sign: true, once: true})
	add("unscoped", "uns", admin, owner, identity.Scope{})
	add("domain", "dom", admin, owner, identity.Scope{DomainID: acme})

	// Those without credentials that hold: each asks as the owner's admin would.
	expired, _ := w.login(t, admin, in)
	w.exec(t, "UPDATE identity_tokens SET expires_at = $2 WHERE hash = $1", hash(expired), time.Now().Add(-time.Second).UnixMilli())
	revoked, principal := w.login(t, admin, in)
	if err := w.identity.RevokeToken(ctx, principal, revoked); err != nil {
		t.Fatal(err)
	}
	removed := w.user(t, acme, owner, "removed", ims.RoleAdmin)
	ended, _ := w.login(t, removed, in)
	if err := w.identity.RemoveUser(ctx, removed); err != nil {
		t.Fatal(err)
	}
	living, _ := w.login(t, admin, in)
	for name, token := range map[string]string{
		"none": "", "expired": expired, "revoked": revoked, "removed": ended, "forged": strings.Repeat("A", len(living)), "hash for a token": hash(living),
	} {
		w.personas = append(w.personas, persona{name: name, column: "bad", token: token, project: owner, user: admin, once: true})
	}

	// Tokens and credentials that are looked at and ended are the member's.
	maps.Copy(w.things, map[string]string{"owner": owner, "domain": acme, "user": member, "victim": neighbour, "name": "member"})
	w.things["credential"] = w.newCredential(t, member, owner)
	w.things["subject"], _ = w.login(t, member, in)
	for _, p := range w.personas {
		w.credentials[p.name] = w.newCredential(t, p.user, p.project)
	}
	for _, kind := range []string{"service", "endpoint"} {
		list := w.send(t, http.StatusOK, w.personas[0].token, "GET", "/v3/"+kind+"s", "")[kind+"s"].([]any)
		w.things[kind] = list[0].(map[string]any)["id"].(string)
	}
}

// scope is the owner's project.
func (w *world) scope() identity.Scope { return identity.Scope{ProjectID: w.things["owner"]} }

// newCredential makes an application credential of a user.
func (w *world) newCredential(t *testing.T, user, project string) string {
	t.Helper()
	id := ims.NewJobID()
	w.exec(t, `INSERT INTO identity_application_credentials (id, user_id, project_id, name, description, secret_hash, roles, unrestricted, created_at)
		VALUES ($1, $2, $3, $4, '', '', 'reader', FALSE, $5)`, id, user, project, "c"+id, time.Now().UnixMilli())
	return id
}

// send sends a request with a token and gives the answer, which must have the status.
func (w *world) send(t *testing.T, status int, token, method, path, body string) map[string]any {
	t.Helper()
	var content []byte
	if body != "" {
		content = []byte(body)
	}
	a, err := w.Send(method, path, token, content)
	if err != nil || a.Status != status {
		t.Fatalf("%s %s: %v, status %d, want %d: %s", method, path, err, a.Status, status, a.Body)
	}
	var v map[string]any
	if len(a.Body) > 0 {
		if err := json.Unmarshal(a.Body, &v); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, a.Body)
		}
	}
	return v
}

func (w *world) makeImages(t *testing.T, hold string) {
	t.Helper()
	admin, owner := w.personas[0].token, w.things["owner"]
	args := []string{"account", "bucket", "owners", "--data", w.Dir, "--domain", w.things["domain"], "--project", owner}
	if db := w.Options().Database; db != "" {
		args = append(args, "--database", db)
	}
	if out, err := exec.Command(harness.Binary(t), args...).CombinedOutput(); err != nil {
		t.Fatalf("account bucket: %v: %s", err, out)
	}
	w.PutFile(t, "owners", disk, harness.Disk(5, 1))
	w.PutFile(t, "owners", "disk.mf", []byte("of another tool"))
	page := []byte("<!DOCTYPE html><html><head><title>404</title></head><body>Not here.</body></html>")
	w.PutFile(t, "owners", "page.raw", append(page, bytes.Repeat([]byte{' '}, 1<<20-len(page))...))
	w.things["ep"] = w.send(t, http.StatusCreated, admin, "POST", "/v1.0/enterprise-projects", `{"name":"merger"}`)["enterprise_project"].(map[string]any)["id"].(string)

	jobs := map[string]string{}
	begin := func(state, key string) {
		jobs[state], _ = w.send(t, http.StatusOK, admin, "POST", harness.QuickImportPath,
			`{"name":"`+state+`","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"owners:`+key+`","min_disk":1,"image_tags":[{"key":"k","value":"v"}]}`)["job_id"].(string)
	}
	wait := func(state, status string) string {
		var image string
		harness.Eventually(t, "the import of "+state+" is "+status, func() bool {
			v := w.send(t, http.StatusOK, admin, "GET", "/v1/"+owner+"/jobs/"+jobs[state], "")
			image, _ = v["entities"].(map[string]any)["image_id"].(string)
			return v["status"] == status
		})
		return image
	}
	// The first import is held while its image is saving.
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	begin("saving", disk)
	harness.Eventually(t, "an image is saving", func() bool {
		o := object{image: wait("saving", "RUNNING"), job: jobs["saving"]}
		w.images["saving"] = o
		return w.send(t, http.StatusOK, admin, "GET", "/v2/images/"+o.image, "")["status"] == "saving"
	})
	for _, state := range states {
		switch state {
		case "queued", "saving", "public":
		case "killed":
			begin(state, "page.raw")
		default:
			begin(state, disk)
		}
	}
	for _, state := range states {
		switch state {
		case "queued":
			w.images[state] = object{image: w.send(t, http.StatusCreated, admin, "POST", "/image/v2/images", `{"name":"queued","disk_format":"raw","container_format":"bare"}`)["id"].(string)}
		case "saving", "public":
		case "killed":
			w.images[state] = object{image: wait(state, "FAIL"), job: jobs[state]}
		default:
			w.images[state] = object{image: wait(state, "SUCCESS"), job: jobs[state]}
		}
	}
	for _, state := range states {
		if state != "private" && state != "public" {
			w.share(t, w.images[state].image)
		}
	}
	w.exec(t, "INSERT INTO image_tags (image_id, project_id, tag_key, tag_value) VALUES ($1, $2, 'k', 'v')", w.images["queued"].image, owner)
	w.finish(t)
}

// share makes the member projects members of an image, in whatever state it is.
func (w *world) share(t *testing.T, image string) {
	t.Helper()
	now := time.Now().UnixMilli()
	for _, status := range []string{"pending", "accepted", "rejected"} {
		w.exec(t, "INSERT INTO image_members (image_id, member_id, status, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)", image, w.things[status], status, now)
	}
	w.exec(t, "UPDATE images SET members = 3 WHERE id = $1", image)
}

// finish brings images that are active into the states that only active ones get into.
func (w *world) finish(t *testing.T) {
	t.Helper()
	admin := w.personas[0].token
	w.send(t, http.StatusNoContent, admin, "POST", "/image/v2/images/"+w.images["deactivated"].image+"/actions/deactivate", "")
	w.exec(t, "UPDATE images SET protected = TRUE WHERE id = $1", w.images["protected"].image)
	o := w.images["attached"]
	o.attachment = w.send(t, http.StatusOK, admin, "POST", "/v1/"+w.things["owner"]+"/attachments", `{"image_id":"`+o.image+`"}`)["attachment_id"].(string)
	w.images["attached"] = o
	w.send(t, http.StatusNoContent, admin, "DELETE", "/v2/images/"+w.images["deleted"].image, "")
	w.images["public"] = w.publish(t)
}

// publish makes a public image of the service's own project.
func (w *world) publish(t *testing.T) object {
	t.Helper()
	w.PutFile(t, "services", disk, harness.Disk(6, 1))
	w.PutFile(t, "services", "disk.mf", []byte("of another tool"))
	request := harness.Request("public", "services:"+disk)
	request["image_tags"] = []map[string]string{{"key": "k", "value": "v"}}
	o := object{job: w.Accept(t, request)}
	if job := w.Wait(t, o.job); job.Status == "SUCCESS" {
		o.image = job.Entities.ImageID
	}
	w.exec(t, "UPDATE images SET visibility = 'public' WHERE id = $1", o.image)
	return o
}

// clone makes another image like one of the world's, with all that hangs on it, for a
// call that may change it.
func (w *world) clone(t *testing.T, of object) object {
	t.Helper()
	c := object{image: ims.NewImageID()}
	w.copyRows(t, "images", "id", of.image, map[string]any{"id": c.image})
	w.copyRows(t, "image_members", "image_id", of.image, map[string]any{"image_id": c.image})
	w.copyRows(t, "image_tags", "image_id", of.image, map[string]any{"image_id": c.image})
	if of.job != "" {
		c.job = ims.NewJobID()
		w.copyRows(t, "jobs", "id", of.job, map[string]any{"id": c.job, "image_id": c.image})
		// Nobody works on it: it stays as it is.
		w.exec(t, "UPDATE jobs SET lease_until = $2 WHERE id = $1 AND end_time IS NULL", c.job, time.Now().Add(time.Hour).UnixMilli())
	}
	if of.attachment != "" {
		c.attachment = ims.NewAttachmentID()
		w.copyRows(t, "attachments", "id", of.attachment, map[string]any{"id": c.attachment, "image_id": c.image, "token_hash": hash(c.attachment)})
	}
	return c
}

// copyRows copies rows of a table with some columns changed.
func (w *world) copyRows(t *testing.T, table, key, value string, change map[string]any) {
	t.Helper()
	rows, err := w.db.QueryContext(t.Context(), "SELECT * FROM "+table+" WHERE "+key+" = $1", value)
	if err != nil {
		t.Fatal(err)
	}
	columns := must(rows.Columns())(t)
	rows.Close()
	args, selected := []any{value}, make([]string, len(columns))
	for i, c := range columns {
		selected[i] = c
		if v, ok := change[c]; ok {
			args = append(args, v)
			selected[i] = fmt.Sprintf("CAST($%d AS TEXT)", len(args))
		}
	}
	w.exec(t, "INSERT INTO "+table+" ("+strings.Join(columns, ", ")+") SELECT "+strings.Join(selected, ", ")+" FROM "+table+" WHERE "+key+" = $1", args...)
}

// tables are all tables with their columns, but for what changes by itself.
func (w *world) tables(ctx context.Context, t *testing.T) map[string][]string {
	t.Helper()
	query := "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'"
	if w.db.Dialect() == database.Postgres {
		query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
	}
	rows, err := w.db.QueryContext(ctx, query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string][]string{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		if !changesByItself(table, column) {
			out[table] = append(out[table], column)
		}
	}
	if err := rows.Err(); err != nil || len(out) < 15 {
		t.Fatalf("%d tables, %v", len(out), err)
	}
	return out
}
