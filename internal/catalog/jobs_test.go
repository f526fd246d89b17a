package catalog

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/ims"
)

// TestImportSucceeds walks the states of an import that goes well.
func TestImportSucceeds(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, job := c.accept(mine)
		c.clock.advance(time.Second)
		job = c.claim(job.ID)
		if job.Status != ims.JobRunning || job.Attempt != 1 || job.ImageID != img.ID || !reflect.DeepEqual(job.Source, c.job(mine, job.ID).Source) {
			t.Errorf("claimed %+v", job)
		}
		job.Step, job.Percent = ims.StepPin, 5
		job.Source.ETag, job.Source.Version = "etag", "v1"
		job.Source.Warnings = []ims.Warning{{ID: "no_content", Text: "is it a disk?"}}
		must(t, c.SaveStep(t.Context(), job))
		if got := c.job(mine, job.ID); !reflect.DeepEqual(got, job) {
			t.Errorf("saved\n%+v, want\n%+v", got, job)
		}
		job.Step, job.Percent = ims.StepAdopt, 50
		must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
		if got := c.image(mine, img.ID); got.Status != ims.ImageSaving || !lies(got.Data, sourceOf(job)) {
			t.Errorf("image is %s with data %+v, want saving with its source's", got.Status, got.Data)
		}
		c.clock.advance(time.Second)
		job.Step = ims.StepPublish
		must(t, c.Publish(t.Context(), job, dataOf(job)))
		got, end := c.image(mine, img.ID), c.now()
		if got.Status != ims.ImageActive || !lies(got.Data, dataOf(job)) || got.FileSize != job.Source.Size || !got.ActiveAt.Equal(end) || !got.UpdatedAt.Equal(end) {
			t.Errorf("published %+v", got)
		}
		j := c.job(mine, job.ID)
		if j.Status != ims.JobSuccess || j.Percent != 100 || j.Step != ims.StepPublish || !j.EndTime.Equal(end) || j.ErrorCode != "" || j.FailReason != "" {
			t.Errorf("the job ended as %+v", j)
		}
	})
}

// TestImportFails: the image is killed, the job says why, and nothing stays unrecorded.
func TestImportFails(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, job := c.accept(mine)
		for range 2 {
			job = c.claim(job.ID)
			must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
			c.clock.advance(lease)
		}
		// Text from a file of a stranger must not keep the job from ending.
		reason := "bad \x00 \xff " + strings.Repeat("ä", maxReason)
		must(t, c.Fail(t.Context(), job, ims.CodeFile, reason))
		if got := c.image(mine, img.ID); got.Status != ims.ImageKilled || !got.ActiveAt.IsZero() || got.Data != (ims.Data{}) {
			t.Errorf("image is %+v, want killed without data", got)
		}
		j := c.job(mine, job.ID)
		if j.Status != ims.JobFail || j.ErrorCode != ims.CodeFile || !strings.HasPrefix(j.FailReason, "bad ") || len(j.FailReason) > maxReason || !utf8.ValidString(j.FailReason) || !j.EndTime.Equal(c.now()) {
			t.Errorf("the job ended as %+v", j)
		}
		if got, want := c.leftovers(), []string{prefix(img.ID, 1), prefix(img.ID, 2)}; !slices.Equal(got, want) {
			t.Errorf("leftovers %q, want every attempt's %q", got, want)
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false)) // a killed image can go
	})
}

// writes are all that a holder of a job may write.
func (c fixture) writes(img ims.Image) map[string]func(ims.Job) error {
	ctx := c.t.Context()
	return map[string]func(ims.Job) error{
		"RenewLease": func(j ims.Job) error { return c.RenewLease(ctx, j, lease) },
		"SaveStep":   func(j ims.Job) error { return c.SaveStep(ctx, j) },
		"BeginAdopt": func(j ims.Job) error { return c.BeginAdopt(ctx, j, sourceOf(j)) },
		"Publish":    func(j ims.Job) error { return c.Publish(ctx, j, dataOf(j)) },
		"Fail":       func(j ims.Job) error { return c.Fail(ctx, j, ims.CodeFile, "x") },
		"Release":    func(j ims.Job) error { return c.Release(ctx, j, 1) },
	}
}

