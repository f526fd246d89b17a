package open_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

// allocated are files whose data was given its place beforehand, or has one because
// the format wants it: most of what their tables call stored are holes of the file.
var allocated = []struct{ format, option string }{
	{"raw", "preallocation=off"},
	{"qcow2", "preallocation=metadata"},
	{"qcow2", "preallocation=metadata,extended_l2=on,cluster_size=128k"},
	{"vpc", "subformat=fixed,force_size=on"},
	{"vdi", "static=on"},
	{"vmdk", "subformat=monolithicFlat"},
	{"vhdx", "subformat=fixed"},
}

// mapped opens the disk at path and returns its extents.
func mapped(t *rapid.T, path string) []diskformat.Extent {
	t.Helper()
	source := func(name string) (open.Source, error) {
		f, err := os.Open(name)
		if err != nil {
			return open.Source{}, err
		}
		t.Cleanup(func() { f.Close() })
		st, err := f.Stat()
		return open.Source{ReaderAt: f, Size: st.Size()}, err
	}
	src, err := source(path)
	if err != nil {
		t.Fatal(err)
	}
	src.Beside = func(_ open.Role, name string) (open.Source, error) {
		return source(path[:len(path)-len("disk")] + name)
	}
	d, err := open.Open(src, "")
	if err != nil {
		t.Fatal(err)
	}
	all, err := disktest.Extents(d.Map(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Where data lies, the file system's holes say too: what qemu-img map calls zero is
// a hole.
func TestHolesOfTheFile(t *testing.T) {
	qemutest.Run(t, 4, func(t *rapid.T, dir string) {
		for _, c := range allocated {
			r := qemutest.Recipe{Format: c.format, Options: []string{c.option}, Size: 512 * rapid.Int64Range(8192, 200_000).Draw(t, "sectors")}
			r.Ops = qemutest.DrawOps(t, r.Size, 64<<10, 1<<20, 5, qemutest.Write, qemutest.Plain)
			all := mapped(t, qemutest.Make(t, dir, "disk", r))
			if c.format == "vhdx" { // qemu-img map calls all of it data
				data := int64(0)
				for _, e := range all {
					if e.Data {
						data += e.Length
					}
				}
				if most := int64(len(r.Ops)) * (1<<20 + 2*4096); data > most {
					t.Errorf("%s, %s: %d bytes of data, %d were written", c.format, c.option, data, most)
				}
				continue
			}
			var said []struct {
				Start, Length int64
				Zero          bool
			}
			text := qemutest.Img(t, dir, "map", "--output=json", "-f", c.format, "disk")
			if err := json.Unmarshal([]byte(text), &said); err != nil {
				t.Fatal(err)
			}
			var want []diskformat.Extent
			for _, s := range said {
				if n := len(want); n > 0 && want[n-1].Data == !s.Zero {
					want[n-1].Length += s.Length
				} else {
					want = append(want, diskformat.Extent{Offset: s.Start, Length: s.Length, Data: !s.Zero})
				}
			}
			if !slices.Equal(all, want) {
				t.Errorf("%s, %s: %+v, qemu-img says %+v", c.format, c.option, all, want)
			}
			if err := os.RemoveAll(dir + "/disk"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
