package zvhd2

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// benchDisk is like a system disk: text and tables that compress about three
// to one, some that does not, and zeros.
func benchDisk(size int) []byte {
	raw := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 500)
	for i := range words {
		words[i] = make([]byte, 2+r.IntN(14))
		for j := range words[i] {
			words[i][j] = byte('a' + r.IntN(26))
		}
	}
	for off := 0; off < size; off += 64 << 10 {
		p := raw[off:min(size, off+64<<10)]
		switch k := r.IntN(10); {
		case k < 1:
		case k < 2:
			for i := range p {
				p[i] = byte(r.Uint32())
			}
		default:
			for len(p) > 0 {
				n := copy(p, words[r.IntN(len(words))])
				p = p[n:]
			}
		}
	}
	return raw
}

func BenchmarkConvert(b *testing.B) {
	raw := benchDisk(128 << 20)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := Convert(b.Context(), io.Discard, bytes.NewReader(raw), int64(len(raw)), ConvertOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(raw))/float64(s.FileSize), "ratio")
	}
}

func BenchmarkExtract(b *testing.B) {
	raw := benchDisk(128 << 20)
	f := mustOpen(b, convertBytes(b, raw, Options{}))
	out := disktest.SparseFile(b, 0)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Extract(b.Context(), out, ExtractOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen1TiB(b *testing.B) {
	src, size := layoutOf{blocks: 512 << 10, blockSize: 2 << 20, recLen: 4096, ext: true}.file()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(src, size); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRandomRead(b *testing.B) {
	raw := benchDisk(64 << 20)
	f := mustOpen(b, convertBytes(b, raw, Options{}))
	p := make([]byte, 4096)
	i := int64(0)
	b.SetBytes(DefaultBlockSize) // a block is decoded for each
	for b.Loop() {
		if _, err := f.ReadAt(p, (i*7919<<12)%int64(len(raw))); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
