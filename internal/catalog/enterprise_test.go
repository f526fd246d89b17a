package catalog

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/ims"
)

func TestEnterpriseProjects(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ctx := t.Context()
		list := func(f EnterpriseFilter) (names []string) {
			t.Helper()
			all, total, err := c.EnterpriseProjects(ctx, domain, f)
			must(t, err)
			for _, p := range all {
				names = append(names, p.Name)
			}
			if f.Limit == 0 && f.Offset == 0 && total != len(all) {
				t.Errorf("%+v: %d in all, %d listed", f, total, len(all))
			}
			return names
		}
		want := func(f EnterpriseFilter, names ...string) {
			t.Helper()
			if got := list(f); !reflect.DeepEqual(got, names) {
				t.Errorf("%+v: %q, want %q", f, got, names)
			}
		}
		want(EnterpriseFilter{}, "default")
		c.clock.advance(time.Second)
		lab := c.enterprise("Lab")
		c.clock.advance(time.Second)
		prod := c.enterprise("prod_lab")
		want(EnterpriseFilter{}, "default", "Lab", "prod_lab")
		want(EnterpriseFilter{Name: "LAB"}, "Lab", "prod_lab")
		want(EnterpriseFilter{Name: "def"}, "default")
		want(EnterpriseFilter{Name: "%"})
		want(EnterpriseFilter{Name: "\x00"})
		want(EnterpriseFilter{ID: prod}, "prod_lab")
		want(EnterpriseFilter{ID: ims.DefaultEnterpriseProject}, "default")
		want(EnterpriseFilter{Limit: 1, Offset: 1}, "Lab")
		want(EnterpriseFilter{Offset: 3})
		if _, total, err := c.EnterpriseProjects(ctx, domain, EnterpriseFilter{Limit: 1, Offset: 5}); err != nil || total != 3 {
			t.Errorf("%d in all (%v), want 3 on every page", total, err)
		}

		p, err := c.EnterpriseProject(ctx, domain, ims.DefaultEnterpriseProject)
		must(t, err)
		if p.ID != "0" || p.Name != "default" || !p.Enabled || p.DomainID != domain {
			t.Errorf("the default one is %+v", p)
		}
		c.clock.advance(time.Second)
		got, err := c.UpdateEnterpriseProject(ctx, domain, lab, func(p *ims.EnterpriseProject) error {
			p.Name, p.Description, p.ID, p.DomainID = "lab2", "new", "x", "y"
			return nil
		})
		must(t, err)
		again, err := c.EnterpriseProject(ctx, domain, lab)
		must(t, err)
		if got != again || got.ID != lab || got.Name != "lab2" || got.Description != "new" || !got.UpdatedAt.Equal(c.now()) || got.CreatedAt.Equal(c.now()) {
			t.Errorf("changed to %+v, reads %+v", got, again)
		}

		taken := func(err error) {
			t.Helper()
			wantCode(t, err, ims.CodeConflict)
			if errorKind(err) != ims.KindConflict {
				t.Errorf("a name that is taken: %v, want a conflict", err)
			}
		}
		_, err = c.UpdateEnterpriseProject(ctx, domain, lab, func(p *ims.EnterpriseProject) error { p.Name = "prod_lab"; return nil })
		taken(err)
		_, err = c.CreateEnterpriseProject(ctx, ims.EnterpriseProject{ID: uuid.NewString(), DomainID: domain, Name: "lab2"})
		taken(err)
		planned := errors.New("planned")
		_, err = c.UpdateEnterpriseProject(ctx, domain, lab, func(*ims.EnterpriseProject) error { return planned })
		wantError(t, err, planned)

		// Another domain's, the default one, and what is none at all.
		nothing := func(*ims.EnterpriseProject) error { return nil }
		for _, id := range []string{lab, uuid.NewString(), "nonsense", "\x00"} {
			_, err := c.EnterpriseProject(ctx, "another domain", id)
			wantError(t, err, ErrNotFound)
			_, err = c.UpdateEnterpriseProject(ctx, "another domain", id, nothing)
			wantError(t, err, ErrNotFound)
		}
		_, err = c.UpdateEnterpriseProject(ctx, domain, ims.DefaultEnterpriseProject, nothing)
		wantError(t, err, ErrNotFound)
	})
}

func TestCreateImportInEnterpriseProject(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ep := c.enterprise("lab")
		img, job := newImport(mine)
		img.EnterpriseProjectID = ep
		wantCode(t, c.CreateImport(t.Context(), "another domain", img, job, plenty, noQueue), ims.CodeEnterpriseProject)
		must(t, c.CreateImport(t.Context(), domain, img, job, plenty, noQueue))
		if got := c.image(mine, img.ID).EnterpriseProjectID; got != ep {
			t.Errorf("the image is in %q, want %q", got, ep)
		}
	})
}

func TestResources(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ctx := t.Context()
		ep := c.enterprise("lab")
		var want []Resource
		for _, project := range []string{mine, other, mine} {
			img, _ := c.active(project)
			c.clock.advance(time.Second)
			must(t, c.MigrateResource(ctx, domain, project, img.ID, ep))
			want = append(want, Resource{ID: img.ID, Name: img.Name, ProjectID: project})
		}
		c.active(mine) // in the default one
		_, failing := c.accept(mine)
		must(t, c.Fail(ctx, c.claim(failing.ID), ims.CodeFile, "x"))

		got, total, err := c.ResourcesOf(ctx, []string{mine, other}, ep, 100, 0)
		if err != nil || total != 3 || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v of %d (%v), want %v", got, total, err, want)
		}
		got, total, err = c.ResourcesOf(ctx, []string{mine}, ep, 1, 1)
		if err != nil || total != 2 || !reflect.DeepEqual(got, want[2:]) {
			t.Errorf("second page %v of %d (%v), want %v", got, total, err, want[2:])
		}
		for _, ids := range [][]string{nil, {"\x00"}} {
			if got, total, err := c.ResourcesOf(ctx, ids, ep, 100, 0); err != nil || total != 0 || got != nil {
				t.Errorf("projects %q: %v of %d (%v), want none", ids, got, total, err)
			}
		}
		wantCode(t, c.MigrateResource(ctx, domain, mine, want[0].ID, uuid.NewString()), ims.CodeEnterpriseProject)
		wantError(t, c.MigrateResource(ctx, domain, mine, uuid.NewString(), ep), ErrNotFound)
	})
}

// TestEnterpriseProjectsLimit holds however many are made at once, in each domain.
func TestEnterpriseProjectsLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		make := func(domain string) error {
			_, err := c.CreateEnterpriseProject(t.Context(), ims.EnterpriseProject{ID: uuid.NewString(), DomainID: domain, Name: uuid.NewString(), Enabled: true})
			return err
		}
		for range ims.MaxEnterpriseProjects - 2 {
			must(t, make(domain))
		}
		var wg sync.WaitGroup
		errs := [4]error{}
		for i := range errs {
			wg.Go(func() { errs[i] = make(domain) })
		}
		wg.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
			} else {
				wantCode(t, err, ims.CodeConflict)
			}
		}
		if made != 2 {
			t.Errorf("%d made at once, want 2", made)
		}
		must(t, make("another"))
	})
}
