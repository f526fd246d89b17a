package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

const third = "c0000000000000000000000000000003"

// share shares an image of mine with other, which answers.
func (c fixture) share(status ims.MemberStatus) ims.Image {
	c.t.Helper()
	img, _ := c.active(mine)
	_, err := c.AddMember(c.t.Context(), mine, img.ID, other, false)
	must(c.t, err)
	if status != ims.MemberPending {
		_, err = c.SetMemberStatus(c.t.Context(), other, img.ID, status)
		must(c.t, err)
	}
	return c.image(mine, img.ID)
}

func (c fixture) lists(project string, f ims.ImageFilter) []string {
	c.t.Helper()
	list, err := c.Images(c.t.Context(), project, f)
	must(c.t, err)
	var ids []string
	for _, img := range list {
		ids = append(ids, img.ID)
	}
	return ids
}

func TestMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		m, err := c.AddMember(t.Context(), mine, img.ID, other, false)
		must(t, err)
		want := ims.Member{ImageID: img.ID, ProjectID: other, Status: ims.MemberPending, CreatedAt: c.now(), UpdatedAt: c.now()}
		if m != want {
			t.Errorf("added %+v, want %+v", m, want)
		}
		_, err = c.AddMember(t.Context(), mine, img.ID, other, false)
		wantCode(t, err, ims.CodeConflict)
		_, err = c.AddMember(t.Context(), mine, img.ID, mine, false)
		wantCode(t, err, ims.CodeShareWithSelf)
		queued, _ := c.accept(mine)
		_, err = c.AddMember(t.Context(), mine, queued.ID, other, false)
		wantCode(t, err, ims.CodeImageNotActive)
		c.clock.advance(time.Second)
		_, err = c.AddMember(t.Context(), mine, img.ID, third, false)
		must(t, err)
		if got := c.image(mine, img.ID); got.Members != 2 {
			t.Errorf("%d members are counted, want 2", got.Members)
		}

		// The owner sees all, a member itself.
		for project, n := range map[string]int{mine: 2, other: 1, third: 1} {
			list, err := c.Members(t.Context(), project, img.ID)
			if err != nil || len(list) != n || project != mine && list[0].ProjectID != project {
				t.Errorf("%s sees %+v (%v), want %d", project, list, err, n)
			}
		}
		_, err = c.Member(t.Context(), other, img.ID, third)
		wantError(t, err, ErrNoMember)
		_, err = c.Members(t.Context(), "d", img.ID)
		wantError(t, err, ErrNotFound)

		m, err = c.SetMemberStatus(t.Context(), other, img.ID, ims.MemberAccepted)
		want.Status, want.UpdatedAt = ims.MemberAccepted, c.now()
		if err != nil || m != want {
			t.Errorf("accepted %+v (%v), want %+v", m, err, want)
		}
		if got, err := c.Member(t.Context(), mine, img.ID, other); err != nil || got != want {
			t.Errorf("read back %+v (%v)", got, err)
		}
		must(t, c.DeleteMember(t.Context(), mine, img.ID, other))
		wantError(t, c.DeleteMember(t.Context(), mine, img.ID, other), ErrNoMember)
		_, err = c.SetMemberStatus(t.Context(), other, img.ID, ims.MemberAccepted)
		wantError(t, err, ErrNotFound)
		if got := c.image(mine, img.ID); got.Members != 1 {
			t.Errorf("%d members are counted, want 1", got.Members)
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
		_, _, err = c.VisibleImage(t.Context(), third, img.ID)
		wantError(t, err, ErrNotFound)
		if n, err := count(t.Context(), c.db, "SELECT COUNT(*) FROM image_members"); err != nil || n != 0 {
			t.Errorf("%d members of a deleted image are left (%v)", n, err)
		}
	})
}

// TestMemberLimit holds however many are added at once.
func TestMemberLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		for i := range ims.MaxMembers - 2 {
			_, err := c.AddMember(t.Context(), mine, img.ID, fmt.Sprint("p", i), false)
			must(t, err)
		}
		var all sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			all.Go(func() { _, errs[i] = c.AddMember(t.Context(), mine, img.ID, fmt.Sprint("q", i), false) })
		}
		all.Wait()
		added := 0
		for _, err := range errs {
			if err == nil {
				added++
			} else {
				wantCode(t, err, ims.CodeMemberQuota)
			}
		}
		if got := c.image(mine, img.ID).Members; added != 2 || got != ims.MaxMembers {
			t.Errorf("%d were added, %d are counted, want 2 and %d", added, got, ims.MaxMembers)
		}
	})
}

