package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// attach makes an attachment that must succeed, and gives it with its token.
func (c fixture) attach(project, image string, ttl time.Duration) (ims.Attachment, string) {
	c.t.Helper()
	token := ims.NewAttachToken()
	a, err := c.Attach(c.t.Context(), by(project), newAttachment(image), ims.HashAttachToken(token), AttachLife{TTL: ttl}, plenty)
	if err != nil {
		c.t.Fatal(err)
	}
	return a, token
}

func newAttachment(image string) ims.Attachment {
	return ims.Attachment{ID: ims.NewAttachmentID(), ImageID: image}
}

// by is alice, who works in a project.
func by(project string) ims.Principal {
	return ims.Principal{UserID: "alice", ProjectID: project, Roles: []ims.Role{ims.RoleMember},
		Credential: ims.Credential{TokenHash: "token of " + project}}
}

// served asks as the process does that serves attachments.
func (c fixture) served(token string) (ims.Attachment, ims.Image, error) {
	return c.AttachmentByToken(c.t.Context(), ims.HashAttachToken(token))
}

func (c fixture) attachments(project string) []ims.Attachment {
	c.t.Helper()
	list, err := c.Attachments(c.t.Context(), project, "", "", 1000)
	must(c.t, err)
	return list
}

func TestAttach(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		a, token := c.attach(mine, img.ID, time.Hour)
		want := ims.Attachment{ID: a.ID, ProjectID: mine, ImageID: img.ID, ImageName: img.Name, UserID: "alice", CreatedAt: c.now(), TTL: time.Hour, ExpiresAt: c.now().Add(time.Hour)}
		if !reflect.DeepEqual(a, want) {
			t.Errorf("attached\n%+v, want\n%+v", a, want)
		}
		if got, err := c.Attachment(t.Context(), mine, a.ID); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read back %+v (%v)", got, err)
		}
		got, served, err := c.served(token)
		if err != nil || !reflect.DeepEqual(got, want) || served.ID != img.ID || served.Data != img.Data {
			t.Errorf("the token leads to %+v and image %s (%v)", got, served.ID, err)
		}
		_, _, err = c.served(ims.NewAttachToken())
		wantError(t, err, ErrNotFound)
		_, _, err = c.AttachmentByToken(t.Context(), token) // what is kept is not the token
		wantError(t, err, ErrNotFound)

		must(t, c.Detach(t.Context(), mine, a.ID, false))
		wantError(t, c.Detach(t.Context(), mine, a.ID, false), ErrNotFound)
		_, _, err = c.served(token)
		wantError(t, err, ErrNotFound)
		for _, id := range []string{"", "x", "\x00", a.ID} {
			_, err := c.Attachment(t.Context(), mine, id)
			wantError(t, err, ErrNotFound)
			wantError(t, c.Detach(t.Context(), mine, id, false), ErrNotFound)
			_, err = c.Attach(t.Context(), by(mine), newAttachment(id), "hash", AttachLife{TTL: time.Hour}, plenty)
			wantError(t, err, ErrNotFound)
		}
	})
}

// TestAttachStates: an image can be attached while it has a disk to read.
func TestAttachStates(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		refused := func(id string) {
			t.Helper()
			_, err := c.Attach(t.Context(), by(mine), newAttachment(id), ims.NewAttachToken(), AttachLife{TTL: time.Hour}, plenty)
			wantCode(t, err, ims.CodeImageNotActive)
		}
		queued, _ := c.accept(mine)
		refused(queued.ID)
		img, job := c.saving(mine)
		a, token := c.attach(mine, img.ID, time.Hour)
		if _, served, err := c.served(token); err != nil || !lies(served.Data, sourceOf(job)) {
			t.Errorf("a saving image is served from %+v (%v), want its source", served.Data, err)
		}
		must(t, c.Publish(t.Context(), job, dataOf(job)))
		if _, served, err := c.served(token); err != nil || !lies(served.Data, dataOf(job)) {
			t.Errorf("an active image is served from %+v (%v), want its own bytes", served.Data, err)
		}
		must(t, c.Detach(t.Context(), mine, a.ID, false))

		img, job = c.saving(mine)
		_, token = c.attach(mine, img.ID, time.Hour)
		must(t, c.Fail(t.Context(), job, ims.CodeFile, "x"))
		refused(img.ID)
		_, _, err := c.served(token)
		wantError(t, err, ErrNotFound)
		if list := c.attachments(mine); len(list) != 0 {
			t.Errorf("a failed import left the attachments %+v", list)
		}
		if got := c.image(mine, img.ID); got.Data != (ims.Data{}) {
			t.Errorf("a failed import left the data %+v", got.Data)
		}
	})
}

