package bitmap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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

// A file without holes in the page cache: to make its map beside to read it once, on
// one core, as cat does.
func BenchmarkFile(b *testing.B) {
	const size = 256 << 20
	f, err := os.Create(filepath.Join(b.TempDir(), "disk.raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	disk := make([]byte, BlockSize)
	for off := int64(0); off < size; off += BlockSize {
		disktest.Fill(disk, uint64(off))
		disk[0] = 1
		if _, err := f.WriteAt(disk, off); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("build", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			m, err := Build(b.Context(), f, size, Options{})
			if err != nil || m.DataBlocks() != m.Blocks() {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(size)
		buf := make([]byte, piece)
		for b.Loop() {
			for off := int64(0); off < size; off += piece {
				if _, err := f.ReadAt(buf, off); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// What is done for each random read.
func BenchmarkCheckUnitSums(b *testing.B) {
	for _, last := range []bool{false, true} {
		raw := make([]byte, BlockSize)
		if last {
			raw = raw[:BlockSize-700]
		}
		disktest.Fill(raw, 1)
		m, err := Build(b.Context(), bytes.NewReader(raw), int64(len(raw)), Options{})
		if err != nil {
			b.Fatal(err)
		}
		sums := m.units[0].encode()
		b.Run(fmt.Sprintf("short=%v", last), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := m.CheckUnitSums(sums[:], 0); err != nil {
					b.Fatal(err)
				}
			}
		})
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
