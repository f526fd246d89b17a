package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/identity/outside"
	"github.com/quickims/quickims/internal/ims"
)

// elsewhere is an outside Keystone that says what a test wants, and counts the questions.
// Debian's own one is asked in test/openstack.
type elsewhere struct {
	mu     sync.Mutex
	tokens map[string]outside.Token
	events []outside.Event
	roles  []string
	fails  error
	asked  int
	hold   chan struct{} // questions wait until it is closed
	came   chan struct{} // gets one for each question that waits
	atOnce int
	most   int
}

func (e *elsewhere) URL() string { return "https://keystone.test/v3" }

func (e *elsewhere) Token(_ context.Context, secret string) (outside.Token, error) {
	e.mu.Lock()
	e.asked++
	e.atOnce++
	e.most = max(e.most, e.atOnce)
	hold := e.hold
	e.mu.Unlock()
	if hold != nil {
		e.came <- struct{}{}
		<-hold
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.atOnce--
	if e.fails != nil {
		return outside.Token{}, e.fails
	}
	t, ok := e.tokens[secret]
	if !ok {
		return t, outside.ErrUnknown
	}
	return t, nil
}

func (e *elsewhere) Revoked(context.Context, time.Time) ([]outside.Event, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.events, e.fails
}

func (e *elsewhere) Roles(context.Context, string, string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.roles, e.fails
}

func (e *elsewhere) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// outsideWorld is a service that asks an outside Keystone, which knows the token "good".
type outsideWorld struct {
	*world
	*elsewhere
	ended []ims.Ended
	open  []ims.Ended
}

func newOutsideWorld(t *testing.T, db *database.DB) *outsideWorld {
	t.Helper()
	w := &outsideWorld{elsewhere: &elsewhere{tokens: map[string]outside.Token{}, roles: []string{"member"}}}
	newWorld(t, db) // the first start was one with accounts of its own
	c := newClock()
	s, err := New(db, Options{SealKey: testSealKey, Clock: c.Now, PasswordCost: cheap,
		End: func(_ context.Context, _ *database.Tx, e ims.Ended) error { w.ended = append(w.ended, e); return nil },
		Outside: &Outside{Keystone: w.elsewhere, Roles: map[string]ims.Role{"admin": ims.RoleAdmin, "worker": ims.RoleMember, "member": ims.RoleMember},
			Opened: func(context.Context, database.Querier) ([]ims.Ended, error) { return w.open, nil }}})
	check(t, err)
	w.world = &world{Service: s, clock: c}
	w.tokens["good"] = w.token("u1", "Worker")
	return w
}

// token is one of a user in the project "op" of the domain "od".
func (w *outsideWorld) token(user string, roles ...string) outside.Token {
	now := w.clock.Now()
	od := outside.Named{ID: "od", Name: "Default"}
	return outside.Token{User: outside.Named{ID: user, Name: "name of " + user}, UserDomain: od, Project: outside.Named{ID: "op", Name: "lab"}, ProjectDomain: od,
		Roles: roles, Methods: []string{"password"}, AuditIDs: []string{"audit-" + user, "chain-" + user}, IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
}

func (w *outsideWorld) from(address, token string) (ims.Principal, error) {
	r := httptest.NewRequest("GET", "/v2/cloudimages", nil)
	r.RemoteAddr = address + ":1000"
	r.Header.Set("X-Auth-Token", token)
	return w.Authenticate(context.Background(), r, nil)
}

func onBoth(t *testing.T, test func(t *testing.T, w *outsideWorld)) {
	t.Helper()
	databasetest.Run(t, func(t *testing.T, db *database.DB) { test(t, newOutsideWorld(t, db)) })
}

// TestOutsideToken: what Keystone says of a token is who the caller is; it counts for a
// minute, and a token of the service's own does not.
func TestOutsideToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		for range 3 {
			p, err := w.byToken("good")
			check(t, err)
			if p.UserID != "u1" || p.UserName != "name of u1" || p.ProjectID != "op" || p.Tenant != "od" || len(p.Roles) != 1 || p.Roles[0] != ims.RoleMember {
				t.Fatalf("%+v", p)
			}
		}
		w.clock.advance(TokenCache - time.Second)
		_, err := w.byToken("good")
		check(t, err)
		if w.asked != 1 {
			t.Errorf("asked %d times within a minute", w.asked)
		}
		w.clock.advance(time.Second)
		_, err = w.byToken("good")
		check(t, err)
		if w.asked != 2 {
			t.Errorf("asked %d times after a minute", w.asked)
		}
		// A token that has ended there ends here, with what it opened.
		w.set(func() { delete(w.tokens, "good") })
		w.clock.advance(TokenCache)
		_, err = w.byToken("good")
		refusedWith(t, err, "expired or revoked")
		if len(w.ended) != 1 || len(w.ended[0].TokenHashes) != 1 {
			t.Errorf("ended: %v", w.ended)
		}
		_, _, err = w.LoginPassword(t.Context(), PasswordLogin{UserName: testSeed.User, DomainName: testSeed.DomainName, Password: testSeed.Password}, Scope{})
		refusedWith(t, err, w.URL())
	})
}

