package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/ims"
)

func TestSecretsPrintMasked(t *testing.T) {
	t.Parallel()
	text := strings.Join([]string{testSeed.String(), testSeed.GoString(), testSeed.LogValue().String(),
		AccessKey{SecretKey: "secret-key"}.SecretKey.String()}, " ")
	for _, secret := range []string{testSeed.Password, testSeed.SecretKey, "secret-key"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is printed in clear", secret)
		}
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	s := must(newSealer(testSealKey))
	sealed := must(s.seal(rand.Reader, "AK1", "secret"))
	if again := must(s.seal(rand.Reader, "AK1", "secret")); again == sealed {
		t.Error("the same secret is sealed alike twice")
	}
	if got := must(s.open("AK1", sealed)); got != "secret" {
		t.Errorf("opened %q", got)
	}
	other := must(newSealer([]byte(strings.Repeat("x", SealKeySize))))
	for name, open := range map[string]func() (string, error){
		"another key":        func() (string, error) { return other.open("AK1", sealed) },
		"another access key": func() (string, error) { return s.open("AK2", sealed) },
		"a changed byte":     func() (string, error) { return s.open("AK1", sealed[:20]+flip(sealed[20])+sealed[21:]) },
		"cut off":            func() (string, error) { return s.open("AK1", sealed[:20]) },
		"empty":              func() (string, error) { return s.open("AK1", "") },
		"in clear":           func() (string, error) { return s.open("AK1", "secret") },
	} {
		if got, err := open(); err == nil || strings.Contains(err.Error(), "secret\"") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := newSealer(nil); err == nil {
		t.Error("a sealer without a key")
	}
	if _, err := New(nil, Options{}); err == nil || !strings.Contains(err.Error(), "seal key") {
		t.Errorf("a service without a seal key: %v", err)
	}
}

func TestPasswordHashes(t *testing.T) {
	t.Parallel()
	h := must(newHasher(2, DefaultPasswordCost, rand.Reader))
	ctx := t.Context()
	stored := must(h.hash(ctx, "password"))
	if !strings.HasPrefix(stored, "$argon2id$v=19$m=7168,t=5,p=1$") {
		t.Errorf("stored as %s", stored)
	}
	if must(h.hash(ctx, "password")) == stored {
		t.Error("two hashes have one salt")
	}
	for password, want := range map[string]bool{"password": true, "Password": false, "": false} {
		if got := must(h.matches(stored, password)); got != want {
			t.Errorf("%q matches: %v", password, got)
		}
	}
	if must(h.matches("", "")) {
		t.Error("no password matches no hash")
	}
	// A hash with other parameters, made before they were raised.
	weak := PasswordCost{MemoryKiB: 64, Passes: 1, Lanes: 2}
	salt := []byte("0123456789abcdef")
	if !must(h.matches(encodeHash(weak, salt, weak.key("password", salt, 32)), "password")) {
		t.Error("a hash with its own parameters does not match")
	}
	for _, bad := range []string{
		"x", "$argon2i$v=19$m=64,t=1,p=1$MDEyMzQ1Njc$MDEyMzQ1Njc", "$argon2id$v=18$m=64,t=1,p=1$a$b",
		"$argon2id$v=19$m=4294967295,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg",
		"$argon2id$v=19$m=64,t=0,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg",
		"$argon2id$v=19$m=64,t=1,p=0$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg",
		"$argon2id$v=19$m=64,t=1,p=1$!$MDEyMzQ1Njc4OWFiY2RlZg", "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$",
		"$argon2id$v=19$m=x$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg",
	} {
		if ok, err := h.matches(bad, "password"); ok || err == nil {
			t.Errorf("stored hash %s: %v, %v", bad, ok, err)
		}
	}
	for _, tc := range []struct {
		atOnce int
		cost   PasswordCost
	}{{0, cheap}, {65, cheap}, {1, PasswordCost{}}, {1, PasswordCost{1 << 20, 1, 1}}, {1, PasswordCost{64, 17, 1}}, {1, PasswordCost{64, 1, 17}}} {
		if _, err := newHasher(tc.atOnce, tc.cost, rand.Reader); err == nil {
			t.Errorf("a hasher of %d at once, cost %v", tc.atOnce, tc.cost)
		}
	}
}

// TestHashesWaitTheirTurn holds that memory is bounded by the slots, and the queue too.
func TestHashesWaitTheirTurn(t *testing.T) {
	t.Parallel()
	h := must(newHasher(1, cheap, rand.Reader))
	leave := must(h.enter(t.Context(), "here"))
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, maxWaitingHashes+1)
	for range maxWaitingHashes + 1 {
		go func() {
			_, err := h.enter(ctx, "here")
			results <- err
		}()
	}
	// One is over the queue's end and is told so at once; the others wait.
	err := <-results
	if e, ok := errors.AsType[*ims.Error](err); !ok || e.Kind() != ims.KindUnavailable {
		t.Fatalf("beyond the queue: %v", err)
	}
	cancel()
	for range maxWaitingHashes {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Fatalf("a caller that went away: %v", err)
		}
	}
	leave()
	must(h.enter(t.Context(), "here"))()
}

