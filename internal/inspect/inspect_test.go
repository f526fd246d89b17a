package inspect_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/filesystem/probe"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
)

const mib = 1 << 20

// disk makes a file of 8 MiB with the command line, in which it is called disk.
func disk(t *testing.T, line string) []byte {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "-ec", "truncate -s 8M disk; "+line)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with makes a file of 8 MiB of noise with a piece in it; a negative place counts from
// the end.
func with(at int, piece string) []byte {
	b := make([]byte, 8*mib)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	if at < 0 {
		at += len(b)
	}
	copy(b[at:], piece)
	return b
}

func judge(t *testing.T, b []byte, o inspect.Options) (inspect.Found, error) {
	t.Helper()
	return inspect.QuickImport(t.Context(), inspect.File{Name: "disk.raw", ReaderAt: bytes.NewReader(b), Size: int64(len(b))}, o)
}

func ids(notes []diskformat.Note) (ids string) {
	for _, n := range notes {
		ids += n.ID + " "
	}
	return strings.TrimSpace(ids)
}

// What a RAW disk of a real tool holds is known; what holds nothing known is taken with a
// warning.
func TestContentOfRaw(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"MBR":             {disk(t, "echo ',,L' | sfdisk -q disk"), ""},
		"GPT":             {disk(t, "printf 'label: gpt\n,,U\n' | sfdisk -q disk"), ""},
		"ext4":            {disk(t, "mkfs.ext4 -q disk"), ""},
		"FAT":             {disk(t, "mkfs.vfat disk >/dev/null"), ""},
		"XFS":             {disk(t, "truncate -s 320M disk; mkfs.xfs -q disk"), ""},
		"btrfs":           {disk(t, "truncate -s 128M disk; mkfs.btrfs -q disk"), ""},
		"swap":            {disk(t, "mkswap disk"), ""},
		"swap, 64 KiB":    {disk(t, "mkswap -p 65536 disk 2>/dev/null"), ""},
		"LVM":             {with(512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001"), ""},
		"md 1.2":          {with(4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"), ""},
		"md 1.0":          {with(-8192, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"), ""},
		"md 0.90":         {with(-65536, "\xfc\x4e\x2b\xa9"), ""},
		"ZFS":             {with(128<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"), ""},
		"NTFS":            {with(0, "\xeb\x52\x90NTFS    "), ""},
		"a BSD label":     {with(512, "\x57\x45\x56\x82"), ""},
		"noise":           {with(0, ""), diskformat.NoteNoContent},
		"zeros":           {make([]byte, mib), diskformat.NoteNoContent},
		"one sector":      {bytes.Repeat([]byte{0x91}, 512), diskformat.NoteNoContent},
		"boot code alone": {with(510, "\x55\xaa"), diskformat.NoteNoContent},
		"words":           {with(0, "a disk that begins with words, and goes on otherwise\n"), diskformat.NoteNoContent},
	} {
		found, err := judge(t, c.file, inspect.Options{})
		if err != nil || found.Format != diskformat.Raw || found.VirtualSize != int64(len(c.file)) || ids(found.Notes) != c.want {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		// The look at an opened disk says the same.
		_, notes, err := inspect.Disk(t.Context(), bytes.NewReader(c.file), int64(len(c.file)), true)
		if err != nil || ids(notes) != c.want {
			t.Errorf("%s, opened: %+v, %v", name, notes, err)
		}
		if _, notes, err = inspect.Disk(t.Context(), bytes.NewReader(c.file), int64(len(c.file)), false); err != nil || len(notes) > 0 {
			t.Errorf("%s, in another format: %+v, %v", name, notes, err)
		}
	}
}

// What the service refuses is one *ims.Error, with what it is and what to do.
func TestRefuses(t *testing.T) {
	t.Parallel()
	luks := with(0, "LUKS\xba\xbe\x00\x02")
	for name, c := range map[string]struct {
		file []byte
		o    inspect.Options
		code ims.Code
		says []string
	}{
		"empty":       {nil, inspect.Options{}, ims.CodeFile, []string{"empty"}},
		"odd size":    {with(0, "")[:1000], inspect.Options{}, ims.CodeFile, []string{"1000 bytes", "multiple of 512"}},
		"a page":      {[]byte("<html>Not Found</html>"), inspect.Options{}, ims.CodeFile, []string{"an HTML page", "download"}},
		"qcow2":       {with(0, "QFI\xfb\x00\x00\x00\x03"), inspect.Options{}, ims.CodeFile, []string{"a qcow2 file", "quickims convert"}},
		"hybrid ISO":  {with(32769, "CD001"), inspect.Options{}, ims.CodeFile, []string{"an ISO image"}},
		"cut ZVHD2":   {with(0, "z2strm\x00\x00"), inspect.Options{}, ims.CodeFile, []string{"cut off"}},
		"LUKS":        {luks, inspect.Options{}, ims.CodeFile, []string{"LUKS", "DataImage"}},
		"too large":   {make([]byte, 2*mib), inspect.Options{MinDiskGiB: 1}, "", nil},
		"two formats": {with(0, "KDMV\x00\x00\x00\x00"), inspect.Options{}, ims.CodeFile, nil},
	} {
		_, err := judge(t, c.file, c.o)
		fault, ok := errors.AsType[*ims.Error](err)
		if c.code == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !ok || fault.Code != c.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(fault.Detail, word) {
				t.Errorf("%s: %q does not say %q", name, fault.Detail, word)
			}
		}
	}
	found, err := judge(t, luks, inspect.Options{DataDisk: true})
	if err != nil || found.Format != diskformat.Raw || ids(found.Notes) != diskformat.NoteEncrypted {
		t.Errorf("LUKS as a data disk: %+v, %v", found, err)
	}
	large := inspect.File{Name: "x", ReaderAt: zeros{}, Size: ims.GiB + 512}
	if _, err := inspect.QuickImport(t.Context(), large, inspect.Options{MinDiskGiB: 1}); err == nil || !strings.Contains(err.Error(), "at least 2 GiB") {
		t.Errorf("larger than min_disk: %v", err)
	}
	large.Size = ims.MaxFileSize + 512
	if fault, ok := errors.AsType[*ims.Error](second(inspect.QuickImport(t.Context(), large, inspect.Options{}))); !ok || fault.Code != ims.CodeFileTooBig {
		t.Error("a file beyond the bound is taken")
	}
}

func second[T any](_ T, err error) error { return err }

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// A GPT of 4096-byte sectors is made by a real tool on a real image.
func TestLargeSectors(t *testing.T) {
	t.Parallel()
	b := disk(t, "printf 'g\nn\n\n\n\nt\nuefi\nw\n' | fdisk -b 4096 disk >/dev/null")
	found, err := judge(t, b, inspect.Options{})
	if err != nil || ids(found.Notes) != diskformat.NoteSectorSize || !strings.Contains(found.Notes[0].Text, "logical_block_size=4096") {
		t.Errorf("%+v, %v", found, err)
	}
}

// broken fails from a place on.
type broken struct {
	io.ReaderAt
	at int64
}

var errBroken = errors.New("the store went away")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.at && off < 4*mib {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

// A read that fails is that failure, never "nothing known is there", and never the
// file's fault.
func TestReadsFail(t *testing.T) {
	t.Parallel()
	b := with(0, "")
	for _, at := range []int64{0, 64 << 10, 100 << 10, 200 << 10} {
		_, err := inspect.QuickImport(t.Context(), inspect.File{Name: "d", ReaderAt: broken{bytes.NewReader(b), at}, Size: int64(len(b))}, inspect.Options{})
		if !errors.Is(err, errBroken) {
			t.Errorf("failing from %d on: %v", at, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inspect.QuickImport(ctx, inspect.File{Name: "d", ReaderAt: bytes.NewReader(b), Size: int64(len(b))}, inspect.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// edges fails the test for a read that lies neither at the front nor at the end.
type edges struct {
	t    *testing.T
	size int64
}

func (e edges) ReadAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > probe.Reach && off < e.size-probe.EndReach {
		e.t.Errorf("bytes %d to %d are read", off, end)
	}
	clear(p)
	return len(p), nil
}

// However large the file is, what is read lies at its edges.
func TestReadsAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{512, mib, ims.GiB + 512, ims.MaxFileSize} {
		if _, err := inspect.QuickImport(t.Context(), inspect.File{Name: "d", ReaderAt: edges{t, size}, Size: size}, inspect.Options{}); err != nil {
			t.Error(err)
		}
	}
}
