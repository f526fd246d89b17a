package importer

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

type countingReader struct {
	r     io.ReaderAt
	reads int
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.reads++
	return c.r.ReadAt(p, off)
}

func TestEdgeReaderReadsLikeItsSource(t *testing.T) {
	t.Parallel()
	all := make([]byte, 3<<20)
	r := rand.New(rand.NewPCG(5, 5))
	for i := range all {
		all[i] = byte(r.Uint32())
	}
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{1, 4096, frontBytes, tailBytes, tailBytes + 1, tailBytes + frontBytes, len(all)}).Draw(t, "size")
		src := &countingReader{r: bytes.NewReader(all[:size])}
		e := newEdgeReader(src, int64(size))
		inside := 0
		for range 10 {
			off := rapid.IntRange(0, size).Draw(t, "off")
			p := make([]byte, rapid.SampledFrom([]int{1, 512, 4096, frontBytes, tailBytes}).Draw(t, "length"))
			n, err := e.ReadAt(p, int64(off))
			want := all[off:min(off+len(p), size)]
			if !bytes.Equal(p[:n], want) || n < len(p) && err == nil {
				t.Fatalf("%d bytes at %d of %d: %d read, %v", len(p), off, size, n, err)
			}
			if off+len(p) > size || off+len(p) > frontBytes && off < size-tailBytes {
				inside++
			}
		}
		if src.reads > inside+2 {
			t.Fatalf("%d reads of the source, want at most 2 for the edges and %d for the rest", src.reads, inside)
		}
	})
}