// TestMemberSees: what a project is shown depends on its answer, and on nothing else.
func TestMemberSees(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		own, _ := c.active(other)
		alone, _ := c.active(mine)
		images := map[ims.MemberStatus]ims.Image{}
		for _, status := range ims.MemberStatuses {
			c.clock.advance(time.Second)
			images[status] = c.share(status)
			got, m, err := c.VisibleImage(t.Context(), other, images[status].ID)
			if err != nil || m == nil || m.Status != status || !reflect.DeepEqual(got, images[status]) {
				t.Errorf("%s: sees %+v as %+v (%v)", status, got, m, err)
			}
			if err := MayRead(m); (err == nil) != (status == ims.MemberAccepted) {
				t.Errorf("%s: may read: %v", status, err)
			}
		}
		accepted, rejected, pending := images[ims.MemberAccepted].ID, images[ims.MemberRejected].ID, images[ims.MemberPending].ID
		for name, tc := range map[string]struct {
			f    ims.ImageFilter
			want []string
		}{
			"all":              {ims.ImageFilter{}, []string{accepted, own.ID}},
			"shared":           {ims.ImageFilter{Visibility: "shared"}, []string{accepted}},
			"private":          {ims.ImageFilter{Visibility: "private"}, []string{own.ID}},
			"own":              {ims.ImageFilter{OwnAlone: true}, []string{own.ID}},
			"of others":        {ims.ImageFilter{ForeignAlone: true}, []string{accepted}},
			"pending":          {ims.ImageFilter{ForeignAlone: true, MemberStatus: []ims.MemberStatus{ims.MemberPending}}, []string{pending}},
			"rejected":         {ims.ImageFilter{ForeignAlone: true, MemberStatus: []ims.MemberStatus{ims.MemberRejected}}, []string{rejected}},
			"whatever status":  {ims.ImageFilter{ForeignAlone: true, MemberStatus: ims.MemberStatuses}, []string{rejected, accepted, pending}},
			"owned by itself":  {ims.ImageFilter{Owner: other}, []string{own.ID}},
			"owned by another": {ims.ImageFilter{Owner: mine}, []string{accepted}},
			"owned by nobody":  {ims.ImageFilter{Owner: third}, nil},
			"contradiction":    {ims.ImageFilter{OwnAlone: true, ForeignAlone: true}, nil},
			"enterprise":       {ims.ImageFilter{EnterpriseProjectID: ims.DefaultEnterpriseProject}, []string{own.ID}},
			"by id":            {ims.ImageFilter{IDs: []string{accepted, pending, alone.ID}}, []string{accepted}},
			"marker":           {ims.ImageFilter{MarkerID: accepted}, []string{own.ID}},
			"foreign marker":   {ims.ImageFilter{MarkerID: alone.ID}, nil},
		} {
			if got := c.lists(other, tc.f); !slices.Equal(got, tc.want) {
				t.Errorf("%s: lists %v, want %v", name, got, tc.want)
			}
		}
		if got := c.lists(third, ims.ImageFilter{}); len(got) != 0 {
			t.Errorf("a stranger is shown %v", got)
		}
		if got := c.lists(mine, ims.ImageFilter{Visibility: "shared"}); len(got) != 3 {
			t.Errorf("the owner's shared images are %v, want three", got)
		}
		if got := c.lists(mine, ims.ImageFilter{Visibility: "private"}); !slices.Equal(got, []string{alone.ID}) {
			t.Errorf("the owner's private images are %v, want %s", got, alone.ID)
		}
		if used, err := c.Quota(t.Context(), other); err != nil || used != 1 {
			t.Errorf("others' images count for the quota: %d (%v)", used, err)
		}
	})
}

