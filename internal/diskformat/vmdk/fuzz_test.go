package vmdk

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/fuzztest"
)

// checkDisk checks what holds of any disk that opens: the extents cover it,
// holes are zeros, and a range reads the same however it is cut, unless it
// does not read at all.
func checkDisk(t *testing.T, f *File) {
	t.Helper()
	if f.Size() <= 0 || f.Size() > MaxSize || f.Size()%sectorSize != 0 {
		t.Fatalf("the disk has %d bytes", f.Size())
	}
	at, was, budget := int64(0), false, int64(1<<20)
	for e, err := range f.Map(t.Context()) {
		if err != nil {
			if e != (diskformat.Extent{}) {
				t.Fatalf("with the error comes %+v", e)
			}
			return
		}
		if e.Offset != at || e.Length <= 0 || at > 0 && e.Data == was {
			t.Fatalf("the extent %+v follows what ends at %d", e, at)
		}
		at, was = e.End(), e.Data
		for _, off := range []int64{e.Offset, e.End() - min(e.Length, 70_001)} {
			p := bytes.Repeat([]byte{0xee}, int(min(e.Length, 70_001)))
			if budget -= int64(len(p)); budget < 0 {
				break
			}
			n, err := f.ReadAt(p, off)
			switch {
			case err != nil && err != io.EOF:
				if !e.Data {
					t.Fatalf("the hole %+v does not read: %v", e, err)
				}
				continue
			case n != len(p):
				t.Fatalf("%d of %d bytes at %d, %v", n, len(p), off, err)
			case !e.Data && !sparse.IsZero(p):
				t.Fatalf("the hole %+v is not zero", e)
			}
			cut := len(p) / 3
			q := make([]byte, len(p))
			_, err1 := f.ReadAt(q[:cut], off)
			_, err2 := f.ReadAt(q[cut:], off+int64(cut))
			if err1 != nil || err2 != nil && err2 != io.EOF || !bytes.Equal(p, q) {
				t.Fatalf("%d bytes at %d cut after %d: %v, %v, the same: %v", len(p), off, cut, err1, err2, bytes.Equal(p, q))
			}
		}
	}
	if at != f.Size() {
		t.Fatalf("the extents end at %d of %d", at, f.Size())
	}
}

// seedDisk has 5 grains of 8 KiB, the last in part; 1 and 3 are zeros.
func seedDisk() []byte {
	d := make([]byte, 4*8192+3*sectorSize)
	for _, g := range []int{0, 2, 4} {
		copy(d[g*8192:], "grain ")
		d[g*8192+6] = byte('0' + g)
	}
	return d
}

// FuzzVMDK opens any bytes as a sparse extent, and as one of two of a disk.
func FuzzVMDK(f *testing.F) {
	for _, c := range []build{{}, {stream: true}, {zeroGrains: true}, {stream: true, short: true}} {
		c.disk, c.grain, c.small = seedDisk(), 8192, true
		f.Add(c.file())
	}
	f.Add([]byte(magicHosted))
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		if len(b) > 256<<10 {
			return // the tables of larger ones take long to go through
		}
		disk, err := openBytes(b)
		if err != nil {
			if disk != nil {
				t.Fatal("a disk with an error")
			}
			return
		}
		checkDisk(t, disk)
		x, ok := disk.parts[0].extent.(*sparseExtent)
		if !ok {
			return
		}
		// The same extent in another disk, after one that is flat.
		if x.h.size > MaxSize-sectorSize {
			return
		}
		d := &descriptor{createType: "custom", extents: []line{
			{size: sectorSize, kind: flat, file: "flat"}, {size: x.h.size, kind: sparseHosted, file: "sparse"},
		}}
		two, err := openParts(d, files{"flat": make([]byte, sectorSize), "sparse": b}.open)
		if err != nil {
			t.Fatal(err)
		}
		checkDisk(t, two)
		p, q := make([]byte, min(50_000, disk.Size())), make([]byte, min(50_000, disk.Size()))
		_, err1 := disk.ReadAt(p, 0)
		_, err2 := two.ReadAt(q, sectorSize)
		if (err1 == nil) != (err2 == nil) || err1 == nil && !bytes.Equal(p, q) {
			t.Fatalf("in a disk of two extents it is another: %v, %v", err1, err2)
		}
	})
}

// FuzzVMDKDescriptor reads any text as a descriptor, with any files to name.
func FuzzVMDKDescriptor(f *testing.F) {
	for _, c := range hostileDescriptors {
		if len(c.text) < 1000 {
			f.Add(c.text)
		}
	}
	f.Add(described("twoGbMaxExtentSparse", `RW 32 SPARSE "disk-s001.vmdk"`, `RW 32 SPARSE "disk-s002.vmdk"`))
	f.Add(described("monolithicFlat", `RW 32 FLAT "disk-flat.vmdk" 0`))
	f.Add(described("vmfs", `RW 8 VMFS "disk-flat.vmdk"`, `RDONLY 8 ZERO`))
	file := make([]byte, 16<<10)
	disktest.Fill(file, 3)
	part := build{disk: file, grain: 8192, small: true}.file()
	fuzztest.Fuzz(f, func(t *testing.T, text string) {
		opener := func(name string) (io.ReaderAt, int64, error) {
			if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\\:\x00\n\r") {
				t.Fatalf("%q was to be opened", name)
			}
			switch {
			case strings.Contains(name, "gone"):
				return nil, 0, os.ErrNotExist
			case strings.Contains(name, "-s"):
				return bytes.NewReader(part), int64(len(part)), nil
			}
			return bytes.NewReader(file), int64(len(file)), nil
		}
		if d, err := parseDescriptor([]byte(text)); err == nil {
			sum := int64(0)
			for _, l := range d.extents {
				if l.size <= 0 || l.off < 0 || (l.kind == zero) != (l.file == "") {
					t.Fatalf("%+v", l)
				}
				sum += l.size
			}
			if sum != d.size || sum > MaxSize {
				t.Fatalf("the extents have %d bytes, it says %d", sum, d.size)
			}
		}
		_, alone := Open(strings.NewReader(text), int64(len(text)), nil)
		disk, err := Open(strings.NewReader(text), int64(len(text)), opener)
		if err != nil {
			if alone == nil {
				t.Fatalf("it opens only without its files: %v", err)
			}
			return
		}
		if alone == nil && len(disk.Files()) > 0 {
			t.Fatalf("%q were opened without an opener", disk.Files())
		}
		checkDisk(t, disk)
	})
}
