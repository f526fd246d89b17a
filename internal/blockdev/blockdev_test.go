package blockdev

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/ims"
)

// testDisk has random blocks, holes, and an end inside a block.
func testDisk() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	disk := make([]byte, 9<<20+512)
	for off := 0; off < len(disk); off += 2 << 20 {
		if r.IntN(3) == 0 {
			continue
		}
		for i := off; i < min(len(disk), off+2<<20); i += 4 {
			disk[i] = byte(r.Uint32())
		}
	}
	return disk
}

func TestReadsEqualTheSource(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			data := f.image(t, form, disk)
			d := f.open(t, newCache(t, f.store, Options{}), data)
			if d.Size() != data.VirtualSize {
				t.Fatalf("size %d, want %d", d.Size(), data.VirtualSize)
			}
			whole := append(bytes.Clone(disk), make([]byte, 4<<20)...) // a ZVHD2 disk has zeros beyond the source
			rapid.Check(t, func(t *rapid.T) {
				edge := rapid.SampledFrom([]int{0, 2 << 20, 4 << 20, 8 << 20, len(disk)}).Draw(t, "near")
				off := max(0, edge+rapid.IntRange(-5000, 5000).Draw(t, "by"))
				n := rapid.SampledFrom([]int{0, 1, 511, 4096, 3 << 20}).Draw(t, "length")
				p := make([]byte, n)
				got, err := d.ReadAt(p, int64(off))
				end := min(len(whole), int(d.Size()))
				want := whole[min(off, end):min(off+n, end)]
				if !bytes.Equal(p[:got], want) {
					t.Fatalf("%d bytes at %d: got %d that are not the source's (%v)", n, off, got, err)
				}
				if got < n && !errors.Is(err, io.EOF) || got == n && err != nil && !errors.Is(err, io.EOF) {
					t.Fatalf("%d bytes at %d: %d read, error %v", n, off, got, err)
				}
			})
		})
	}
}

// A hole of the bitmap costs no read.
func TestHolesAreNotFetched(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	d := f.open(t, newCache(t, f.store, Options{}), f.image(t, "raw with bitmap", make([]byte, 8<<20)))
	before := f.store.ImageReads()
	if _, err := io.Copy(io.Discard, io.NewSectionReader(d, 0, d.Size())); err != nil {
		t.Fatal(err)
	}
	if after := f.store.ImageReads(); after != before {
		t.Errorf("reading holes fetched %d bytes", after.Bytes-before.Bytes)
	}
}

// Bytes that changed under the image are an error, never other bytes.
func TestDamageIsAnError(t *testing.T) {
	t.Parallel()
	disk := bytes.Repeat([]byte("data"), 1<<20)
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			data := f.image(t, form, disk)
			path := filepath.Join(f.images, data.Key)
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt([]byte("damage"), 4096+100); err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			if form != "raw" { // with checksums even a change that hides its time is found
				if err := os.Chtimes(path, fi.ModTime(), fi.ModTime()); err != nil {
					t.Fatal(err)
				}
			}
			d, err := newCache(t, f.store, Options{}).Open(t.Context(), "image", at(data))
			if err == nil {
				_, err = io.Copy(io.Discard, io.NewSectionReader(d, 0, int64(len(disk))))
			}
			if !Damaged(err) {
				t.Errorf("damaged bytes were read with error %v, want one that says so", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	good := f.image(t, "zvhd2", testDisk())
	gone, other, format := good, good, good
	gone.Key = "not/1/there"
	other.ETag = "of other bytes"
	format.Format = "qcow2"
	size := good
	size.VirtualSize++
	for name, data := range map[string]ims.Data{"no data": {}, "gone": gone, "other bytes": other, "format": format, "size": size} {
		if _, err := newCache(t, f.store, Options{}).Open(t.Context(), "image", at(data)); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