// TestFence: whoever does not hold the job writes nothing, whatever way it was lost.
func TestFence(t *testing.T) {
	lost := map[string]func(c fixture, job ims.Job) ims.Job{
		"claimed by another": func(c fixture, job ims.Job) ims.Job {
			job = c.claim(job.ID)
			c.clock.advance(lease)
			c.claim(job.ID)
			return job
		},
		"given back": func(c fixture, job ims.Job) ims.Job {
			job = c.claim(job.ID)
			must(c.t, c.Release(c.t.Context(), job, 1))
			return job
		},
		"taken at a restart": func(c fixture, job ims.Job) ims.Job {
			job = c.claim(job.ID)
			must(c.t, c.ExpireLeases(c.t.Context()))
			return job
		},
		"succeeded": func(c fixture, job ims.Job) ims.Job {
			job = c.claim(job.ID)
			must(c.t, c.Publish(c.t.Context(), job, dataOf(job)))
			return job
		},
		"failed": func(c fixture, job ims.Job) ims.Job {
			job = c.claim(job.ID)
			must(c.t, c.Fail(c.t.Context(), job, ims.CodeFile, "first"))
			return job
		},
		"never claimed": func(_ fixture, job ims.Job) ims.Job { return job },
		"another project's": func(c fixture, job ims.Job) ims.Job {
			job = c.claim(job.ID)
			job.ProjectID = other
			return job
		},
	}
	onBoth(t, func(t *testing.T, c fixture) {
		for how, lose := range lost {
			img, accepted := c.accept(mine)
			job := lose(c, accepted)
			wantImg, wantJob := c.image(mine, img.ID), c.job(mine, accepted.ID)
			job.Step, job.Percent, job.Source.ETag = ims.StepAdopt, 77, "stale"
			for what, write := range c.writes(img) {
				if err := write(job); !errors.Is(err, ErrFenced) {
					t.Errorf("%s, %s: got %v, want ErrFenced", how, what, err)
				}
			}
			if got := c.image(mine, img.ID); !reflect.DeepEqual(got, wantImg) {
				t.Errorf("%s: the image became %+v, want %+v", how, got, wantImg)
			}
			if got := c.job(mine, accepted.ID); !reflect.DeepEqual(got, wantJob) {
				t.Errorf("%s: the job became %+v, want %+v", how, got, wantJob)
			}
		}
	})
}

// TestLease: a job is held until the lease expires, renewing moves that on, and a
// holder that is late but that nobody replaced may still end its job.
func TestLease(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		_, job := c.accept(mine)
		taken := func() bool {
			_, ok, err := c.ClaimJob(t.Context(), job.ID, lease)
			must(t, err)
			return ok
		}
		job = c.claim(job.ID)
		c.clock.advance(lease - time.Millisecond)
		if taken() {
			t.Fatal("claimed while the lease runs")
		}
		must(t, c.RenewLease(t.Context(), job, lease))
		c.clock.advance(lease - time.Millisecond)
		if taken() {
			t.Fatal("claimed while the renewed lease runs")
		}
		c.clock.advance(2 * time.Millisecond)
		must(t, c.RenewLease(t.Context(), job, lease)) // late, and nobody was quicker
		if taken() {
			t.Fatal("claimed though the late holder came back")
		}
		c.clock.advance(2 * lease)
		must(t, c.Publish(t.Context(), job, dataOf(job)))
		c.clock.advance(2 * lease)
		if taken() {
			t.Fatal("claimed after the end")
		}
		if _, ok, err := c.ClaimJob(t.Context(), ims.NewJobID(), lease); ok || err != nil {
			t.Errorf("an unknown job: %v, %v, want nothing to do", ok, err)
		}
	})
}

// TestReleaseKeepsCount: a job that was given back can be claimed at once.
func TestReleaseKeepsCount(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		_, job := c.accept(mine)
		first := c.claim(job.ID)
		must(t, c.Release(t.Context(), first, 3))
		second := c.claim(job.ID)
		if second.Attempt != first.Attempt+1 || second.Faults != 3 {
			t.Errorf("attempt %d with %d faults, want %d with 3", second.Attempt, second.Faults, first.Attempt+1)
		}
	})
}

// TestClaimTogether: of many workers one gets the job.
func TestClaimTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		_, job := c.accept(mine)
		var got atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				_, ok, err := c.ClaimJob(t.Context(), job.ID, lease)
				if err != nil {
					t.Error(err)
				}
				if ok {
					got.Add(1)
				}
			})
		}
		wg.Wait()
		if got.Load() != 1 {
			t.Errorf("%d workers hold the job, want 1", got.Load())
		}
	})
}

