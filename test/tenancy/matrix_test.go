// Package tenancy asks every route of the service as every kind of caller about an image
// in every state, and compares the answers with one table, matrix.txt. A call that is
// refused, or that only reads, must leave the database as it was.
package tenancy

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestEveryRouteHasRows: the table has the service's routes, no fewer and no more.
func TestEveryRouteHasRows(t *testing.T) {
	t.Parallel()
	_, _, blocks := readTable(t)
	have := map[string]bool{}
	for _, b := range blocks {
		have[b.route()] = true
	}
	for _, r := range api.Routes() {
		if !have[r.Method+" "+r.Path] {
			t.Errorf("%s %s has no rows in test/tenancy/matrix.txt: say there what each kind of caller is answered", r.Method, r.Path)
		}
		delete(have, r.Method+" "+r.Path)
	}
	for route := range have {
		t.Errorf("matrix.txt has %s, which is no route", route)
	}
}

// TestMatrix sends all that the table says, over SQLite and over PostgreSQL.
func TestMatrix(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		runMatrix(t, newWorld(t, ""))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		runMatrix(t, newWorld(t, harness.Postgres(t)))
	})
}

// runMatrix sends first what must change nothing, all of it in the same world, and then
// what may, each with an image of its own.
func runMatrix(t *testing.T, w *world) {
	columns, bars, blocks := readTable(t)
	for _, p := range w.personas {
		if !slices.Contains(columns, p.column) {
			t.Fatalf("matrix.txt has no column %s", p.column)
		}
	}
	watch, calls := newWatcher(t, w), 0
	seen := make([]got, len(blocks))
	for _, changing := range []bool{false, true} {
		for i, b := range blocks {
			seen[i].block = b
			for _, a := range b.answers {
				for _, p := range w.personas {
					want := a.status[slices.Index(columns, p.column)]
					if changing != b.changes(want) {
						continue
					}
					for n, state := range a.states {
						if n > 0 && p.once {
							break
						}
						calls++
						if changing {
							seen[i].note(state, p.column, want, w.change(t, b, p, state))
							continue
						}
						seen[i].note(state, p.column, want, w.leave(t, b, p, state, watch))
					}
				}
			}
		}
		if !changing {
			before := maps.Clone(watch.last)
			defer func() { w.untouched(t, before, watch.look(t)) }()
		}
	}
	for i, b := range blocks {
		if lines := seen[i].wrong(columns, bars); lines != "" {
			t.Errorf("matrix.txt:%d: %s answers\n%s", b.line, b.route(), lines)
		}
	}
	t.Logf("%d calls of %d personas", calls, len(w.personas))
}

// changes reports whether a call that is answered so may have changed something.
func (b block) changes(status int) bool {
	return status < 300 && b.method != http.MethodGet && b.method != http.MethodHead
}

// leave sends a call that must leave the database as it is, and gives its status.
func (w *world) leave(t *testing.T, b block, p persona, state string, watch *watcher) int {
	t.Helper()
	o := w.object(state)
	watch.look(t)
	a := w.call(t, b, p, o, nil)
	if rows := watch.changed(t); rows != "" {
		t.Errorf("%s of %s, image %s, by %s answers %d and changes\n%s", b.route(), o.image, state, p.name, a.Status, rows)
	}
	// What belongs to others is like what is not there.
	if state != "public" && (a.Status >= 400 || b.image()) && (p.column == "str" || p.column == "nbr") {
		unknown := object{image: ims.NewImageID(), job: ims.NewJobID(), attachment: ims.NewAttachmentID()}
		things := map[string]string{"ep": ims.NewImageID(), "credential": ims.NewJobID(), "user": ims.NewJobID(), "owner": ims.NewJobID()}
		other := w.call(t, b, p, unknown, things)
		if a.Status != other.Status || !bytes.Equal(masked(a.Body), masked(other.Body)) {
			t.Errorf("%s, image %s, by %s answers %d %s, about what is not there %d %s", b.route(), state, p.name, a.Status, a.Body, other.Status, other.Body)
		}
	}
	return a.Status
}