// TestSavingData: each attempt sets where the image is read from, an older one can't,
// and the source's key is never taken for one of the image area.
func TestSavingData(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, first := c.saving(mine)
		c.clock.advance(lease)
		second := c.claim(first.ID)
		source := sourceOf(second)
		// An object may be called like an attempt of the image, this one or a later one.
		source.Key, source.BitmapKey = prefix(img.ID, 1)+"disk", prefix(img.ID, 7)+"disk"
		must(t, c.BeginAdopt(t.Context(), second, source))
		wantError(t, c.BeginAdopt(t.Context(), first, sourceOf(first)), ErrFenced)
		if got := c.image(mine, img.ID); !lies(got.Data, source) || got.Status != ims.ImageSaving {
			t.Errorf("the image is %s, read from %+v", got.Status, got.Data)
		}
		if c.known(img.ID, 7) {
			t.Error("the source's key counts as one of the image area")
		}
		if err := c.BeginAdopt(t.Context(), second, dataOf(second)); err == nil {
			t.Error("a source in the image area was taken")
		}
		must(t, c.Publish(t.Context(), second, dataOf(second)))
		if got := c.image(mine, img.ID); !lies(got.Data, dataOf(second)) {
			t.Errorf("published with %+v", got.Data)
		}
		if got := c.leftovers(); !slices.Equal(got, []string{prefix(img.ID, 1)}) || !c.known(img.ID, 2) {
			t.Errorf("after publication %q is to be removed, want the first attempt's", got)
		}
	})
}

func TestAttachmentsEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		short, shortToken := c.attach(mine, img.ID, time.Minute)
		long, longToken := c.attach(mine, img.ID, time.Hour)
		theirs, _ := c.active(other)
		foreign, _ := c.attach(other, theirs.ID, time.Minute)
		living := func() map[string]time.Time {
			t.Helper()
			ids := []string{short.ID, long.ID, foreign.ID, ims.NewAttachmentID()}
			for range 2 * maxLiving {
				ids = append(ids, ims.NewAttachmentID())
			}
			m, err := c.Living(t.Context(), ids)
			must(t, err)
			return m
		}
		if got := living(); len(got) != 3 {
			t.Errorf("living are %v, want three", got)
		}
		c.clock.advance(time.Minute - time.Millisecond)
		if _, _, err := c.served(shortToken); err != nil {
			t.Errorf("ended a moment too early: %v", err)
		}
		c.clock.advance(time.Millisecond)
		_, _, err := c.served(shortToken)
		wantError(t, err, ErrNotFound)
		_, err = c.Attachment(t.Context(), mine, short.ID)
		wantError(t, err, ErrNotFound)
		wantError(t, c.Detach(t.Context(), mine, short.ID, false), ErrNotFound)
		if got := living(); len(got) != 3 {
			t.Errorf("living if they are in use are %v, want all three", got)
		}
		if list := c.attachments(mine); len(list) != 1 || list[0].ID != long.ID {
			t.Errorf("listed are %+v", list)
		}
		if n, err := c.CountAttachments(t.Context()); err != nil || n != 1 {
			t.Errorf("%d are counted (%v), want 1", n, err)
		}
		if _, _, err := c.served(longToken); err != nil {
			t.Errorf("a living one: %v", err)
		}
		// What has ended keeps no image, and its row goes an hour later.
		later, laterToken := c.attach(mine, img.ID, 3*time.Hour)
		c.clock.advance(time.Hour)
		must(t, c.PurgeAttachments(t.Context()))
		if n, err := count(t.Context(), c.db, "SELECT COUNT(*) FROM attachments"); err != nil || n != 2 {
			t.Errorf("%d rows are left (%v), want 2", n, err)
		}
		if _, _, err := c.served(laterToken); err != nil {
			t.Errorf("a living one was purged: %v", err)
		}
		must(t, c.Detach(t.Context(), mine, later.ID, false))
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
	})
}

// TestAttachmentPages: every attachment is on exactly one page, whatever its length.
func TestAttachmentPages(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		another, _ := c.active(mine)
		want := []string{}
		for i := range 7 {
			if i%2 == 0 {
				c.clock.advance(time.Millisecond) // some share their time
			}
			a, _ := c.attach(mine, []string{img.ID, another.ID}[i%2], time.Hour)
			want = append(want, a.ID)
		}
		for limit := 1; limit <= 8; limit++ {
			seen := map[string]bool{}
			for marker := ""; ; {
				list, err := c.Attachments(t.Context(), mine, "", marker, limit)
				must(t, err)
				for _, a := range list {
					if seen[a.ID] {
						t.Fatalf("limit %d: %s is on two pages", limit, a.ID)
					}
					seen[a.ID] = true
				}
				if len(list) < limit {
					break
				}
				marker = list[len(list)-1].ID
			}
			if len(seen) != len(want) {
				t.Errorf("limit %d shows %d of %d", limit, len(seen), len(want))
			}
		}
		for image, n := range map[string]int{img.ID: 4, another.ID: 3, ims.NewImageID(): 0, "\x00": 0} {
			if list, err := c.Attachments(t.Context(), mine, image, "", 1000); err != nil || len(list) != n {
				t.Errorf("image %q: %d attachments (%v), want %d", image, len(list), err, n)
			}
		}
		for _, marker := range []string{"x", ims.NewAttachmentID()} {
			if list, err := c.Attachments(t.Context(), mine, "", marker, 10); !errors.Is(err, ErrNotFound) || len(list) != 0 {
				t.Errorf("behind %q: %d (%v)", marker, len(list), err)
			}
		}
	})
}

