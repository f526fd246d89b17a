package blockdev

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// benchDisk looks to a compressor like a disk: half random, half text.
func benchDisk(size int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	disk := make([]byte, size)
	text := bytes.Repeat([]byte("lines of a log, much alike but not the same; "), 100)
	for off := 0; off < size; off += 8192 {
		r.Read(disk[off : off+4096])
		copy(disk[off+4096:off+8192], text)
	}
	return disk
}

const benchSize = 128 << 20

// benchStores are a folder and an S3 server on this machine.
func benchStores(b *testing.B) map[string]fixture {
	dir := newFixture(b)
	g := storetest.StartGateway(b)
	s3 := storeOn(b, g)
	return map[string]fixture{"dir": dir, "s3": {store: objectstore.Count(s3)}}
}

func benchForms(b *testing.B, run func(b *testing.B, f fixture, open func(b *testing.B, memory int64) *Device)) {
	disk := benchDisk(benchSize)
	for name, f := range benchStores(b) {
		for _, form := range forms {
			data := f.image(b, form, disk)
			b.Run(name+"/"+form, func(b *testing.B) {
				run(b, f, func(b *testing.B, memory int64) *Device {
					return f.open(b, newCache(b, f.store, Options{Memory: memory}), data)
				})
			})
		}
	}
}

func readAll(b *testing.B, d *Device, piece int64) {
	p := make([]byte, piece)
	for off := int64(0); off < benchSize; off += piece {
		if _, err := d.ReadAt(p, off); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}

// Reads of 4 KiB at random of what is in memory, by as many readers as there are cores.
func BenchmarkWarm4K(b *testing.B) {
	disk := benchDisk(benchSize)
	f := newFixture(b)
	for _, form := range forms {
		d := f.open(b, newCache(b, f.store, Options{}), f.image(b, form, disk))
		readAll(b, d, 1<<20)
		b.Run(form, func(b *testing.B) {
			b.SetBytes(4096)
			b.ReportAllocs()
			var seed atomic.Uint64
			b.RunParallel(func(pb *testing.PB) {
				r := rand.New(rand.NewPCG(seed.Add(1), 1))
				p := make([]byte, 4096)
				for pb.Next() {
					if _, err := d.ReadAt(p, r.Int64N(benchSize/4096)*4096); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// Reads of 4 KiB at random of what is not there, one at a time.
func BenchmarkCold4K(b *testing.B) {
	benchForms(b, func(b *testing.B, f fixture, open func(*testing.B, int64) *Device) {
		r := rand.New(rand.NewPCG(1, 1))
		before := f.store.ImageReads()
		p := make([]byte, 4096)
		d := open(b, MinMemory) // a fraction of the disk
		b.SetBytes(4096)
		b.ResetTimer()
		for range b.N {
			if _, err := d.ReadAt(p, r.Int64N(benchSize/4096)*4096); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(f.store.ImageReads().Bytes-before.Bytes)/float64(b.N)/4096, "fetched/byte")
	})
}

// A cold disk from the front to the back.
func BenchmarkSequential(b *testing.B) {
	benchForms(b, func(b *testing.B, f fixture, open func(*testing.B, int64) *Device) {
		before := f.store.ImageReads()
		b.SetBytes(benchSize)
		for range b.N {
			readAll(b, open(b, 0), 128<<10)
		}
		b.ReportMetric(float64(f.store.ImageReads().Bytes-before.Bytes)/float64(b.N)/benchSize, "fetched/byte")
	})
}

// The same with 16 readers, each of which takes the next piece.
func BenchmarkSequential16(b *testing.B) {
	benchForms(b, func(b *testing.B, f fixture, open func(*testing.B, int64) *Device) {
		const piece = 256 << 10
		b.SetBytes(benchSize)
		for range b.N {
			d := open(b, 0)
			var next atomic.Int64
			done := make(chan error)
			for range 16 {
				go func() {
					p := make([]byte, piece)
					for {
						off := (next.Add(1) - 1) * piece
						if off >= benchSize {
							done <- nil
							return
						}
						if _, err := d.ReadAt(p, off); err != nil && err != io.EOF {
							done <- err
							return
						}
					}
				}()
			}
			for range 16 {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// Opening an image and reading its first sector, with a cache that knows nothing of it.
func BenchmarkFirstByte(b *testing.B) {
	benchForms(b, func(b *testing.B, f fixture, open func(*testing.B, int64) *Device) {
		for range b.N {
			if _, err := open(b, 0).ReadAt(make([]byte, 512), 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}
