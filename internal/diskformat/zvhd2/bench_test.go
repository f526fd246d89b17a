package zvhd2

import (
	"golang.org/x/sys/unix"

	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/diskformat/sparse"
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

// BenchmarkFrameSizes compresses the RAW disk that QUICKIMS_BENCH_DISK names in frames of
// several sizes, as docs/decisions/0034-framed-zvhd2.md tells: what a file grows by beside
// whole blocks, and what a unit costs to decode.
func BenchmarkFrameSizes(b *testing.B) {
	name := os.Getenv("QUICKIMS_BENCH_DISK")
	if name == "" {
		b.Skip("QUICKIMS_BENCH_DISK names no RAW disk")
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	for _, level := range []int{1, 3} {
		whole := int64(0)
		for _, size := range []int{DefaultBlockSize, 128 << 10, 64 << 10, 32 << 10} {
			b.Run(fmt.Sprintf("level=%d/frame=%dKiB", level, size>>10), func(b *testing.B) {
				enc, err := Options{Level: level, Concurrency: 1}.newEncoder(size)
				if err != nil {
					b.Fatal(err)
				}
				defer enc.Close()
				var stored, tables int64
				var blocks int
				var encoding, decoding time.Duration
				var rec []byte
				dst := make([]byte, size, size+DecodeSlack)
				plain := make([]byte, DefaultBlockSize)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				for b.Loop() {
					stored, tables, blocks, encoding, decoding = 0, 0, 0, 0, 0
					for off := 0; off < len(raw); off += DefaultBlockSize {
						clear(plain[copy(plain, raw[off:]):])
						if sparse.IsZero(plain) {
							continue
						}
						began := threadTime(b)
						if rec, err = encodeRecord(enc, size, rec[:0], 0, plain); err != nil {
							b.Fatal(err)
						}
						encoding += threadTime(b) - began
						stored, blocks = stored+int64(len(rec)), blocks+1
						if size < DefaultBlockSize {
							tables += int64(DefaultBlockSize / size * unitEntrySize)
						}
						payload := rec[zdisk.RecordHeadSize:][:le.Uint32(rec[12:])]
						began = threadTime(b)
						for len(payload) > 0 {
							_, frame, err := nextFrame(payload)
							if err == nil {
								err = decodeZstd(dst, frame)
							}
							if err != nil {
								b.Fatal(err)
							}
							payload = payload[len(frame):]
						}
						decoding += threadTime(b) - began
					}
				}
				if size == DefaultBlockSize {
					whole = stored
				}
				data := float64(blocks) * DefaultBlockSize
				b.ReportMetric(float64(stored+tables)/(1<<20), "MiB-file")
				b.ReportMetric(100*(float64(stored+tables)/float64(whole)-1), "%larger")
				b.ReportMetric(data/(1<<20)/encoding.Seconds(), "MiB/s-encoded")
				b.ReportMetric(data/(1<<20)/decoding.Seconds(), "MiB/s-decoded")
				b.ReportMetric(decoding.Seconds()*1e6/(data/float64(size)), "µs/frame")
			})
		}
	}
}

// threadTime is how much of a processor the calling thread has used, so that what else
// the machine does counts little.
func threadTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
