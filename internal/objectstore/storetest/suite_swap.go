package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
)

func testSwap(t *testing.T, h Harness) {
	ctx, loc := t.Context(), image(".swapped")
	swap := func(was, now string) error {
		var old []byte
		if was != "" {
			old = []byte(was)
		}
		return h.Store.Swap(ctx, loc, old, []byte(now))
	}
	want := func(content string) {
		t.Helper()
		if got, err := objectstore.Load(ctx, h.Store, loc); err != nil || string(got) != content {
			t.Errorf("holds %q (%v), want %q", got, err, content)
		}
	}
	wantErr(t, "swap what is not there", swap("first", "second"), objectstore.ErrChanged)
	h.wantAbsent(t, loc)
	for _, step := range []struct {
		was, now string
		want     error
		holds    string
	}{
		{"", "first", nil, "first"},
		{"", "other", objectstore.ErrChanged, "first"},
		{"", "first", nil, "first"}, // as after a lost answer
		{"first", "again", nil, "again"},
		{"first", "third", objectstore.ErrChanged, "again"}, // of the same size, from an older reader
		{"first", "again", nil, "again"},
		{"again", "a longer text", nil, "a longer text"},
	} {
		wantErr(t, fmt.Sprintf("swap %q for %q", step.was, step.now), swap(step.was, step.now), step.want)
		want(step.holds)
	}
	_, err := objectstore.Load(ctx, h.Store, image(".absent"))
	wantErr(t, "load what is not there", err, objectstore.ErrNotFound)
	wantErr(t, "swap in a bucket", h.Store.Swap(ctx, at(h.NewBucket(t), "k"), nil, []byte("x")), objectstore.ErrDenied)
	wantErr(t, "swap for nothing", swap("a longer text", ""), objectstore.ErrInvalid)
	wantErr(t, "swap for much", h.Store.Swap(ctx, loc, nil, make([]byte, 1<<20)), objectstore.ErrInvalid)
}

// testSwapTogether: of writers that know the same state one succeeds, so that a counter
// loses no step.
func testSwapTogether(t *testing.T, h Harness) {
	const writers, steps = 4, 5
	loc := image("counters/one")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for done := 0; done < steps; {
				var was []byte
				n := 0
				switch data, err := objectstore.Load(t.Context(), h.Store, loc); {
				case errors.Is(err, objectstore.ErrNotFound):
				case errors.Is(err, objectstore.ErrChanged):
					continue // replaced between the look and the read
				case err != nil:
					t.Error(err)
					return
				default:
					was = data
					fmt.Sscanf(string(data), "%d", &n)
				}
				now := []byte(strconv.Itoa(n+1) + " by " + strconv.Itoa(w))
				switch err := h.Store.Swap(t.Context(), loc, was, now); {
				case err == nil:
					done++
				case !errors.Is(err, objectstore.ErrChanged) && !errors.Is(err, objectstore.ErrUnavailable):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	data, err := objectstore.Load(t.Context(), h.Store, loc)
	n := 0
	fmt.Sscanf(string(data), "%d", &n)
	// More is fine: a step that another one followed at once may be told as lost.
	if err != nil || n < writers*steps {
		t.Errorf("counted to %q (%v), want at least %d", data, err, writers*steps)
	}
}
