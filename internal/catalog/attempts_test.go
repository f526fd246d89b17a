package catalog

import (
	"slices"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
)

// TestLeftovers: what the clean-up removes, through an image's whole life. It is never
// told of bytes that an image has or may still get, nor of those that nobody recorded.
func TestLeftovers(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, job := c.accept(mine)
		begin := func() {
			t.Helper()
			job = c.claim(job.ID)
			must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
		}
		want := func(when string, prefixes ...string) {
			t.Helper()
			if got := c.leftovers(); !slices.Equal(got, prefixes) {
				t.Errorf("%s: %q is to be removed, want %q", when, got, prefixes)
			}
		}
		if c.known(img.ID, 1) {
			t.Error("an attempt that did not begin is known")
		}
		begin()
		want("first attempt")
		if !c.known(img.ID, 1) || c.known(img.ID, 2) {
			t.Error("the running attempt is not the one that is known")
		}
		must(t, c.Release(t.Context(), job, 1))
		want("given back", prefix(img.ID, 1))
		begin()
		want("second attempt", prefix(img.ID, 1))
		c.clean()
		want("removed")
		c.clock.advance(lease)
		begin() // the third takes the job from the second
		want("third attempt", prefix(img.ID, 2))
		must(t, c.Publish(t.Context(), job, dataOf(job)))
		want("published", prefix(img.ID, 2))
		for range len(lookAgain) + 1 {
			c.clean()
			c.clock.advance(48 * time.Hour)
		}
		want("long after")
		if c.known(img.ID, 1) || c.known(img.ID, 2) || !c.known(img.ID, 3) || c.known(img.ID, 4) {
			t.Error("long after, another attempt is known than the published one")
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
		want("deleted", prefix(img.ID, 3))
		c.clean()
		c.clock.advance(48 * time.Hour)
		want("deleted and removed")
		if c.known(img.ID, 3) {
			t.Error("what was removed for good is still known")
		}
	})
}

// TestLeftoversAgain: a store or a fenced worker may go on writing after the first look.
func TestLeftoversAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, first := c.saving(mine)
		must(t, c.Release(t.Context(), first, 1))
		due := func(when string, want bool) {
			t.Helper()
			if got := slices.Contains(c.leftovers(), prefix(img.ID, 1)); got != want {
				t.Errorf("%s: looked at %v, want %v", when, got, want)
			}
		}
		due("given back", true)
		for _, pause := range lookAgain {
			c.clean()
			due("just removed", false)
			c.clock.advance(pause)
			due("after "+pause.String(), true)
		}
		must(t, c.EndLost(t.Context(), first)) // its worker heard of it late
		c.clean()
		c.clock.advance(lookAgain[0])
		due("an hour after the worker gave up", true)
		c.clean()
		must(t, c.EndLost(t.Context(), first))
		due("at once, whenever the worker gives up", true)

		second := c.claim(first.ID)
		must(t, c.BeginAdopt(t.Context(), second, sourceOf(second)))
		must(t, c.EndLost(t.Context(), second)) // it is not fenced
		must(t, c.Publish(t.Context(), second, dataOf(second)))
		must(t, c.EndLost(t.Context(), second)) // it is published
		if slices.Contains(c.leftovers(), prefix(img.ID, 2)) {
			t.Error("a published attempt is to be removed")
		}
	})
}

// TestLeftoversOldestFirst: what waits longest is removed first.
func TestLeftoversOldestFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		var want []string
		for range 3 {
			img, _ := c.active(mine)
			c.clock.advance(time.Second)
			must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
			want = append(want, prefix(img.ID, 1))
		}
		if got := c.leftovers(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		must(t, c.Postpone(t.Context(), attemptNamed(t, want[0]), time.Minute))
		if got := c.leftovers(); !slices.Equal(got, want[1:]) {
			t.Errorf("with one postponed: %q, want %q", got, want[1:])
		}
		c.clock.advance(time.Minute)
		if got := c.leftovers(); !slices.Equal(got, []string{want[1], want[2], want[0]}) {
			t.Errorf("a minute later: %q, want all", got)
		}
		want = []string{want[1], want[2], want[0]}
		if got, err := c.Leftovers(t.Context(), 2); err != nil || len(got) != 2 || got[1].Prefix() != want[1] {
			t.Errorf("limit 2 gives %v (%v)", got, err)
		}
	})
}

// TestUploads: an attempt's multipart uploads are kept with it, whoever ends it.
func TestUploads(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		_, job := c.saving(mine)
		a := attemptOf(job)
		must(t, c.RecordUpload(t.Context(), job, a.Disk(), "u1"))
		must(t, c.RecordUpload(t.Context(), job, a.Disk(), "u2"))
		must(t, c.RecordUpload(t.Context(), job, a.Bitmap(), "u3"))
		later := job
		later.Attempt++
		for key, who := range map[string]ims.Job{attemptOf(later).Disk(): job, "elsewhere": job, a.Disk(): later} {
			if err := c.RecordUpload(t.Context(), who, key, "u4"); err == nil {
				t.Errorf("an upload of %s was recorded for attempt %d", key, who.Attempt)
			}
		}
		must(t, c.Release(t.Context(), job, 1))
		wantError(t, c.RecordUpload(t.Context(), job, a.Disk(), "u5"), ErrFenced)
		list, err := c.Leftovers(t.Context(), 10)
		must(t, err)
		want := []AttemptUpload{{a.Disk(), "u1"}, {a.Disk(), "u2"}, {a.Bitmap(), "u3"}}
		if len(list) != 1 || !slices.Equal(list[0].Uploads, want) {
			t.Errorf("leftovers %+v, want one with the uploads %v", list, want)
		}
	})
}

func attemptNamed(t *testing.T, prefix string) imagearea.Attempt {
	t.Helper()
	a, ok := imagearea.ParsePrefix(prefix)
	if !ok {
		t.Fatalf("%q is no attempt's prefix", prefix)
	}
	return a
}
