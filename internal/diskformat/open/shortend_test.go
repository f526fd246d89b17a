package open_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

// shortEnds are formats whose last unit, of that length, may lack its end. QEMU refuses a
// VHD that lacks more than its footer, and a VHDX.
var shortEnds = []struct {
	name   string
	format string // qemu-img's
	args   []string
	unit   int64
}{
	{"qcow2", "qcow2", nil, 64 << 10},
	{"qcow2, small clusters", "qcow2", []string{"-o", "cluster_size=4k"}, 4 << 10},
	{"qcow2, subclusters", "qcow2", []string{"-o", "extended_l2=on,cluster_size=64k"}, 64 << 10},
	{"VDI", "vdi", nil, 1 << 20},
	{"VMDK", "vmdk", nil, 64 << 10},
}

func noteIDs(notes []diskformat.Note) (ids string) {
	for _, n := range notes {
		ids += " " + n.ID
	}
	return strings.TrimSpace(ids)
}

// A file that ends within its last unit is read as QEMU reads it, and says so; whole it
// says nothing, and cut before that unit it is refused.
func TestShortEnd(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	disk := make([]byte, 6<<20)
	disktest.Fill(disk, 7)
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(name string) (*open.Disk, []byte, error) {
		src := (&folder{t: t, dir: dir}).source(name)
		d, err := open.Open(src, "")
		if err != nil {
			return nil, nil, err
		}
		got := make([]byte, d.Size())
		if err := diskformat.ReadFull(d, got, 0); err != nil {
			return nil, nil, err
		}
		return d, got, nil
	}
	for _, c := range shortEnds {
		args := append([]string{"convert", "-f", "raw", "-O", c.format}, c.args...)
		qemutest.Img(t, dir, append(args, "disk.raw", "whole")...)
		whole, err := os.ReadFile(filepath.Join(dir, "whole"))
		if err != nil {
			t.Fatal(err)
		}
		d, got, err := read("whole")
		if err != nil || !bytes.Equal(got, disk) || len(d.Notes()) > 0 {
			t.Fatalf("%s, whole: %v, %v", c.name, err, d.Notes())
		}
		for _, cut := range []int64{1, 511, 512, 1000, c.unit / 2, c.unit - 512} {
			if err := os.WriteFile(filepath.Join(dir, "cut"), whole[:int64(len(whole))-cut], 0o600); err != nil {
				t.Fatal(err)
			}
			d, got, err := read("cut")
			if err != nil {
				t.Errorf("%s, %d bytes less: %v", c.name, cut, err)
				continue
			}
			qemutest.Img(t, dir, "convert", "-f", c.format, "-O", "raw", "cut", "qemu.raw")
			want, err := os.ReadFile(filepath.Join(dir, "qemu.raw"))
			if err != nil || !bytes.Equal(got, want) || bytes.Equal(got, disk) {
				t.Errorf("%s, %d bytes less: QEMU reads another disk, %v", c.name, cut, err)
			}
			if ids := noteIDs(d.Notes()); !strings.Contains(ids, diskformat.NoteShortEnd) {
				t.Errorf("%s, %d bytes less: its notes are %q", c.name, cut, ids)
			}
			// A look at the tables is enough to know.
			mapped, err := open.Open((&folder{t: t, dir: dir}).source("cut"), "")
			if err != nil {
				t.Fatal(err)
			}
			all, err := disktest.Extents(mapped.Map(t.Context()))
			if err != nil || all[len(all)-1].End() != mapped.Size() || !strings.Contains(noteIDs(mapped.Notes()), diskformat.NoteShortEnd) {
				t.Errorf("%s, %d bytes less: mapped to %+v, %v; notes %v", c.name, cut, all, err, mapped.Notes())
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cut"), whole[:int64(len(whole))-c.unit-512-1], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := read("cut"); !errors.Is(err, diskformat.ErrIncomplete) {
			t.Errorf("%s, cut before its last unit: %v", c.name, err)
		}
	}
}

// A new qcow2 file ends within a cluster, of the L1 table, as QEMU makes it; compressed
// clusters end where they end. Neither is worth a word.
func TestUsualEnds(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	disk := make([]byte, 1<<20)
	disktest.Fill(disk[:700<<10], 7)
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	qemutest.Img(t, dir, "create", "-f", "qcow2", "new", "10M")
	qemutest.Img(t, dir, "convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "packed")
	qemutest.Img(t, dir, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk.raw", "stream")
	for _, name := range []string{"new", "packed", "stream"} {
		d, err := open.Open((&folder{t: t, dir: dir}).source(name), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := disktest.Extents(d.Map(t.Context())); err != nil || len(d.Notes()) > 0 {
			t.Errorf("%s: %v, %v", name, err, d.Notes())
		}
		if err := diskformat.ReadFull(d, make([]byte, d.Size()), 0); err != nil || len(d.Notes()) > 0 {
			t.Errorf("%s, read: %v, %v", name, err, d.Notes())
		}
	}
}

// What the backing disk's reader noticed is noticed of the disk.
func TestNotesOfBackingFiles(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	qemutest.Img(t, dir, "create", "-f", "vpc", "-o", "force_size=on", "base", "4M")
	b, err := os.ReadFile(filepath.Join(dir, "base"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "base"), b[:len(b)-512], 0o600); err != nil { // no footer
		t.Fatal(err)
	}
	qemutest.Img(t, dir, "create", "-f", "qcow2", "-u", "-b", "base", "-F", "vpc", "top", "4M")
	d, err := open.Open((&folder{t: t, dir: dir}).source("top"), "")
	if err != nil || noteIDs(d.Notes()) != diskformat.NoteFooter {
		t.Errorf("%v, %v", err, d.Notes())
	}
}
