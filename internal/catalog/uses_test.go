package catalog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// TestAttachmentInUse: the time counts while nobody is connected, also after a crash and
// after the database was away.
func TestAttachmentInUse(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		a, token := c.attach(mine, img.ID, time.Minute)
		beat := func(process string, connections int, read int64) {
			t.Helper()
			addresses := slices.Repeat([]string{process + ":1"}, connections)
			must(t, c.Beat(t.Context(), process, []Use{{a.ID, connections, addresses, read, c.now()}, {ims.NewAttachmentID(), 1, nil, 1, c.now()}}))
		}
		lives := func(want bool, when string) {
			t.Helper()
			if _, _, err := c.served(token); (err == nil) != want {
				t.Fatalf("%s: %v, living: want %v", when, err, want)
			}
		}
		for range 20 {
			beat("one", 2, 100)
			c.clock.advance(BeatEvery)
		}
		beat("two", 1, 7)
		lives(true, "in use for longer than its time")
		got, err := c.Attachment(t.Context(), mine, a.ID)
		must(t, err)
		if want := []string{"one:1", "one:1", "two:1"}; got.Connections != 3 || !slices.Equal(got.Addresses, want) || got.BytesRead != 2007 || !got.LastReadAt.Equal(c.now()) {
			t.Errorf("shown is %+v", got)
		}
		if list := c.attachments(mine); len(list) != 1 || list[0].Connections != 3 {
			t.Errorf("listed is %+v", list)
		}
		// Both are killed: a client has its time from then on to come back, and no more.
		c.clock.advance(time.Minute)
		lives(true, "its time after the crash")
		if got, err := c.Attachment(t.Context(), mine, a.ID); err != nil || got.Connections != 0 {
			t.Errorf("after the crash %+v (%v)", got, err)
		}
		beat("three", 1, 0)
		c.clock.advance(time.Minute + beatGrace)
		lives(false, "long after the crash")
		// It was the database that was away: who was connected all the time stays so.
		c.clock.advance(purgeAfter - time.Minute - beatGrace)
		must(t, c.PurgeAttachments(t.Context()))
		beat("three", 0, 0)
		lives(false, "nobody is connected")
		beat("three", 1, 0)
		lives(true, "in use while the database was away")
		// It ends its time after the last client has gone, to the moment.
		beat("three", 0, 0)
		c.clock.advance(time.Minute - time.Millisecond)
		lives(true, "a moment before")
		c.clock.advance(time.Millisecond)
		lives(false, "after its time")
	})
}

// TestAttachmentAges: an attachment for ever and one of a greatest age, in use.
func TestAttachmentAges(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		limits := plenty
		limits.Attachments = 2
		attach := func(life AttachLife) (ims.Attachment, error) {
			return c.Attach(t.Context(), by(mine), newAttachment(img.ID), ims.NewAttachToken(), life, limits)
		}
		endless, err := attach(AttachLife{})
		must(t, err)
		old, err := attach(AttachLife{TTL: time.Hour, MaxAge: 2 * time.Hour})
		must(t, err)
		if !endless.ExpiresAt.IsZero() || !endless.EndsAt.IsZero() || old.MaxAge() != 2*time.Hour {
			t.Errorf("made %+v and %+v", endless, old)
		}
		if _, err = attach(AttachLife{}); ims.CodeOf(err) != ims.CodeTooManyJobs {
			t.Errorf("one for ever counts against the limit: %v", err)
		}
		beat := func() {
			t.Helper()
			must(t, c.Beat(t.Context(), "one", []Use{{old.ID, 1, nil, 0, c.now()}, {endless.ID, 0, nil, 0, c.now()}}))
		}
		for range 119 {
			beat()
			c.clock.advance(time.Minute)
		}
		beat()
		if list := c.attachments(mine); len(list) != 2 {
			t.Fatalf("before the greatest age %+v", list)
		}
		c.clock.advance(time.Minute)
		beat()
		if living, err := c.Living(t.Context(), []string{old.ID, endless.ID}); err != nil || len(living) != 1 || !living[endless.ID].IsZero() {
			t.Errorf("living are %v (%v)", living, err)
		}
		c.clock.advance(10000 * time.Hour)
		must(t, c.PurgeAttachments(t.Context()))
		if list := c.attachments(mine); len(list) != 1 || list[0].ID != endless.ID {
			t.Errorf("after a year %+v", list)
		}
	})
}

