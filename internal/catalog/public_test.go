package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// see gives an image of mine a visibility, as a client of the API does.
func (c fixture) see(id string, v ims.Visibility) {
	c.t.Helper()
	_, err := c.UpdateImage(c.t.Context(), domain, mine, id, func(img *ims.Image) error {
		return img.PatchOpenStack([]ims.OpenStackOp{{Op: "replace", Key: "visibility", Value: string(v)}})
	})
	must(c.t, err)
}

// TestPublicImages: everybody sees, lists and attaches a public image and changes nothing
// of it; what others opened ends when it is withdrawn.
func TestPublicImages(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img := c.share(ims.MemberAccepted) // with other
		c.attach(other, img.ID, time.Hour)
		c.see(img.ID, ims.VisibilityPublic)
		if got := c.image(mine, img.ID); got.Visibility() != ims.VisibilityPublic || got.Members != 0 {
			t.Errorf("published: %s with %d members", got.Visibility(), got.Members)
		}
		if n := len(c.attachments(other)); n != 1 {
			t.Errorf("a former member has %d attachments, want its one", n)
		}
		_, err := c.AddMember(t.Context(), mine, img.ID, third, false)
		wantCode(t, err, ims.CodeSharePublic)
		for _, project := range []string{mine, other, third} {
			got, m, err := c.VisibleImage(t.Context(), project, img.ID)
			if err != nil || m != nil || got.ID != img.ID || MayRead(m) != nil {
				t.Errorf("%s sees %s, %v (%v)", project, got.ID, m, err)
			}
			if list, err := c.Members(t.Context(), project, img.ID); err != nil || len(list) != 0 {
				t.Errorf("%s sees the members %v (%v)", project, list, err)
			}
			c.attach(project, img.ID, time.Hour)
		}
		_, err = c.UpdateImage(t.Context(), domain, other, img.ID, func(*ims.Image) error { return nil })
		wantError(t, err, ErrNotFound)
		wantError(t, c.DeleteImage(t.Context(), other, img.ID, true), ErrNotFound)

		own, _ := c.active(third)
		eps := c.enterprise("e")
		yes, no := true, false
		for name, tc := range map[string]struct {
			project string
			f       ims.ImageFilter
			want    []string
		}{
			"all of another":          {third, ims.ImageFilter{}, []string{own.ID, img.ID}},
			"all of the owner":        {mine, ims.ImageFilter{}, []string{img.ID}},
			"public":                  {third, ims.ImageFilter{Visibility: ims.VisibilityPublic}, []string{img.ID}},
			"private":                 {third, ims.ImageFilter{Visibility: ims.VisibilityPrivate}, []string{own.ID}},
			"shared":                  {other, ims.ImageFilter{Visibility: ims.VisibilityShared}, nil},
			"own alone":               {third, ims.ImageFilter{OwnAlone: true}, []string{own.ID}},
			"own alone, of the owner": {mine, ims.ImageFilter{OwnAlone: true}, nil},
			"shared alone":            {third, ims.ImageFilter{SharedAlone: true}, nil},
			"others' alone":           {third, ims.ImageFilter{ForeignAlone: true}, nil},
			"an owner":                {third, ims.ImageFilter{Owner: mine}, []string{img.ID}},
			"itself the owner":        {third, ims.ImageFilter{Owner: third}, []string{own.ID}},
			"enterprise project":      {third, ims.ImageFilter{EnterpriseProjectID: ims.DefaultEnterpriseProject}, []string{own.ID}},
			"public, any enterprise":  {third, ims.ImageFilter{EnterpriseProjectID: eps, Visibility: ims.VisibilityPublic}, []string{img.ID}},
			"protected, as IMS":       {third, ims.ImageFilter{PublicProtected: true, Protected: &yes}, []string{img.ID}},
			"not protected, as IMS":   {third, ims.ImageFilter{PublicProtected: true, Protected: &no}, []string{own.ID}},
			"protected":               {third, ims.ImageFilter{Protected: &yes}, nil},
		} {
			got := c.lists(tc.project, tc.f)
			slices.Sort(got)
			slices.Sort(tc.want)
			if !slices.Equal(got, tc.want) {
				t.Errorf("%s: %v, want %v", name, got, tc.want)
			}
		}

		c.see(img.ID, ims.VisibilityPrivate)
		for project, n := range map[string]int{mine: 1, other: 0, third: 0} {
			if got := c.attachments(project); len(got) != n {
				t.Errorf("withdrawn: %s has %d attachments, want %d", project, len(got), n)
			}
		}
		_, _, err = c.VisibleImage(t.Context(), third, img.ID)
		wantError(t, err, ErrNotFound)
		_, err = c.Attach(t.Context(), by(third), newAttachment(img.ID), "hash", AttachLife{TTL: time.Hour}, plenty)
		wantError(t, err, ErrNotFound)
		if got := c.lists(third, ims.ImageFilter{}); !slices.Equal(got, []string{own.ID}) {
			t.Errorf("withdrawn: %v are listed", got)
		}
	})
}

// TestPagesAcrossProjects: a list of own, shared and public images has each once, in order,
// whatever the length of its pages.
func TestPagesAcrossProjects(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		var want []string
		for i := range 12 {
			c.clock.advance(time.Second)
			var img ims.Image
			switch i % 3 {
			case 0:
				img, _ = c.active(other)
			case 1:
				img = c.share(ims.MemberAccepted)
			case 2:
				img, _ = c.active(mine)
				c.see(img.ID, ims.VisibilityPublic)
			}
			want = append(want, img.ID)
		}
		slices.Reverse(want)
		for limit := 1; limit < 14; limit++ {
			t.Run(fmt.Sprint(limit), func(t *testing.T) {
				var got []string
				f := ims.ImageFilter{Limit: limit}
				for {
					page := c.lists(other, f)
					got = append(got, page...)
					if len(page) < limit {
						break
					}
					f.MarkerID = page[len(page)-1]
				}
				if !slices.Equal(got, want) {
					t.Errorf("pages of %d: %v, want %v", limit, got, want)
				}
			})
		}
	})
}
