package bitmap

import (
	"bytes"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

func BenchmarkBuild(b *testing.B) {
	raw := make([]byte, 256<<20)
	for off := 0; off < len(raw); off += 4 << 20 {
		disktest.Fill(raw[off:off+2<<20], uint64(off))
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Build(b.Context(), bytes.NewReader(raw), int64(len(raw)), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// A sparse disk of 1 TiB with nothing in it.
func BenchmarkBuild1TiBSparse(b *testing.B) {
	f := disktest.SparseFile(b, 1<<40)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(b.Context(), f, 1<<40, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
