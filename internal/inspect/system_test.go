package inspect_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/inspect"
)

// system makes a disk with a partition table and a Debian in ext4, whose fstab names a
// disk that is not there.
func system(t *testing.T) []byte {
	t.Helper()
	return disk(t, `printf 'label: gpt\nstart=2048, size=12288, type=linux\n' | sfdisk -q disk
		mkdir -p root/etc root/usr/lib root/bin
		printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n' >root/usr/lib/os-release
		ln -s ../usr/lib/os-release root/etc/os-release
		printf 'LABEL=r / ext4 defaults 0 1\n/dev/sdb1 /data ext4 defaults 0 2\n' >root/etc/fstab
		mke2fs -q -F -t ext4 -L r -E offset=1048576 -d root disk 6M 2>&1 | grep -v '^$' || true`)
}

// reads counts the reads of a file.
type reads struct {
	io.ReaderAt
	n atomic.Int64
}

func (r *reads) ReadAt(p []byte, off int64) (int, error) {
	r.n.Add(1)
	return r.ReaderAt.ReadAt(p, off)
}

// The service learns the system and what is wrong with it from a few reads, of RAW and
// of ZVHD2.
func TestSystem(t *testing.T) {
	t.Parallel()
	raw := system(t)
	var packed bytes.Buffer
	if _, err := zvhd2.Convert(t.Context(), &packed, bytes.NewReader(raw), int64(len(raw)), zvhd2.ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"raw": raw, "zvhd2": packed.Bytes()} {
		counted := &reads{ReaderAt: bytes.NewReader(b)}
		found, err := inspect.QuickImport(t.Context(), inspect.File{Name: name, ReaderAt: counted, Size: int64(len(b))}, inspect.Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := counted.n.Load()
		report := found.System(t.Context())
		notes := inspect.SystemNotes(report)
		if report.OSVersion != "Debian GNU/Linux 12.0.0 64bit" || ids(notes) != "fstab boot-mode" || !strings.Contains(notes[0].Text, "/dev/sdb1 for /data is on another disk") || !strings.Contains(notes[0].Text, "nofail") {
			t.Errorf("%s: %q, %+v", name, report.OSVersion, notes)
		}
		if n := counted.n.Load() - before; n > 40 {
			t.Errorf("%s: %d reads", name, n)
		}
	}
}

// limited fails after a number of reads.
type limited struct {
	r    io.ReaderAt
	left int
}

func (l *limited) ReadAt(p []byte, off int64) (int, error) {
	if l.left--; l.left < 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return l.r.ReadAt(p, off)
}

// However few reads there are, nothing is said that more reads would not say.
func TestSystemSaysNothingUncertain(t *testing.T) {
	t.Parallel()
	raw := system(t)
	whole := map[string]bool{}
	for reads := 60; reads >= 0; reads-- {
		found := inspect.Found{Format: diskformat.Raw, VirtualSize: int64(len(raw)), Disk: &limited{bytes.NewReader(raw), reads}}
		report := found.System(t.Context())
		for _, n := range inspect.SystemNotes(report) {
			if reads == 60 {
				whole[n.Text] = true
			} else if !whole[n.Text] {
				t.Errorf("after %d reads: %s", reads, n.Text)
			}
		}
		if v := report.OSVersion; v != "" && v != "Debian GNU/Linux 12.0.0 64bit" {
			t.Errorf("after %d reads the system is %q", reads, v)
		}
	}
	if len(whole) != 2 {
		t.Errorf("the notes are %v", whole)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report := (inspect.Found{VirtualSize: int64(len(raw)), Disk: bytes.NewReader(raw)}).System(ctx); len(report.Findings) > 0 {
		t.Errorf("a cancelled look finds %+v", report.Findings)
	}
}

// A disk of nothing known has no findings on its system.
func TestSystemOfNoDisk(t *testing.T) {
	t.Parallel()
	b := with(0, "")
	found, err := judge(t, b, inspect.Options{})
	if err != nil || ids(found.Notes) != diskformat.NoteNoContent || len(inspect.SystemNotes(found.System(t.Context()))) > 0 {
		t.Errorf("%+v, %v, %+v", found.Notes, err, found.System(t.Context()))
	}
}