// An address whose logins fill its queue keeps no other address waiting longer than for
// the hashing that is under way.
func TestAddressesHashInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := must(newHasher(1, cheap, rand.Reader))
		leave := must(h.enter(t.Context(), "flood"))
		order := make(chan string, 2*maxWaitingHashes)
		enter := func(source string) {
			go func() {
				leave, err := h.enter(t.Context(), source)
				if err != nil {
					t.Error(err)
					return
				}
				order <- source
				leave()
			}()
			synctest.Wait()
		}
		for range maxWaitingHashes {
			enter("flood")
		}
		enter("other")
		leave()
		synctest.Wait()
		if first, second := <-order, <-order; first != "other" && second != "other" {
			t.Errorf("the first two turns were those of %s and %s", first, second)
		}
	})
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := newLimiter(c.Now, loginBurst, LoginRefill)
	for i := range loginBurst {
		if wait := l.take("a"); wait != 0 {
			t.Fatalf("try %d waits %v", i, wait)
		}
	}
	for range 1000 {
		if wait := l.take("a"); wait != LoginRefill {
			t.Fatalf("an empty bucket waits %v", wait)
		}
	}
	if wait := l.wait("b"); wait != 0 {
		t.Errorf("another bucket waits %v", wait)
	}
	l.give("a")
	if first, second := l.take("a"), l.take("a"); first != 0 || second == 0 {
		t.Errorf("a try that was given back: %v, %v", first, second)
	}
	c.advance(loginBurst * LoginRefill)
	if wait := l.wait("a"); wait != 0 {
		t.Errorf("a bucket that had time to fill waits %v", wait)
	}
	for range loginBurst {
		l.take("a")
	}
	for i := range maxBuckets + 100 {
		l.take(fmt.Sprint(i))
		c.advance(time.Millisecond / 100)
	}
	if l.wait("a") == 0 {
		t.Error("made-up keys have pushed an empty bucket out")
	}
	if n := len(l.full); n > maxBuckets {
		t.Errorf("%d buckets are kept", n)
	}
}

func TestFailedLoginsAreSlowedDown(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		in := PasswordLogin{UserID: w.admin.ID, Password: "wrong", Source: "192.0.2.1"}
		for range loginBurst {
			_, _, err := w.LoginPassword(t.Context(), in, Scope{})
			refusedWith(t, err, "wrong")
		}
		in.Password = testSeed.Password
		_, _, err := w.LoginPassword(t.Context(), in, Scope{})
		if e, ok := errors.AsType[*ims.Error](err); !ok || e.Kind() != ims.KindThrottled {
			t.Fatalf("after %d failures: %v", loginBurst, err)
		}
		elsewhere := in
		elsewhere.Source = "192.0.2.2"
		if _, _, err := w.LoginPassword(t.Context(), elsewhere, Scope{}); err != nil {
			t.Fatalf("the user is locked out by another's failures: %v", err)
		}
		w.clock.advance(LoginRefill)
		if _, _, err := w.LoginPassword(t.Context(), in, Scope{}); err != nil {
			t.Fatalf("after the wait: %v", err)
		}
	})
}