var ids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}`)

func masked(body []byte) []byte { return ids.ReplaceAll(body, []byte("ID")) }

// change sends a call that may change something, with things of its own, and gives its
// status.
func (w *world) change(t *testing.T, b block, p persona, state string) int {
	t.Helper()
	things := map[string]string{}
	if uses(b, "subject") {
		things["subject"], _ = w.login(t, w.things["user"], w.scope())
	}
	if uses(b, "credential") {
		things["credential"] = w.newCredential(t, w.things["user"], w.things["owner"])
		things["own_credential"] = w.newCredential(t, p.user, p.project)
	}
	return w.call(t, b, p, w.clone(t, w.object(state)), things).Status
}

func uses(b block, thing string) bool {
	text := b.path + b.body
	for _, v := range b.header {
		text += v
	}
	return strings.Contains(text, "{"+thing)
}

// object is the image of a state. Without one it is the image that is attached.
func (w *world) object(state string) object {
	if state == noState {
		state = "attached"
	}
	return w.images[state]
}

// parameters are what the parameters of a path stand for, where the table says nothing
// else.
var parameters = map[string]string{
	"project_id": "self", "image_id": "image", "job_id": "job", "task_id": "job", "attachment_id": "attachment", "member_id": "accepted",
	"enterprise_project_id": "ep", "user_id": "user", "credential_id": "credential", "domain_id": "domain",
	"service_id": "service", "endpoint_id": "endpoint",
	"tag": "=k=v", "key": "=k", "schema": "=image", "region_id": "=" + harness.Region, "role_id": "=member",
}

// call sends what a block says as a persona.
func (w *world) call(t *testing.T, b block, p persona, o object, other map[string]string) harness.Answer {
	t.Helper()
	w.made++
	things := maps.Clone(w.things)
	things["own_credential"] = w.credentials[p.name]
	maps.Copy(things, other)
	maps.Copy(things, map[string]string{"self": p.project, "caller": p.user, "image": o.image, "job": o.job, "attachment": o.attachment, "n": fmt.Sprint(w.made)})
	path := b.path
	for name, thing := range parameters {
		if t, ok := b.set[name]; ok {
			thing = t
		}
		value, literal := strings.CutPrefix(thing, "=")
		if !literal {
			value = things[thing]
		}
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	if strings.Contains(path, "{") {
		t.Fatalf("matrix.txt:%d: nothing says what stands in %s", b.line, path)
	}
	fill := func(text string) string {
		for name, value := range things {
			text = strings.ReplaceAll(text, "{"+name+"}", value)
		}
		return text
	}
	body := fill(b.body)
	req, err := http.NewRequestWithContext(t.Context(), b.method, w.API+path+fill(b.query), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range b.header {
		req.Header.Set(name, fill(value))
	}
	if p.sign {
		if err := signature.Sign(req, []byte(body), harness.AccessKey, harness.SecretKey, time.Now()); err != nil {
			t.Fatal(err)
		}
	} else if p.token != "" {
		req.Header.Set("X-Auth-Token", p.token)
	}
	asked := req.URL.String() + body
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s by %s: %v", b.route(), p.name, err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s by %s: %v", b.route(), p.name, err)
	}
	if res.StatusCode >= 500 {
		t.Errorf("%s by %s: %d %s", b.route(), p.name, res.StatusCode, content)
	}
	if secrets := w.secretsTo(p); len(secrets) > 0 {
		for _, id := range secrets {
			if bytes.Contains(content, []byte(id)) && !strings.Contains(asked, id) {
				t.Errorf("%s by %s answers with %s, which it must not learn: %s", b.route(), p.name, id, content)
			}
		}
	}
	return harness.Answer{Status: res.StatusCode, Header: res.Header, Body: content}
}

// secretsTo are the ids that a persona must not learn.
func (w *world) secretsTo(p persona) []string {
	switch p.column {
	case "nbr", "str", "svc", "sig", "bad":
		return slices.Concat(w.secrets, w.shared)
	case "pen", "acc", "gst", "rej":
		return w.secrets
	}
	return nil
}

// untouched checks that no call, allowed or not, changed the images that the world began
// with: each of the allowed ones had another.
func (w *world) untouched(t *testing.T, before, after map[string]string) {
	t.Helper()
	for _, table := range []string{"images", "image_members", "image_tags", "jobs"} {
		rows := strings.Split(after[table], "\n")
		for row := range strings.SplitSeq(before[table], "\n") {
			if !slices.Contains(rows, row) {
				t.Errorf("after all calls %s lacks %s", table, row)
			}
		}
	}
}

// got is what a block was answered.
type got struct {
	block  block
	status map[string]map[string][]int // by state and column
	bad    bool
}

func (g *got) note(state, column string, want, status int) {
	if g.status == nil {
		g.status = map[string]map[string][]int{}
	}
	if g.status[state] == nil {
		g.status[state] = map[string][]int{}
	}
	if !slices.Contains(g.status[state][column], status) {
		g.status[state][column] = append(g.status[state][column], status)
	}
	g.bad = g.bad || want != status
}

// wrong is "" if all answers were those of the table, else what they were, in the table's
// form.
func (g *got) wrong(columns []string, bars map[int]bool) string {
	if !g.bad {
		return ""
	}
	var order []string
	byLine := map[string][]string{}
	for _, a := range g.block.answers {
		for _, state := range a.states {
			line := ""
			for i, c := range columns {
				if bars[i] {
					line += " |"
				}
				status := g.status[state][c]
				if len(status) == 0 {
					status = g.status[a.states[0]][c]
				}
				line += " " + strings.Trim(strings.ReplaceAll(fmt.Sprint(status), " ", "/"), "[]")
			}
			if byLine[line] == nil {
				order = append(order, line)
			}
			byLine[line] = append(byLine[line], state)
		}
	}
	out := ""
	for _, line := range order {
		out += fmt.Sprintf("  %-28s%s\n", strings.Join(byLine[line], ","), line)
	}
	return out
}
