package qcow_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/qcow"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/fuzztest"
)

// Whatever qemu-img and qemu-io make is read as qemu-img reads it.
func TestLikeQEMU(t *testing.T) {
	qemutest.Judge(t, "qcow", func(t *rapid.T, dir string) {
		r := qemutest.Recipe{Format: "qcow", Size: 4096 * rapid.Int64Range(1, 1<<13).Draw(t, "clusters")}
		kinds := []qemutest.Kind{qemutest.Write, qemutest.Plain, qemutest.Nothing}
		// QEMU's convert makes no compressed files of this format, its qemu-io does.
		if r.Convert = rapid.Bool().Draw(t, "convert"); !r.Convert {
			kinds = append(kinds, qemutest.Compress)
		}
		r.Ops = qemutest.DrawOps(t, r.Size, 4<<10, 2<<20, 8, kinds...)
		for i := range r.Ops {
			if r.Ops[i].Kind == qemutest.Compress {
				r.Ops[i].Len = 4 << 10 // QEMU compresses one cluster at a time
			}
		}
		path := qemutest.Make(t, dir, "disk", r)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := qcow.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() != r.Size {
			t.Fatalf("the disk has %d bytes, %d were made", img.Size(), r.Size)
		}
		if err := qemutest.Check(img, qemutest.Raw(t, path, "qcow"), rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}

// made is a file with an L1 table of one entry, one L2 table, a plain cluster, a
// hole and a compressed cluster, 512 bytes each.
func made() []byte {
	b := make([]byte, 4096)
	be := binary.BigEndian
	copy(b, "QFI\xfb\x00\x00\x00\x01")
	be.PutUint64(b[24:], 3*512)
	b[32], b[33] = 9, 6
	be.PutUint64(b[40:], 512)   // L1
	be.PutUint64(b[512:], 1024) // L2
	be.PutUint64(b[1024:], 2048)
	disktest.Fill(b[2048:2560], 1)
	packed := []byte{0x01, 0x00, 0x02, 0xff, 0xfd} // stored deflate block of 512 bytes
	copy(b[2560:], packed)
	disktest.Fill(b[2565:3077], 2)
	be.PutUint64(b[1024+16:], 1<<63|2560)
	return b
}

// A header or a table that cannot be right is an error that names the field. The
// file that is poked has a compressed cluster of no bytes.
func TestHostile(t *testing.T) {
	t.Parallel()
	be := binary.BigEndian
	for _, c := range []struct {
		name  string
		poke  func(b []byte) []byte
		kind  error
		words string
	}{
		{"cut in the header", func(b []byte) []byte { return b[:40] }, diskformat.ErrIncomplete, "header"},
		{"another version", func(b []byte) []byte { b[7] = 2; return b }, diskformat.ErrWrongFormat, "magic"},
		{"a backing file", func(b []byte) []byte { b[15] = 48; return b }, diskformat.ErrUnsupported, "backing"},
		{"encrypted", func(b []byte) []byte { b[39] = 1; return b }, diskformat.ErrUnsupported, "encrypted"},
		{"clusters of 256 bytes", func(b []byte) []byte { b[32] = 8; return b }, diskformat.ErrUnsupported, "cluster_bits"},
		{"clusters of 2^255 bytes", func(b []byte) []byte { b[32] = 255; return b }, diskformat.ErrUnsupported, "cluster_bits"},
		{"tables of 2^255 entries", func(b []byte) []byte { b[33] = 255; return b }, diskformat.ErrUnsupported, "l2_bits"},
		{"a giant disk", func(b []byte) []byte { be.PutUint64(b[24:], 1<<63); return b }, diskformat.ErrUnsupported, "size"},
		{"half a sector", func(b []byte) []byte { be.PutUint64(b[24:], 100); return b }, diskformat.ErrCorrupt, "size"},
		{"L1 beyond the file", func(b []byte) []byte { be.PutUint64(b[40:], 1<<40); return b }, diskformat.ErrIncomplete, "l1_table"},
		{"L1 at the end", func(b []byte) []byte { be.PutUint64(b[40:], 4092); return b }, diskformat.ErrIncomplete, "L1"},
		{"L2 beyond the file", func(b []byte) []byte { be.PutUint64(b[512:], 1<<62); return b }, diskformat.ErrIncomplete, "L1 table"},
		{"L2 at an odd place", func(b []byte) []byte { be.PutUint64(b[512:], 1025); return b }, diskformat.ErrCorrupt, "L1 table"},
		{"a cluster beyond the file", func(b []byte) []byte { be.PutUint64(b[1024:], 4000); return b }, diskformat.ErrIncomplete, "cluster"},
		{"a cluster beyond any file", func(b []byte) []byte { be.PutUint64(b[1024:], 1<<62+512); return b }, diskformat.ErrCorrupt, "L2"},
		{"a compressed cluster of no bytes", func(b []byte) []byte { return b }, diskformat.ErrCorrupt, "no bytes"},
		{"a compressed cluster that is none", func(b []byte) []byte {
			be.PutUint64(b[1024+16:], 1<<63|100<<54|2048)
			return b
		}, diskformat.ErrCorrupt, "compressed"},
	} {
		b := c.poke(made())
		f, err := qcow.Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = f.ReadAt(make([]byte, 3*512), 0)
		}
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(made())
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		img, err := qcow.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		p := make([]byte, 4096)
		for _, off := range []int64{0, 100, img.Size() / 2, img.Size() - 512} {
			if off >= 0 {
				if n, err := img.ReadAt(p, off); err == nil && n != len(p) || err == io.EOF && off+int64(n) != img.Size() {
					t.Errorf("%d bytes at %d of %d: %v", n, off, img.Size(), err)
				}
			}
		}
		at := int64(0)
		for e, err := range img.Map(t.Context()) {
			if err != nil || at > 1<<30 {
				break
			}
			if e.Offset != at || e.Length <= 0 {
				t.Fatalf("the extent %+v follows what ends at %d", e, at)
			}
			at = e.End()
		}
	})
}
