package qed_test

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
	"github.com/quickims/quickims/internal/diskformat/qed"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/fuzztest"
)

// Whatever qemu-img and qemu-io make is read as qemu-img reads it.
func TestLikeQEMU(t *testing.T) {
	qemutest.Judge(t, "qed", func(t *rapid.T, dir string) {
		r := qemutest.Recipe{Format: "qed", Size: 512 * rapid.Int64Range(1, 1<<16).Draw(t, "sectors")}
		kinds := []qemutest.Kind{qemutest.Write, qemutest.Plain, qemutest.Nothing, qemutest.Zero}
		r.Convert = rapid.Bool().Draw(t, "convert")
		if rapid.Bool().Draw(t, "small clusters") {
			r.Options = []string{"cluster_size=4096"}
		}
		r.Ops = qemutest.DrawOps(t, r.Size, 4<<10, 2<<20, 8, kinds...)
		path := qemutest.Make(t, dir, "disk", r)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := qed.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() != r.Size {
			t.Fatalf("the disk has %d bytes, %d were made", img.Size(), r.Size)
		}
		if err := qemutest.Check(img, qemutest.Raw(t, path, "qed"), rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}

// made is a file with an L1 table of one entry, one L2 table, a plain cluster, a
// hole and a cluster of zeros, 4096 bytes each.
func made() []byte {
	b := make([]byte, 4*4096)
	le := binary.LittleEndian
	copy(b, "QED\x00")
	le.PutUint32(b[4:], 4096)
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	le.PutUint64(b[40:], 4096)
	le.PutUint64(b[48:], 3*4096)
	le.PutUint64(b[4096:], 8192)
	le.PutUint64(b[8192:], 3*4096)
	le.PutUint64(b[8192+16:], 1)
	disktest.Fill(b[3*4096:], 1)
	return b
}

// A header or a table that cannot be right is an error that names the field.
func TestHostile(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for _, c := range []struct {
		name  string
		poke  func(b []byte) []byte
		kind  error
		words string
	}{
		{"cut in the header", func(b []byte) []byte { return b[:40] }, diskformat.ErrIncomplete, "header"},
		{"no magic", func(b []byte) []byte { b[3] = 2; return b }, diskformat.ErrWrongFormat, "magic"},
		{"a backing file", func(b []byte) []byte { b[16] = 1; return b }, diskformat.ErrUnsupported, "backing"},
		{"a feature of the future", func(b []byte) []byte { b[17] = 1; return b }, diskformat.ErrUnsupported, "features"},
		{"clusters of 512 bytes", func(b []byte) []byte { le.PutUint32(b[4:], 512); return b }, diskformat.ErrUnsupported, "cluster_size"},
		{"clusters of 2 GiB", func(b []byte) []byte { le.PutUint32(b[4:], 1<<31); return b }, diskformat.ErrUnsupported, "cluster_size"},
		{"odd clusters", func(b []byte) []byte { le.PutUint32(b[4:], 5000); return b }, diskformat.ErrUnsupported, "cluster_size"},
		{"no table", func(b []byte) []byte { le.PutUint32(b[8:], 0); return b }, diskformat.ErrUnsupported, "table_size"},
		{"large tables", func(b []byte) []byte { le.PutUint32(b[8:], 1<<31); return b }, diskformat.ErrUnsupported, "table_size"},
		{"a giant disk", func(b []byte) []byte { le.PutUint64(b[48:], 1<<63); return b }, diskformat.ErrUnsupported, "image_size"},
		{"more than tables hold", func(b []byte) []byte { le.PutUint64(b[48:], 1<<40); return b }, diskformat.ErrCorrupt, "image_size"},
		{"half a sector", func(b []byte) []byte { le.PutUint64(b[48:], 100); return b }, diskformat.ErrCorrupt, "image_size"},
		{"L1 beyond the file", func(b []byte) []byte { le.PutUint64(b[40:], 1<<40); return b }, diskformat.ErrIncomplete, "l1_table"},
		{"L2 beyond the file", func(b []byte) []byte { le.PutUint64(b[4096:], 1<<62); return b }, diskformat.ErrIncomplete, "L1 table"},
		{"L2 at an odd place", func(b []byte) []byte { le.PutUint64(b[4096:], 4097); return b }, diskformat.ErrCorrupt, "L1 table"},
		{"a cluster beyond the file", func(b []byte) []byte { le.PutUint64(b[8192:], 4*4096); return b }, diskformat.ErrIncomplete, "cluster"},
		{"a cluster beyond any file", func(b []byte) []byte { le.PutUint64(b[8192:], 1<<63); return b }, diskformat.ErrCorrupt, "L2"},
		{"a cluster at an odd place", func(b []byte) []byte { le.PutUint64(b[8192:], 4097); return b }, diskformat.ErrCorrupt, "L2"},
	} {
		b := c.poke(made())
		f, err := qed.Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = f.ReadAt(make([]byte, 3*4096), 0)
		}
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(made())
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		img, err := qed.Open(bytes.NewReader(b), int64(len(b)))
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