// TestEndsOnce: workers that lose and take the job in any order, each trying to end
// it: exactly one end, and the image's data is that of the attempt that ended it.
func TestEndsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		rapid.Check(t, func(rt *rapid.T) {
			img, job := c.accept(mine)
			held := []ims.Job{job}
			ends, wrote := 0, map[int64]bool{}
			var won ims.Job
			for range rapid.IntRange(1, 12).Draw(rt, "steps") {
				who := held[rapid.IntRange(0, len(held)-1).Draw(rt, "who")]
				var err error
				switch rapid.IntRange(0, 5).Draw(rt, "what") {
				case 0, 1:
					j, ok, err := c.ClaimJob(t.Context(), job.ID, lease)
					must(t, err)
					if ok {
						held = append(held, j)
						if rapid.Bool().Draw(rt, "writes") {
							must(t, c.BeginAdopt(t.Context(), j, sourceOf(j)))
							wrote[j.Attempt] = true
						}
					}
				case 2:
					c.clock.advance(lease)
				case 3:
					err = c.Publish(t.Context(), who, dataOf(who))
					if err == nil {
						ends, won = ends+1, who
					}
				case 4:
					err = c.Fail(t.Context(), who, ims.CodeFile, "x")
					if err == nil {
						ends++
					}
				case 5:
					err = c.Release(t.Context(), who, 0)
				}
				if err != nil && !errors.Is(err, ErrFenced) {
					rt.Fatal(err)
				}
			}
			image, end := c.image(mine, img.ID), c.job(mine, job.ID)
			if ends > 1 {
				rt.Fatalf("the job ended %d times", ends)
			}
			if final := end.Status.Final(); final != (ends == 1) || final == end.EndTime.IsZero() {
				rt.Fatalf("%d ends, the job is %+v", ends, end)
			}
			active := image.Status == ims.ImageActive
			if active != (won.ID != "") || active && !lies(image.Data, dataOf(won)) || active != (end.Status == ims.JobSuccess) {
				rt.Fatalf("the image is %+v, won by attempt %d", image, won.Attempt)
			}
			// All that was written and is not the image's is left to the clean-up, or
			// may still be published; and nothing of the image ever is.
			left := c.leftovers()
			for n := int64(1); n <= end.Attempt; n++ {
				running := n == end.Attempt && !end.Status.Final()
				if active && won.Attempt == n && slices.Contains(left, prefix(img.ID, n)) {
					rt.Fatalf("attempt %d of %d was published and is to be removed", n, end.Attempt)
				}
				if wrote[n] && !(active && won.Attempt == n) && !running && !slices.Contains(left, prefix(img.ID, n)) {
					rt.Fatalf("attempt %d of %d wrote and is not among %q", n, end.Attempt, left)
				}
				if !wrote[n] && slices.Contains(left, prefix(img.ID, n)) {
					rt.Fatalf("attempt %d of %d wrote nothing and is to be removed", n, end.Attempt)
				}
			}
			for range len(lookAgain) + 1 {
				c.clean()
				c.clock.advance(24 * time.Hour)
			}
		})
	})
}

// TestUnserved: which jobs the queue is asked to serve again, and when.
func TestUnserved(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		list := func() []string {
			ids, err := c.Unserved(t.Context(), 100)
			must(t, err)
			return ids
		}
		want := func(when string, ids ...string) {
			t.Helper()
			if got := list(); !slices.Equal(got, ids) {
				t.Errorf("%s: %v, want %v", when, got, ids)
			}
		}
		_, never := c.accept(mine)
		want("just accepted")
		c.clock.advance(claimWithin)
		want("not claimed in time", never.ID)
		held := c.claim(never.ID)
		want("held")
		c.clock.advance(lease)
		want("lease expired", held.ID)
		held = c.claim(held.ID)
		must(t, c.Release(t.Context(), held, 1))
		c.clock.advance(time.Minute)
		want("pausing after a fault")
		c.clock.advance(resumeWithin - time.Minute)
		want("not resumed in time", held.ID)
		held = c.claim(held.ID)
		_, fresh := c.accept(other)
		must(t, c.ExpireLeases(t.Context()))
		both := []string{held.ID, fresh.ID}
		slices.Sort(both)
		want("after a restart", both...)
		if ids, err := c.Unserved(t.Context(), 1); err != nil || len(ids) != 1 {
			t.Errorf("limit 1 gives %v (%v)", ids, err)
		}
		for _, id := range both {
			j := c.claim(id)
			must(t, c.Fail(t.Context(), j, ims.CodeFile, "x"))
		}
		must(t, c.ExpireLeases(t.Context()))
		c.clock.advance(time.Hour)
		want("all ended")
	})
}
