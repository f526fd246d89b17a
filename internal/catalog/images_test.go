package catalog

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// TestCreateImport: image and job read back as they were written.
func TestCreateImport(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		wantImg, wantJob := newImport(mine)
		now := c.clock.Now().Truncate(time.Millisecond)
		must(t, c.CreateImport(t.Context(), domain, wantImg, wantJob, plenty, noQueue))
		wantImg.Status, wantImg.CreatedAt, wantImg.UpdatedAt = ims.ImageQueued, now, now
		wantJob.Status, wantJob.BeginTime = ims.JobInit, now
		if got := c.image(mine, wantImg.ID); !reflect.DeepEqual(got, wantImg) {
			t.Errorf("image\n%+v, want\n%+v", got, wantImg)
		}
		if got := c.job(mine, wantJob.ID); !reflect.DeepEqual(got, wantJob) {
			t.Errorf("job\n%+v, want\n%+v", got, wantJob)
		}
		list, err := c.Images(t.Context(), mine, ims.ImageFilter{})
		must(t, err)
		if len(list) != 1 || !reflect.DeepEqual(list[0], wantImg) {
			t.Errorf("listed %+v, want the image as it reads alone", list)
		}
	})
}

// TestAllOrNothing: an import whose queue entry can't be written was never accepted.
func TestAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, job := newImport(mine)
		planned := errors.New("planned")
		err := c.CreateImport(t.Context(), domain, img, job, plenty, func(context.Context, *database.Tx, string) error { return planned })
		wantError(t, err, planned)
		for _, table := range []string{"images", "image_tags", "jobs", "project_turns", "river_job"} {
			if n, err := count(t.Context(), c.db, "SELECT COUNT(*) FROM "+table); err != nil || n != 0 {
				t.Errorf("%s has %d rows (%v), want none", table, n, err)
			}
		}
		if used, err := c.Quota(t.Context(), mine); err != nil || used != 0 {
			t.Errorf("quota used %d (%v), want 0", used, err)
		}
	})
}

// TestLimits: what counts against the limits and what does not.
func TestLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		limits := ims.Limits{Images: 2, Imports: 1}
		create := func(project string) error {
			img, job := newImport(project)
			return c.CreateImport(t.Context(), domain, img, job, limits, noQueue)
		}
		killed, killedJob := c.accept(mine)
		wantCode(t, create(mine), ims.CodeTooManyJobs)
		must(t, create(other)) // another project's import is none of ours
		must(t, c.Fail(t.Context(), c.claim(killedJob.ID), ims.CodeFile, "broken"))
		deleted, _ := c.active(mine)
		must(t, c.DeleteImage(t.Context(), mine, deleted.ID, false))
		if used, err := c.Quota(t.Context(), mine); err != nil || used != 0 {
			t.Errorf("a killed and a deleted image use %d (%v), want 0", used, err)
		}
		c.active(mine)
		c.active(mine)
		wantCode(t, create(mine), ims.CodeQuota)
		must(t, c.DeleteImage(t.Context(), mine, killed.ID, false))
		wantCode(t, create(mine), ims.CodeQuota)
		if used, err := c.Quota(t.Context(), mine); err != nil || used != 2 {
			t.Errorf("used %d (%v), want 2", used, err)
		}
	})
}

// TestLimitsTogether: many imports at once, exactly as many succeed as there is room.
func TestLimitsTogether(t *testing.T) {
	const room, callers = 10, 50
	for name, tt := range map[string]struct {
		limits ims.Limits
		code   ims.Code
	}{
		"quota": {ims.Limits{Images: room, Imports: 1000}, ims.CodeQuota},
		"jobs":  {ims.Limits{Images: 1000, Imports: room}, ims.CodeTooManyJobs},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, c fixture) {
				var done atomic.Int64
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						img, job := newImport(mine)
						switch err := c.CreateImport(t.Context(), domain, img, job, tt.limits, noQueue); {
						case err == nil:
							done.Add(1)
						case ims.CodeOf(err) != tt.code:
							t.Errorf("got %v, want %s", err, tt.code)
						}
					})
				}
				wg.Wait()
				used, err := c.Quota(t.Context(), mine)
				must(t, err)
				if done.Load() != room || used != room {
					t.Errorf("%d imports accepted, %d images there, want %d of both", done.Load(), used, room)
				}
			})
		})
	}
}