// However a request names the user, its failures count for the user; however many
// guesses come at once, no more are tried; and names that nobody has count for the address.
func TestFailedLoginsAreCountedByWhatWasFound(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		kinds := func(ins []PasswordLogin) map[ims.Kind]int {
			var mu sync.Mutex
			got := map[ims.Kind]int{}
			var all sync.WaitGroup
			for _, in := range ins {
				all.Go(func() {
					_, _, err := w.LoginPassword(t.Context(), in, Scope{})
					e, ok := errors.AsType[*ims.Error](err)
					if !ok {
						t.Errorf("%+v: %v", in, err)
						return
					}
					mu.Lock()
					got[e.Kind()]++
					mu.Unlock()
				})
			}
			all.Wait()
			return got
		}
		var guesses []PasswordLogin
		for i := range 60 {
			in := PasswordLogin{UserName: w.admin.Name, DomainID: w.admin.DomainID, DomainName: fmt.Sprint(i), Password: "a guess", Source: "192.0.2.1"}
			if i%3 == 0 {
				in = PasswordLogin{UserID: w.admin.ID, UserName: fmt.Sprint(i), DomainID: fmt.Sprint(i), Password: "a guess", Source: "192.0.2.1"}
			}
			guesses = append(guesses, in)
		}
		if got := kinds(guesses); got[ims.KindUnauthenticated] != loginBurst || got[ims.KindThrottled] != 60-loginBurst {
			t.Errorf("60 guesses at once: %v", got)
		}
		guesses = nil
		for i := range 60 {
			guesses = append(guesses, PasswordLogin{UserName: fmt.Sprint("nobody", i), DomainID: w.admin.DomainID, Password: "a guess", Source: "192.0.2.2"})
		}
		if got := kinds(guesses); got[ims.KindUnauthenticated] != loginBurst || got[ims.KindThrottled] != 60-loginBurst {
			t.Errorf("60 made-up names: %v", got)
		}
		// The address may still log in, and learns of no name whether a user has it.
		in := PasswordLogin{UserID: w.admin.ID, Password: "a guess", Source: "192.0.2.2"}
		if got := kinds([]PasswordLogin{in}); got[ims.KindThrottled] != 1 {
			t.Errorf("a wrong password after made-up names: %v", got)
		}
		_, token, err := w.LoginPassword(t.Context(), PasswordLogin{UserID: w.admin.ID, Password: testSeed.Password, Source: "192.0.2.3"}, Scope{ProjectID: testSeed.ProjectID})
		if err != nil {
			t.Fatal(err)
		}
		app, _, err := w.CreateApplicationCredential(t.Context(), token.Principal, ApplicationCredential{Name: "robot"}, "a long secret")
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = w.LoginApplicationCredential(t.Context(), ApplicationLogin{ID: app.ID, Secret: "a guess", Source: "192.0.2.2"})
		if e, ok := errors.AsType[*ims.Error](err); !ok || e.Kind() != ims.KindThrottled {
			t.Errorf("a wrong secret after made-up names: %v", err)
		}
		// Right logins count for nothing, however many there are.
		in.Password = testSeed.Password
		for range 3 * loginBurst {
			if _, _, err := w.LoginPassword(t.Context(), in, Scope{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestManagement(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		other := must(w.CreateDomain(ctx, "", "Other"))
		if len(other.ID) != 32 {
			t.Errorf("a made-up id of %d characters", len(other.ID))
		}
		foreign := must(w.CreateProject(ctx, Project{DomainID: other.ID, Name: "eu-de"})) // the name is free in this domain
		user := must(w.CreateUser(ctx, User{DomainID: "d1", Name: "Jörg"}, "a password"))
		key := must(w.CreateAccessKey(ctx, AccessKey{AccessKey: "MINE", SecretKey: "my-own-secret", UserID: w.admin.ID, ProjectID: "p1"}))

		for name, tc := range map[string]struct {
			err  error
			want error
		}{
			"domain taken":        {second(w.CreateDomain(ctx, "", "Other")), ErrExists},
			"domain id taken":     {second(w.CreateDomain(ctx, "d1", "New")), ErrExists},
			"domain without name": {second(w.CreateDomain(ctx, "", "")), ErrInvalid},
			"project taken":       {second(w.CreateProject(ctx, Project{DomainID: "d1", Name: "eu-de"})), ErrExists},
			"project id taken":    {second(w.CreateProject(ctx, Project{ID: "p1", DomainID: other.ID, Name: "x"})), ErrExists},
			"project of nobody":   {second(w.CreateProject(ctx, Project{DomainID: "d9", Name: "x"})), ErrNotFound},
			"project id":          {second(w.CreateProject(ctx, Project{ID: "a/b", DomainID: "d1", Name: "x"})), ErrInvalid},
			"long project id":     {second(w.CreateProject(ctx, Project{ID: strings.Repeat("a", 65), DomainID: "d1", Name: "x"})), ErrInvalid},
			"project name":        {second(w.CreateProject(ctx, Project{DomainID: "d1", Name: "a\nb"})), ErrInvalid},
			"long name":           {second(w.CreateProject(ctx, Project{DomainID: "d1", Name: strings.Repeat("ä", 65)})), ErrInvalid},
			"user taken":          {second(w.CreateUser(ctx, User{DomainID: "d1", Name: "admin"}, "a password")), ErrExists},
			"user of nobody":      {second(w.CreateUser(ctx, User{DomainID: "d9", Name: "x"}, "a password")), ErrNotFound},
			"user's name":         {second(w.CreateUser(ctx, User{DomainID: "d1", Name: " x"}, "a password")), ErrInvalid},
			"short password":      {second(w.CreateUser(ctx, User{DomainID: "d1", Name: "x"}, "short")), ErrInvalid},
			"password of nobody":  {w.SetPassword(ctx, "u9", "a password"), ErrNotFound},
			"long password":       {w.SetPassword(ctx, user.ID, strings.Repeat("x", 1025)), ErrInvalid},
			"remove nobody":       {w.RemoveUser(ctx, "u9"), ErrNotFound},
			"readmit nobody":      {w.ReadmitUser(ctx, "u9", "a password"), ErrNotFound},
			"readmit who is in":   {w.ReadmitUser(ctx, user.ID, "a password"), ErrNotFound},
			"role for nobody":     {w.SetRole(ctx, Grant{"u9", "p1", ims.RoleReader}), ErrNotFound},
			"out of no project":   {w.RemoveMembership(ctx, user.ID, "p9"), ErrNotFound},
			"remove no project":   {w.RemoveProject(ctx, "p9"), ErrNotFound},
			"grant to nobody":     {w.Grant(ctx, Grant{"u9", "p1", ims.RoleReader}), ErrNotFound},
			"grant in nothing":    {w.Grant(ctx, Grant{user.ID, "p9", ims.RoleReader}), ErrNotFound},
			"grant across":        {w.Grant(ctx, Grant{user.ID, foreign.ID, ims.RoleReader}), ErrNotFound},
			"grant of nothing":    {w.Grant(ctx, Grant{user.ID, "p1", "owner"}), ErrInvalid},
			"key without a role":  {second(w.CreateAccessKey(ctx, AccessKey{UserID: user.ID, ProjectID: "p1"})), ErrNotFound},
			"key taken":           {second(w.CreateAccessKey(ctx, AccessKey{AccessKey: "MINE", UserID: w.admin.ID, ProjectID: "p1"})), ErrExists},
			"key malformed":       {second(w.CreateAccessKey(ctx, AccessKey{AccessKey: "a/b", UserID: w.admin.ID, ProjectID: "p1"})), ErrInvalid},
			"secret short":        {second(w.CreateAccessKey(ctx, AccessKey{SecretKey: "short", UserID: w.admin.ID, ProjectID: "p1"})), ErrInvalid},
			"secret with a space": {second(w.CreateAccessKey(ctx, AccessKey{SecretKey: "a secret key", UserID: w.admin.ID, ProjectID: "p1"})), ErrInvalid},
			"delete no key":       {w.DeleteAccessKey(ctx, "NONE"), ErrNotFound},
			"grant twice":         {errors.Join(w.Grant(ctx, Grant{user.ID, "p1", ims.RoleMember}), w.Grant(ctx, Grant{user.ID, "p1", ims.RoleMember})), nil},
			"revoke twice":        {errors.Join(w.Revoke(ctx, Grant{user.ID, "p1", ims.RoleReader}), w.Revoke(ctx, Grant{user.ID, "p1", ims.RoleReader})), nil},
		} {
			if !errors.Is(tc.err, tc.want) {
				t.Errorf("%s: %v, want %v", name, tc.err, tc.want)
			}
		}

		keys := must(w.AccessKeys(ctx, w.admin.ID))
		if len(keys) != 2 || keys[0].AccessKey != testSeed.AccessKey || keys[1].AccessKey != key.AccessKey || keys[1].SecretKey != "" || keys[1].ProjectID != "p1" {
			t.Errorf("access keys %v", keys)
		}
		if grants := must(w.Grants(ctx, "p1")); len(grants) != 2 {
			t.Errorf("grants %v", grants)
		}
		if users := must(w.Users(ctx, "d1")); len(users) != 2 || users[0].Name != "Jörg" {
			t.Errorf("users %v", users)
		}
		if domains := must(w.Domains(ctx)); len(domains) != 2 || !domains[0].CreatedAt.Equal(w.clock.Now()) {
			t.Errorf("domains %v", domains)
		}
		check(t, w.Grant(ctx, Grant{user.ID, "p1", ims.RoleReader}))
		if projects := must(w.ProjectsOf(ctx, user.ID)); len(projects) != 1 || projects[0].Name != "eu-de" || projects[0].DomainID != "d1" {
			t.Errorf("projects %v", projects)
		}
		if projects := must(w.ProjectsOf(ctx, "u9")); len(projects) != 0 {
			t.Errorf("nobody's projects %v", projects)
		}
	})
}

// flip gives another base64 digit.
func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func second[T any](_ T, err error) error { return err }
