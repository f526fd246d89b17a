package open_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// folder opens files of a folder by their names, and counts.
type folder struct {
	t      testing.TB
	dir    string
	opened []string
}

func (f *folder) source(name string) open.Source {
	f.t.Helper()
	file, err := os.Open(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { file.Close() })
	info, err := file.Stat()
	if err != nil {
		f.t.Fatal(err)
	}
	return open.Source{ReaderAt: file, Size: info.Size(), Beside: func(role open.Role, name string) (open.Source, error) {
		f.opened = append(f.opened, fmt.Sprint(role, name))
		return f.source(name), nil
	}}
}

// formats are those of qemu-img convert that keep a disk's size.
var formats = []struct {
	want diskformat.Format
	args []string
}{
	{diskformat.QCOW2, []string{"qcow2"}},
	{diskformat.VMDK, []string{"vmdk"}},
	{diskformat.VMDK, []string{"vmdk", "-o", "subformat=monolithicFlat"}},
	{diskformat.VHD, []string{"vpc", "-o", "force_size=on"}},
	{diskformat.VHDX, []string{"vhdx"}},
	{diskformat.VDI, []string{"vdi"}},
	{diskformat.Raw, []string{"raw"}},
}

// Every format is opened by its content, and holds the disk.
func TestEveryFormat(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	raw := disktest.Fixture(t, "c.raw")
	if err := os.WriteFile(filepath.Join(dir, "c.raw"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(name string, want diskformat.Format) {
		t.Helper()
		src := (&folder{t: t, dir: dir}).source(name)
		for _, forced := range []diskformat.Format{"", want} {
			d, err := open.Open(src, forced)
			if err != nil || d.Format != want || d.OrigSize != int64(len(raw)) || d.Depth != 0 {
				t.Fatalf("%s as %q: %v, %+v", name, forced, err, d)
			}
			got := make([]byte, len(raw))
			for e, err := range d.Data(t.Context()) {
				if err != nil || !e.Data || e.End() > d.OrigSize {
					t.Fatalf("%s: %+v, %v", name, e, err)
				}
				if err := diskformat.ReadFull(d, got[e.Offset:e.End()], e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, raw) {
				t.Errorf("%s holds another disk", name)
			}
		}
		// What is forced must be so, but raw takes it all.
		other := diskformat.VDI
		if want == other {
			other = diskformat.VHDX
		}
		if _, err := open.Open(src, other); !errors.Is(err, diskformat.ErrWrongFormat) {
			t.Errorf("%s as %s: %v", name, other, err)
		}
		if d, err := open.Open(src, diskformat.Raw); err != nil || d.Size() != src.Size {
			t.Errorf("%s as raw: %v", name, err)
		}
	}
	for i, f := range formats {
		name := fmt.Sprintf("disk%d", i)
		qemutest.Img(t, dir, append(append([]string{"convert", "-f", "raw", "-O"}, f.args...), "c.raw", name)...)
		check(name, f.want)
	}
	var v1, v2 bytes.Buffer
	if _, err := zvhd.Convert(t.Context(), &v1, bytes.NewReader(raw), int64(len(raw)), zvhd.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := zvhd2.Convert(t.Context(), &v2, bytes.NewReader(raw), int64(len(raw)), zvhd2.ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"v1": v1.Bytes(), "v2": v2.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("v1", diskformat.ZVHD)
	check("v2", diskformat.ZVHD2)
}

func TestBackingFiles(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	qemutest.Img(t, dir, "create", "-f", "raw", "base", "4M")
	qemutest.IO(t, dir, "-f", "raw", "-c", "write -P 1 0 1M", "base")
	qemutest.Img(t, dir, "create", "-f", "qcow2", "-b", "base", "-F", "raw", "mid")
	qemutest.IO(t, dir, "-f", "qcow2", "-c", "write -P 2 1M 1M", "mid")
	qemutest.Img(t, dir, "create", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top")
	f := &folder{t: t, dir: dir}
	d, err := open.Open(f.source("top"), "")
	if err != nil || d.Depth != 2 {
		t.Fatalf("%v, %+v", err, d)
	}
	p := make([]byte, 4<<20)
	if err := diskformat.ReadFull(d, p, 0); err != nil || p[0] != 1 || p[1<<20] != 2 || p[2<<20] != 0 {
		t.Errorf("%v; %d, %d, %d", err, p[0], p[1<<20], p[2<<20])
	}
	// Nobody may open them.
	src := f.source("top")
	src.Beside = nil
	if _, err := open.Open(src, ""); !errors.Is(err, open.ErrRefused) || !errors.Is(err, diskformat.ErrUnsupported) || !strings.Contains(err.Error(), "mid") {
		t.Errorf("without leave: %v", err)
	}
	// A backing file that names itself ends somewhere.
	qemutest.Img(t, dir, "rebase", "-u", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "mid")
	f.opened = nil
	if _, err := open.Open(f.source("top"), ""); !errors.Is(err, diskformat.ErrUnsupported) || len(f.opened) > open.MaxDepth {
		t.Errorf("after %d files: %v", len(f.opened), err)
	}
}

// A guest can write what it likes into a RAW disk, a qcow2 header too. If the file
// above does not tell the format, that header is believed, but opens nothing.
func TestProbedBackingFileNamesNothing(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), bytes.Repeat([]byte("secret! "), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	qemutest.Img(t, dir, "create", "-f", "qcow2", "-b", "secret", "-F", "raw", "guest")
	qemutest.Img(t, dir, "create", "-f", "qcow2", "-b", "guest", "-F", "qcow2", "top")
	path := filepath.Join(dir, "top")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The header extension that tells the backing file's format (QEMU's interop
	// document "qcow2") becomes one that nobody knows.
	at := bytes.Index(b[:4096], []byte{0xe2, 0x79, 0x2a, 0xca})
	if at < 0 {
		t.Fatal("no backing format in the header")
	}
	binary.BigEndian.PutUint32(b[at:], 0x12345678)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &folder{t: t, dir: dir}
	if _, err := open.Open(f.source("top"), ""); !errors.Is(err, open.ErrRefused) || len(f.opened) != 1 {
		t.Errorf("%v; opened %q", err, f.opened)
	}
}

func TestWhatIsNotRead(t *testing.T) {
	t.Parallel()
	gz := open.Source{ReaderAt: strings.NewReader("\x1f\x8b\x08" + strings.Repeat("x", 1000)), Size: 1003}
	if _, err := open.Open(gz, ""); !errors.Is(err, diskformat.ErrUnsupported) {
		t.Errorf("gzip: %v", err)
	}
	for name, want := range map[string]diskformat.Format{"QCOW2": diskformat.QCOW2, "vpc": diskformat.VHD, "vhd": diskformat.VHD, "raw": diskformat.Raw} {
		if f, err := open.ParseFormat(name); f != want || err != nil {
			t.Errorf("%s: %s, %v", name, f, err)
		}
	}
	for _, name := range []string{"", "gzip", "parallels", "raw "} {
		if f, err := open.ParseFormat(name); err == nil {
			t.Errorf("%q is %s", name, f)
		}
	}
}

// The extents of a RAW file cover it, in turn data and hole.
func TestMapOfRaw(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	f := disktest.SparseFile(t, size)
	for _, off := range []int64{0, 10 << 20, 11 << 20, 63 << 20} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), off); err != nil {
			t.Fatal(err)
		}
	}
	d, err := open.Open(open.Source{ReaderAt: f, Size: size}, "")
	if err != nil {
		t.Fatal(err)
	}
	at, last, n := int64(0), diskformat.Extent{}, 0
	for e, err := range d.Map(t.Context()) {
		n++
		if err != nil || e.Offset != at || e.Length <= 0 || at > 0 && e.Data == last.Data {
			t.Errorf("%+v after %+v: %v", e, last, err)
		}
		at, last = e.End(), e
	}
	if at != size {
		t.Errorf("it ends at %d", at)
	}
	if n != 5 && n != 1 { // 1: a file system that can't tell
		t.Errorf("%d extents", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range d.Map(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %+v, %v", e, err)
		}
	}
}