func TestUpdateImage(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		before, _ := c.active(mine)
		ep := c.enterprise("lab")
		c.clock.advance(time.Second)
		got, err := c.UpdateImage(t.Context(), domain, mine, before.ID, func(img *ims.Image) error {
			img.Name, img.Description, img.MinRAMMiB, img.MaxRAMMiB = "new", "", 1, ""
			img.Protected, img.EnterpriseProjectID = true, ep
			img.Attributes["hw_vif_multiqueue_enabled"] = "true"
			img.Tags = []ims.Tag{{Key: "c"}, {Key: "a", Value: "2"}}
			img.Properties["os"], img.MadeVisible, img.Hidden = "x", ims.VisibilityShared, true
			// What may not change.
			img.ID, img.ProjectID, img.Status, img.MD5 = "x", other, ims.ImageKilled, "0"
			img.Data, img.FileSize, img.CreatedAt = ims.Data{}, 0, time.Time{}
			return nil
		})
		must(t, err)
		want := before
		want.Name, want.Description, want.MinRAMMiB, want.MaxRAMMiB = "new", "", 1, ""
		want.Protected, want.EnterpriseProjectID = true, ep
		want.Attributes = map[string]string{"__support_fc_inject": "true", "hw_vif_multiqueue_enabled": "true"}
		want.Tags = []ims.Tag{{Key: "a", Value: "2"}, {Key: "c"}}
		want.Properties, want.MadeVisible, want.Hidden = map[string]string{"os": "x"}, ims.VisibilityShared, true
		want.UpdatedAt = before.UpdatedAt.Add(time.Second)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(c.image(mine, before.ID), want) {
			t.Errorf("changed to\n%+v, want\n%+v", got, want)
		}

		planned := errors.New("planned")
		_, err = c.UpdateImage(t.Context(), domain, mine, before.ID, func(img *ims.Image) error {
			img.Name = "lost"
			return planned
		})
		wantError(t, err, planned)
		for _, id := range []string{uuid.NewString(), "nonsense"} {
			_, err = c.UpdateImage(t.Context(), domain, mine, before.ID, func(img *ims.Image) error {
				img.EnterpriseProjectID = id
				return nil
			})
			wantCode(t, err, ims.CodeEnterpriseProject)
		}
		// The domain decides which enterprise projects there are.
		elsewhere := c.enterprise("other")
		_, err = c.UpdateImage(t.Context(), "another domain", mine, before.ID, func(img *ims.Image) error {
			img.EnterpriseProjectID = elsewhere
			return nil
		})
		wantCode(t, err, ims.CodeEnterpriseProject)
		if !reflect.DeepEqual(c.image(mine, before.ID), want) {
			t.Error("a change that was refused left a trace")
		}
	})
}

// TestUpdateImageTogether: changes at the same time build on each other.
func TestUpdateImageTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		var wg sync.WaitGroup
		const callers = 10
		for range callers {
			wg.Go(func() {
				_, err := c.UpdateImage(t.Context(), domain, mine, img.ID, func(img *ims.Image) error {
					img.MinRAMMiB++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := c.image(mine, img.ID).MinRAMMiB; got != img.MinRAMMiB+callers {
			t.Errorf("counted to %d, want %d", got, img.MinRAMMiB+callers)
		}
	})
}

func TestDeleteImage(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, job := c.accept(mine)
		wantCode(t, c.DeleteImage(t.Context(), mine, img.ID, false), ims.CodeImageBeingMade) // queued
		job = c.claim(job.ID)
		must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
		wantCode(t, c.DeleteImage(t.Context(), mine, img.ID, false), ims.CodeImageBeingMade) // saving
		must(t, c.Publish(t.Context(), job, dataOf(job)))

		protect := func(on bool) {
			_, err := c.UpdateImage(t.Context(), domain, mine, img.ID, func(img *ims.Image) error { img.Protected = on; return nil })
			must(t, err)
		}
		protect(true)
		wantCode(t, c.DeleteImage(t.Context(), mine, img.ID, false), ims.CodeImageProtected)
		protect(false)
		if len(c.leftovers()) != 0 {
			t.Error("a deletion that was refused gave bytes to the clean-up")
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
		if got := strings.Join(c.leftovers(), " "); got != prefix(img.ID, 1) {
			t.Errorf("leftovers %q, want the image's bytes", got)
		}
		wantError(t, c.DeleteImage(t.Context(), mine, img.ID, false), ErrNotFound)
		_, err := c.Image(t.Context(), mine, img.ID)
		wantError(t, err, ErrNotFound)
		for _, status := range [][]ims.ImageStatus{nil, {ims.ImageActive}, {ims.ImageDeleted}} {
			list, err := c.Images(t.Context(), mine, ims.ImageFilter{Status: status})
			must(t, err)
			if len(list) != 0 {
				t.Errorf("status %v lists a deleted image", status)
			}
		}
		if tags, err := c.Tags(t.Context(), mine, ims.ImageFilter{}, 0, 0); err != nil || len(tags) != 0 {
			t.Errorf("a deleted image's tags are listed: %v (%v)", tags, err)
		}
		// Its job stays readable.
		if got := c.job(mine, job.ID); got.Status != ims.JobSuccess {
			t.Errorf("the job is %s, want SUCCESS", got.Status)
		}
	})
}
