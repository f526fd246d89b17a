package zstd_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	reader "github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/zstd"
)

// Whatever is encoded, by several goroutines at once and behind what is there already,
// is read by the decoder, and says its length.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	d, err := reader.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, level := range []int{1, 3, 7, 11} {
		e, err := zstd.New(level, 3, size)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for g := range 3 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(level), uint64(g)))
				for _, n := range []int{1, 100, size - 1, size} {
					plain := make([]byte, n)
					for i := range plain {
						plain[i] = byte(rng.IntN(1 + n%7*40))
					}
					out, err := e.Encode([]byte("front"), plain)
					if err != nil {
						t.Error(err)
						return
					}
					var h reader.Header
					if err := h.Decode(out[5:]); err != nil || !h.HasFCS || h.FrameContentSize != uint64(n) || !h.HasCheckSum || !h.SingleSegment {
						t.Errorf("level %d, %d bytes: %+v, %v", level, n, h, err)
					}
					if got, err := d.DecodeAll(out[5:], nil); err != nil || !bytes.Equal(got, plain) || string(out[:5]) != "front" {
						t.Errorf("level %d, %d bytes: %v", level, n, err)
					}
				}
			})
		}
		wg.Wait()
		e.Close()
	}
	if zstd.Implementation() == "" {
		t.Error("no name")
	}
}
