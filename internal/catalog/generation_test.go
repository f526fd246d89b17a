package catalog

import (
	"slices"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// TestGeneration: an image keeps the name of its bytes from its pin through every attempt
// and its adoption; another source, or another image, gets another name.
func TestGeneration(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		queued, job := c.accept(mine)
		if g := queued.Data.Generation; g != "" {
			t.Errorf("an image without data has the generation %q", g)
		}
		job = c.claim(job.ID)
		must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
		first := c.image(mine, job.ImageID).Data.Generation
		c.clock.advance(lease + time.Second)
		job = c.claim(job.ID)
		must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
		if again := c.image(mine, job.ImageID).Data.Generation; !ims.ValidJobID(first) || again != first {
			t.Errorf("the second attempt at the same source has the generation %q, the first %q", again, first)
		}
		c.clock.advance(lease + time.Second)
		job = c.claim(job.ID)
		other := sourceOf(job)
		other.ETag = "e9"
		must(t, c.BeginAdopt(t.Context(), job, other))
		second := c.image(mine, job.ImageID).Data.Generation
		if second == first || second == "" {
			t.Errorf("another source has the generation %q, the first %q", second, first)
		}
		must(t, c.Publish(t.Context(), job, dataOf(job)))
		if active := c.image(mine, job.ImageID).Data.Generation; active != second {
			t.Errorf("the adopted image has the generation %q, its source %q", active, second)
		}
		img, _ := c.active(mine)
		if img.Data.Generation == second {
			t.Error("two images have one generation")
		}
		third := img.Data.Generation
		there, err := c.Generations(t.Context(), []string{first, second, third})
		slices.Sort(there)
		if want := slices.Sorted(slices.Values([]string{second, third})); err != nil || !slices.Equal(there, want) {
			t.Errorf("the generations that images have are %v, right are %v (%v)", there, want, err)
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
		if there, err := c.Generations(t.Context(), []string{first, second, third}); err != nil || !slices.Equal(there, []string{second}) {
			t.Errorf("after a deletion images have the generations %v (%v)", there, err)
		}
	})
}