// TestOutsideRoles: a token has its own roles, whatever others of its user have; one whose
// role became weaker loses what it opened.
func TestOutsideRoles(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		w.tokens["strong"], w.tokens["none"] = w.token("u1", "admin", "member"), w.token("u1", "other")
		for token, want := range map[string]int{"strong": 2, "none": 0, "good": 1} {
			p, err := w.byToken(token)
			check(t, err)
			if len(p.Roles) != want {
				t.Errorf("%s: roles %v", token, p.Roles)
			}
			if p, err = w.Holds(t.Context(), p); err != nil || len(p.Roles) != want {
				t.Errorf("%s: %v, %v", token, p.Roles, err)
			}
		}
		p, err := w.byToken("strong")
		check(t, err)
		w.set(func() { w.tokens["strong"] = w.token("u1", "member") })
		w.clock.advance(TokenCache)
		if p, err = w.Holds(t.Context(), p); err != nil || len(p.Roles) != 1 || len(w.ended) != 1 {
			t.Errorf("after it became weaker: %v, %v, ended %v", p.Roles, err, w.ended)
		}
	})
}

// TestOutsideNames: rows follow the names of Keystone, also when two change places, and
// leave alone the service's own of the same name.
func TestOutsideNames(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		named := func(token, user, name string) string {
			k := w.token(user, "member")
			k.User.Name = name
			w.set(func() { w.tokens[token] = k })
			p, err := w.byToken(token)
			check(t, err)
			if p.DomainID != "od" {
				t.Errorf("domain %+v", p)
			}
			return p.UserName
		}
		for _, c := range [][4]string{{"a", "u7", "x", "x"}, {"b", "u8", "y", "y"}, {"c", "u7", "y", "y"}, {"d", "u8", "x", "x"}} {
			if got := named(c[0], c[1], c[2]); got != c[3] {
				t.Errorf("%v: called %q", c, got)
			}
		}
		_, err := w.CreateUser(t.Context(), User{DomainID: "od", Name: "operator"}, "")
		check(t, err)
		if got := named("e", "u9", "operator"); got != "u9" {
			t.Errorf("beside a user of the service's own of the same name: %q", got)
		}
	})
}

// TestOutsideFlood: many made-up tokens, at once or one after the other, reach Keystone a
// bounded number of times, and do not keep others away.
func TestOutsideFlood(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		for i := range 1000 {
			_, err := w.from("192.0.2.1", fmt.Sprint("made-up-", i))
			if ims.CodeOf(err) != ims.CodeToken {
				t.Fatal(err)
			}
		}
		if w.asked != strangerBurst {
			t.Errorf("asked %d times, want %d", w.asked, strangerBurst)
		}
		_, err := w.from("192.0.2.2", "good")
		check(t, err)
		_, err = w.from("192.0.2.1", "good") // known by now
		check(t, err)
		before := w.asked
		for range 100 {
			_, err := w.from("192.0.2.3", "the-same")
			refusedWith(t, err, "")
		}
		if w.asked != before+1 {
			t.Errorf("one token was asked for %d times", w.asked-before)
		}

		// The burst is back.
		w.clock.advance(time.Hour)
		release := make(chan struct{})
		w.set(func() { w.hold, w.came = release, make(chan struct{}, 60) })
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() { w.from(fmt.Sprintf("192.0.2.%d", 10+i%6), fmt.Sprint("at-once-", i/2)) })
		}
		for range 6 { // six addresses get so many places, at least
			<-w.came
		}
		more := 0
		for i := range 20 { // the others go to two more addresses, at most
			if w.remote.slots.Try(fmt.Sprint("more ", i), 1) {
				defer w.remote.slots.Give(fmt.Sprint("more ", i), 1)
				more++
			}
		}
		if more > maxQuestions-6 {
			t.Errorf("there are places for %d more", more)
		}
		close(release)
		wg.Wait()
		if w.most > maxQuestions {
			t.Errorf("%d questions at once, at most %d are allowed", w.most, maxQuestions)
		}
	})
}

