package recent_test

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

// Those last used stay, whether they were put or got.
func TestCache(t *testing.T) {
	t.Parallel()
	c := recent.New[string](10)
	c.Put("a", make([]byte, 4))
	c.Put("b", make([]byte, 4))
	c.Get("a")
	c.Put("c", make([]byte, 4))
	if c.Get("a") == nil || c.Get("b") != nil || c.Get("c") == nil {
		t.Error("other pieces stayed than those last used")
	}
	c.Put("a", make([]byte, 1))
	if len(c.Get("a")) != 4 {
		t.Error("what was there did not stay")
	}
	c.Put("large", make([]byte, 11))
	if c.Get("a") != nil || c.Get("c") != nil || len(c.Get("large")) != 11 {
		t.Error("a piece larger than the cache is not the only one")
	}
	c.Put("d", make([]byte, 10))
	if c.Get("large") != nil || c.Get("d") == nil {
		t.Error("the large piece stayed")
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	const size = 2*recent.PageSize + 100
	file := make([]byte, size)
	disktest.Fill(file, 1)
	other := bytes.Repeat([]byte{7}, size)
	r := &disktest.Counter{R: bytes.NewReader(file)}
	p := recent.NewPages(3 * recent.PageSize)
	for _, off := range []int64{0, 5, recent.PageSize - 1, recent.PageSize, size - 1} {
		b, err := p.At(0, r, size, off)
		end := min(size, (off/recent.PageSize+1)*recent.PageSize)
		if err != nil || !bytes.Equal(b, file[off:end]) {
			t.Errorf("at %d: %d bytes, %v", off, len(b), err)
		}
	}
	if n := len(r.Reads()); n != 3 {
		t.Errorf("%d reads of three pages", n)
	}
	if b, err := p.At(1, bytes.NewReader(other), size, 3); err != nil || b[0] != 7 {
		t.Errorf("another file: %v, %v", b[0], err)
	}
	if _, err := p.At(2, bytes.NewReader(file[:10]), size, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that is shorter than was said: %v", err)
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	file := make([]byte, 20*recent.PageSize)
	disktest.Fill(file, 2)
	p := recent.NewPages(4 * recent.PageSize)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 200 {
				off := int64((i*7+k*13)%20) * recent.PageSize
				if b, err := p.At(0, bytes.NewReader(file), int64(len(file)), off); err != nil || !bytes.Equal(b, file[off:off+recent.PageSize]) {
					t.Errorf("at %d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
}
