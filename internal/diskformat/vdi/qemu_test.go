package vdi_test

import (
	"bytes"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/diskformat/vdi"
)

func anyRecipe(t *rapid.T) qemutest.Recipe {
	r := qemutest.Recipe{Format: "vdi"}
	sectors := int64(1 << 17) // 64 MiB
	if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
		sectors = 1 << 30 // 512 GiB
	}
	r.Size = 512 * rapid.Int64Range(1, sectors).Draw(t, "sectors")
	if r.Size <= 64<<20 && rapid.IntRange(0, 2).Draw(t, "static") == 0 {
		r.Options = []string{"static=on"}
	}
	r.Convert = rapid.IntRange(0, 3).Draw(t, "convert") == 0
	r.Ops = qemutest.DrawOps(t, r.Size, 1<<20, 4<<20, 10, qemutest.Write, qemutest.Write, qemutest.Plain, qemutest.Nothing, qemutest.Zero)
	return r
}

func openFile(t qemutest.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}

// Whatever qemu-img and qemu-io make is read as qemu-img reads it.
func TestLikeQEMU(t *testing.T) {
	qemutest.Judge(t, "vdi", func(t *rapid.T, dir string) {
		r := anyRecipe(t)
		path := qemutest.Make(t, dir, "disk", r)
		f, size := openFile(t, path)
		img, err := vdi.Open(f, size)
		if err != nil {
			t.Fatal(err)
		}
		if info := img.Info(); info.Size != r.Size || info.Static != (r.Options != nil) || info.BlockSize != 1<<20 {
			t.Fatalf("%+v", info)
		}
		raw := qemutest.Raw(t, path, "vdi")
		if err := qemutest.Check(img, raw, rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}

// A file that was cut is refused at opening, unless all that the disk needs is
// still there, or the end of the last block is all that is missing.
func TestCutFile(t *testing.T) {
	qemutest.Run(t, 2, func(t *rapid.T, dir string) {
		r := anyRecipe(t)
		r.Size = min(r.Size, 16<<20)
		r.Ops = append(r.Ops[:0:0], qemutest.Op{Kind: qemutest.Write, Off: 0, Len: r.Size})
		whole, size := openFile(t, qemutest.Make(t, dir, "disk", r))
		img, err := vdi.Open(whole, size)
		if err != nil {
			t.Fatal(err)
		}
		want, got := make([]byte, r.Size), make([]byte, r.Size)
		if _, err := img.ReadAt(want, 0); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			cut := rapid.Int64Range(0, size-1).Draw(t, "cut")
			img, err := vdi.Open(whole, cut)
			if err != nil {
				continue
			}
			n, err := img.ReadAt(got, 0)
			if len(img.Notes()) > 0 { // what lies in the file is there, the rest of one block is zero
				for i := range got {
					if got[i] != 0 && got[i] != want[i] {
						t.Fatalf("cut at %d of %d: byte %d is another one", cut, size, i)
					}
				}
				continue
			}
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Fatalf("cut at %d of %d: %v", cut, size, err)
			}
		}
	})
}