// TestOutsideAway: while Keystone does not answer, what it said counts as long as it does,
// and all else is told so at once and not a refusal.
func TestOutsideAway(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		p, err := w.byToken("good")
		check(t, err)
		w.set(func() { w.fails = errors.New("no route to host") })
		_, err = w.byToken("good")
		check(t, err)
		w.clock.advance(TokenCache)
		for range 5 {
			_, err = w.byToken("good")
			e, ok := errors.AsType[*ims.Error](err)
			if !ok || e.Kind() != ims.KindUnavailable {
				t.Fatalf("%v", err)
			}
		}
		if w.asked != 2 {
			t.Errorf("asked %d times while it is away", w.asked)
		}
		if _, err := w.Holds(t.Context(), p); err != nil {
			t.Errorf("what runs on: %v", err)
		}
		w.clock.advance(awayFor)
		w.set(func() { w.fails = nil })
		_, err = w.byToken("good")
		check(t, err)
	})
}

// TestOutsideRevoked: events end the tokens that they name and no others, and a user
// without a role loses what it has open, its access keys too.
func TestOutsideRevoked(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		for _, c := range []struct {
			event outside.Event
			ends  bool
		}{
			{outside.Event{AuditID: "audit-u1"}, true},
			{outside.Event{AuditID: "audit-u2"}, false},
			{outside.Event{AuditChainID: "chain-u1"}, true},
			{outside.Event{UserID: "u1", IssuedBefore: w.clock.Now()}, true},
			{outside.Event{UserID: "u1", IssuedBefore: w.clock.Now().Add(-time.Second)}, false},
			{outside.Event{UserID: "u1", ProjectID: "another"}, false},
			{outside.Event{ProjectID: "op"}, true},
			{outside.Event{DomainID: "od"}, true},
			{outside.Event{DomainID: "d1"}, false},
		} {
			p, err := w.byToken("good")
			check(t, err)
			w.set(func() { w.events = []outside.Event{c.event} })
			check(t, w.Watch(t.Context()))
			if _, err := w.Holds(t.Context(), p); (err != nil) != c.ends {
				t.Errorf("%+v: %v", c.event, err)
			}
		}
		// One that says more than is understood has the tokens asked about again.
		_, err := w.byToken("good")
		check(t, err)
		w.set(func() { w.events = []outside.Event{{Partial: true}} })
		check(t, w.Watch(t.Context()))
		before := w.asked
		_, err = w.byToken("good")
		check(t, err)
		if w.asked != before+1 {
			t.Error("it was not asked again")
		}

		w.set(func() { w.events = nil })
		check(t, w.SetRole(t.Context(), Grant{UserID: "u1", ProjectID: "op", Role: ims.RoleMember}))
		key := must(w.CreateAccessKey(t.Context(), AccessKey{UserID: "u1", ProjectID: "op"}))
		w.open, w.ended = []ims.Ended{{UserID: "u1", ProjectID: "op"}, {UserID: w.userOfOurs(t), ProjectID: "p1"}}, nil
		w.clock.advance(TokenCache)
		check(t, w.Watch(t.Context()))
		if _, _, _, err := w.SecretFor(key.AccessKey); err != nil || len(w.ended) != 0 {
			t.Fatalf("with a role: %v, ended %v", err, w.ended)
		}
		w.set(func() { w.roles = []string{"other"} })
		w.clock.advance(TokenCache)
		check(t, w.Watch(t.Context()))
		if _, _, _, err := w.SecretFor(key.AccessKey); !errors.Is(err, ErrNotFound) {
			t.Errorf("the access key: %v", err)
		}
		for _, e := range w.ended {
			if e.UserID != "u1" && len(e.TokenHashes) == 0 {
				t.Errorf("ended %+v", e)
			}
		}
		if len(w.ended) == 0 {
			t.Error("nothing ended")
		}
	})
}

func (w *outsideWorld) userOfOurs(t *testing.T) string {
	t.Helper()
	users, err := w.Users(t.Context(), testSeed.DomainID)
	check(t, err)
	return users[0].ID
}

// TestOutsideNoToken: a text that no Keystone makes a token of is refused without a
// question: a proxy before Keystone may answer it as if Keystone were away.
func TestOutsideNoToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, w *outsideWorld) {
		w.set(func() { w.fails = errors.New("blocked") })
		for _, text := range []string{"' OR 1=1 --", "<script>", "a b", "\xff\xfe", "gAAAA\tB", "tök"} {
			if _, err := w.from("192.0.2.1", text); ims.CodeOf(err) != ims.CodeToken {
				t.Errorf("%q: %v", text, err)
			}
		}
		w.set(func() { w.fails = nil })
		if _, err := w.from("192.0.2.2", "good"); err != nil || w.asked != 1 {
			t.Errorf("another's token: %v, %d questions", err, w.asked)
		}
	})
}