// TestMemberChangesNothing of an image that is another's.
func TestMemberChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img := c.share(ims.MemberAccepted)
		ctx := t.Context()
		for name, call := range map[string]func() error{
			"DeleteImage": func() error { return c.DeleteImage(ctx, other, img.ID, true) },
			"UpdateImage": func() error {
				_, err := c.UpdateImage(ctx, domain, other, img.ID, func(*ims.Image) error { return nil })
				return err
			},
			"SetTags":         func() error { return c.SetTags(ctx, other, img.ID, []ims.Tag{{Key: "x"}}) },
			"DeleteTag":       func() error { return c.DeleteTag(ctx, other, img.ID, "a") },
			"MigrateResource": func() error { return c.MigrateResource(ctx, domain, other, img.ID, ims.DefaultEnterpriseProject) },
			"AddMember":       func() error { _, err := c.AddMember(ctx, other, img.ID, third, false); return err },
			"DeleteMember":    func() error { return c.DeleteMember(ctx, other, img.ID, other) },
			"Image":           func() error { _, err := c.Image(ctx, other, img.ID); return err },
		} {
			if err := call(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", name, err)
			}
		}
		if got := c.image(mine, img.ID); !reflect.DeepEqual(got, img) {
			t.Errorf("the image became %+v", got)
		}
	})
}

// TestMemberAttaches an image that it accepted, until it is not shared any more.
func TestMemberAttaches(t *testing.T) {
	ends := map[string]func(c fixture, id string) error{
		"it rejects": func(c fixture, id string) error {
			_, err := c.SetMemberStatus(c.t.Context(), other, id, ims.MemberRejected)
			return err
		},
		"it is removed":        func(c fixture, id string) error { return c.DeleteMember(c.t.Context(), mine, id, other) },
		"the image is deleted": func(c fixture, id string) error { return c.DeleteImage(c.t.Context(), mine, id, true) },
	}
	onBoth(t, func(t *testing.T, c fixture) {
		for name, end := range ends {
			img := c.share(ims.MemberPending)
			attach := func() error {
				_, err := c.Attach(t.Context(), by(other), newAttachment(img.ID), ims.NewAttachToken(), AttachLife{TTL: time.Hour}, plenty)
				return err
			}
			wantCode(t, attach(), ims.CodeNotAllowed)
			_, err := c.SetMemberStatus(t.Context(), other, img.ID, ims.MemberAccepted)
			must(t, err)
			a, token := c.attach(other, img.ID, time.Hour)
			if _, served, err := c.served(token); err != nil || served.Data != img.Data || served.ProjectID != mine {
				t.Errorf("%s: served %+v (%v)", name, served, err)
			}
			if list := c.attachments(other); len(list) != 1 || list[0].ID != a.ID || list[0].ImageName != img.Name {
				t.Errorf("%s: listed %+v", name, list)
			}
			if list := c.attachments(mine); len(list) != 0 {
				t.Errorf("%s: the owner is shown a member's attachments %+v", name, list)
			}
			_, owners := c.attach(mine, img.ID, time.Hour)
			wantCode(t, c.DeleteImage(t.Context(), mine, img.ID, false), ims.CodeConflict)
			must(t, end(c, img.ID))
			_, _, err = c.served(token)
			wantError(t, err, ErrNotFound)
			if err := attach(); err == nil {
				t.Errorf("%s: it attaches after that", name)
			}
			if _, _, err := c.served(owners); (err == nil) != (name != "the image is deleted") {
				t.Errorf("%s: the owner's attachment: %v", name, err)
			}
			c.DeleteImage(t.Context(), mine, img.ID, true)
		}
	})
}

// TestAttachAgainstRemoval: a member that is removed while it attaches is left with
// nothing.
func TestAttachAgainstRemoval(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		for range 15 {
			img := c.share(ims.MemberAccepted)
			token := ims.NewAttachToken()
			var both sync.WaitGroup
			start := make(chan struct{})
			both.Go(func() {
				<-start
				_, err := c.Attach(t.Context(), by(other), newAttachment(img.ID), ims.HashAttachToken(token), AttachLife{TTL: time.Hour}, plenty)
				if err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			})
			both.Go(func() {
				<-start
				if err := c.DeleteMember(t.Context(), mine, img.ID, other); err != nil {
					t.Error(err)
				}
			})
			close(start)
			both.Wait()
			if _, _, err := c.served(token); !errors.Is(err, ErrNotFound) {
				t.Fatalf("an attachment outlived the sharing: %v", err)
			}
		}
	})
}