// TestRenewAttachment: its time begins anew; what ends it with an access stays.
func TestRenewAttachment(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		a, token := c.attach(mine, img.ID, time.Hour)
		renew := func(by ims.Principal, ttl, age *time.Duration) (ims.Attachment, error) {
			return c.RenewAttachment(t.Context(), by, a.ID, ttl, age)
		}
		times := func(d time.Duration) *time.Duration { return &d }
		c.clock.advance(59 * time.Minute)
		bob := by(mine)
		bob.UserID, bob.Credential.TokenHash = "bob", "bob's"
		got, err := renew(bob, nil, nil)
		if err != nil || !got.ExpiresAt.Equal(c.now().Add(time.Hour)) || got.TTL != time.Hour {
			t.Fatalf("renewed %+v (%v)", got, err)
		}
		if got, err = renew(bob, times(0), times(2*time.Hour)); err != nil || got.TTL != 0 || !got.ExpiresAt.Equal(a.CreatedAt.Add(2*time.Hour)) {
			t.Errorf("for ever, but not too old: %+v (%v)", got, err)
		}
		if _, err := renew(bob, nil, times(time.Minute)); ims.CodeOf(err) != ims.CodeBadFormat || !strings.Contains(err.Error(), "3540 seconds old") {
			t.Errorf("over already: %v", err)
		}
		if got, err = renew(bob, nil, times(0)); err != nil || !got.ExpiresAt.IsZero() {
			t.Errorf("for ever: %+v (%v)", got, err)
		}
		_, err = renew(by(other), nil, nil)
		wantError(t, err, ErrNotFound)
		// It is alice's still, with what she made it with, though in use and for ever.
		must(t, c.Beat(t.Context(), "one", []Use{{a.ID, 1, nil, 0, c.now()}}))
		must(t, c.db.InTx(t.Context(), func(tx *database.Tx) error {
			return EndAccess(t.Context(), tx, ims.Ended{UserID: "bob", ProjectID: mine})
		}))
		if _, _, err := c.served(token); err != nil {
			t.Fatalf("bob's end: %v", err)
		}
		must(t, c.db.InTx(t.Context(), func(tx *database.Tx) error {
			return EndAccess(t.Context(), tx, ims.Ended{TokenHashes: []string{by(mine).Credential.TokenHash}})
		}))
		must(t, c.Beat(t.Context(), "one", []Use{{a.ID, 1, nil, 0, c.now()}}))
		_, _, err = c.served(token)
		wantError(t, err, ErrNotFound)
		if living, err := c.Living(t.Context(), []string{a.ID}); err != nil || len(living) != 0 {
			t.Errorf("living is %v (%v)", living, err)
		}
		_, err = renew(by(mine), nil, nil)
		wantError(t, err, ErrNotFound)
	})
}

// TestDetachInUse says who is connected, and ends by force.
func TestDetachInUse(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		a, token := c.attach(mine, img.ID, time.Hour)
		must(t, c.Beat(t.Context(), "one", []Use{{a.ID, 40, slices.Repeat([]string{"192.0.2.1:7"}, 40), 0, c.now()}}))
		for what, err := range map[string]error{
			"detach": c.Detach(t.Context(), mine, a.ID, false), "delete": c.DeleteImage(t.Context(), mine, img.ID, false),
		} {
			if ims.CodeOf(err) != ims.CodeConflict || !strings.Contains(err.Error(), "40 connections from 192.0.2.1:7, ") || !strings.Contains(err.Error(), " and 24 more") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, _, err := c.served(token); err != nil {
			t.Fatalf("after the refusals: %v", err)
		}
		must(t, c.Detach(t.Context(), mine, a.ID, true))
		if n, err := count(t.Context(), c.db, "SELECT COUNT(*) FROM attachment_uses"); err != nil || n != 0 {
			t.Errorf("%d uses are left (%v)", n, err)
		}
	})
}