// TestAttachedImageStays: an image with attachments goes only by force.
func TestAttachedImageStays(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		_, token := c.attach(mine, img.ID, time.Hour)
		c.attach(mine, img.ID, time.Hour)
		err := c.DeleteImage(t.Context(), mine, img.ID, false)
		wantCode(t, err, ims.CodeConflict)
		if e, ok := errors.AsType[*ims.Error](err); !ok || e.Kind() != ims.KindConflict || !strings.Contains(e.Detail, "attachments: 2,") || !strings.Contains(e.Detail, "force") {
			t.Errorf("refused with %v", err)
		}
		if _, _, err := c.served(token); err != nil {
			t.Errorf("a refused deletion ended an attachment: %v", err)
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, true))
		_, _, err = c.served(token)
		wantError(t, err, ErrNotFound)
		if list := c.attachments(mine); len(list) != 0 {
			t.Errorf("left are %+v", list)
		}
		// Force is not stronger than protection.
		img, _ = c.active(mine)
		_, err = c.UpdateImage(t.Context(), domain, mine, img.ID, func(img *ims.Image) error { img.Protected = true; return nil })
		must(t, err)
		wantCode(t, c.DeleteImage(t.Context(), mine, img.ID, true), ims.CodeImageProtected)
	})
}

// TestAttachAgainstDelete: whoever comes first, the image is either there and attached,
// or gone and never attached.
func TestAttachAgainstDelete(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		attached, deleted := 0, 0
		for range 20 {
			img, _ := c.active(mine)
			token := ims.NewAttachToken()
			var attachErr, deleteErr error
			var both sync.WaitGroup
			start := make(chan struct{})
			both.Go(func() {
				<-start
				_, attachErr = c.Attach(t.Context(), by(mine), newAttachment(img.ID), ims.HashAttachToken(token), AttachLife{TTL: time.Hour}, plenty)
			})
			both.Go(func() {
				<-start
				deleteErr = c.DeleteImage(t.Context(), mine, img.ID, false)
			})
			close(start)
			both.Wait()
			_, _, servedErr := c.served(token)
			_, imageErr := c.Image(t.Context(), mine, img.ID)
			switch {
			case attachErr == nil && ims.CodeOf(deleteErr) == ims.CodeConflict && servedErr == nil && imageErr == nil:
				attached++
			case errors.Is(attachErr, ErrNotFound) && deleteErr == nil && errors.Is(servedErr, ErrNotFound) && errors.Is(imageErr, ErrNotFound):
				deleted++
			default:
				t.Fatalf("attach: %v; delete: %v; then the attachment: %v, the image: %v", attachErr, deleteErr, servedErr, imageErr)
			}
		}
		t.Logf("attached %d, deleted %d", attached, deleted)
	})
}

// TestAttachLimit: the limit holds however many ask at once, and what has ended makes room.
func TestAttachLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		theirs, _ := c.active(other)
		c.attach(other, theirs.ID, time.Hour) // another project's do not count
		limits := ims.Limits{Attachments: 3}
		var all sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			all.Go(func() {
				_, errs[i] = c.Attach(t.Context(), by(mine), newAttachment(img.ID), fmt.Sprint("hash ", i), AttachLife{TTL: time.Minute}, limits)
			})
		}
		all.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
				continue
			}
			wantCode(t, err, ims.CodeTooManyJobs)
			if !strings.Contains(err.Error(), "the limit is 3") {
				t.Errorf("refused with %v", err)
			}
		}
		if made != 3 {
			t.Errorf("%d were made, the limit is 3", made)
		}
		c.clock.advance(time.Minute)
		_, err := c.Attach(t.Context(), by(mine), newAttachment(img.ID), "later", AttachLife{TTL: time.Minute}, limits)
		must(t, err)
	})
}

// TestReadersShare: readers leave a part of the project's attachments to the others, who
// may have all of them.
func TestReadersShare(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		attach := func(role ims.Role, user string, limits ims.Limits) error {
			p := by(mine)
			p.UserID, p.Roles = user, []ims.Role{role}
			_, err := c.Attach(t.Context(), p, newAttachment(img.ID), ims.NewAttachToken(), AttachLife{TTL: time.Hour}, limits)
			return err
		}
		limits := ims.Limits{Attachments: 5, AttachmentsReader: 2}
		must(t, attach(ims.RoleReader, "rita", limits))
		must(t, attach(ims.RoleMember, "bob", limits))
		must(t, attach(ims.RoleReader, "rob", limits))
		wantCode(t, attach(ims.RoleReader, "rita", limits), ims.CodeTooManyJobs)
		must(t, attach(ims.RoleAdmin, "ada", limits))
		must(t, attach(ims.RoleMember, "bob", limits))
		wantCode(t, attach(ims.RoleMember, "bob", limits), ims.CodeTooManyJobs)
		half := ims.Limits{Attachments: 7} // three of them
		must(t, attach(ims.RoleReader, "rita", half))
		wantCode(t, attach(ims.RoleReader, "rita", half), ims.CodeTooManyJobs)
		must(t, attach(ims.RoleMember, "bob", half))
	})
}
