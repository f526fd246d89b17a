package zvhd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/fuzztest"
)

// fuzzBlock is the size of the blocks in fuzzed files, twice the window of deflate. Of
// an execution on blocks of 2 MiB nearly all is copying.
const fuzzBlock = 2 * windowSize

// addFiles adds files in blocks of fuzzBlock as seeds.
func addFiles(f *testing.F) {
	small, rec := sampleBlocks(f, fuzzBlock)
	f.Add(small)
	f.Add(small[:rec[1]])
	f.Add(append(bytes.Clone(small[:4096]), small[:4096]...))
	// Each block refers back to the one before.
	f.Add(encodeBlocks(f, bytes.Repeat([]byte("a block of made-up text\n"), 3*fuzzBlock/24), fuzzBlock))
	// Matches of many lengths and distances, in dynamic codes.
	var text []byte
	for i := 0; len(text) < fuzzBlock/8; i++ {
		text = fmt.Appendf(text, "%x line %d of made-up text\n", i*i*i*i*i, i*i)
	}
	far := make([]byte, fuzzBlock)
	copy(far, text)
	copy(far[fuzzBlock/2-2048:], text[:2048])
	f.Add(encodeBlocks(f, far, fuzzBlock))
	f.Add([]byte(cookie))
}

func FuzzZVHD(f *testing.F) {
	addFiles(f)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		z, err := newReader(bytes.NewReader(b), fuzzBlock)
		if err != nil {
			return
		}
		end := int64(0)
		for {
			off, plain, err := z.Next()
			if err != nil {
				return
			}
			if off < end || len(plain) == 0 || off+int64(len(plain)) > z.OrigSize() {
				t.Fatalf("%d bytes at %d after %d of %d", len(plain), off, end, z.OrigSize())
			}
			end = off + int64(len(plain))
		}
	})
}

func FuzzFile(f *testing.F) {
	addFiles(f)
	p := make([]byte, 4096)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		d, err := open(bytes.NewReader(b), int64(len(b)), fuzzBlock)
		if err != nil {
			return
		}
		for e := range d.Extents() {
			if _, err := d.ReadAt(p, e.Offset); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, diskformat.ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}
