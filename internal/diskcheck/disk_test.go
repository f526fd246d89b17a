package diskcheck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/filesystem/fstest"
)

const (
	mib = 1 << 20

	rootUUID = "0a1b2c3d-0000-4000-8000-000000000001"
	bootUUID = "0a1b2c3d-0000-4000-8000-000000000002"
	espUUID  = "1234-ABCD"
)

// files are a tree: contents by path; a content that begins with "-> " is a
// symbolic link.
type files map[string]string

// part is a partition of a disk under test.
type part struct {
	kind   string // of sfdisk: L, U, S or a GUID
	name   string
	active bool
	size   int64
	fs     string // ext4, xfs, vfat; "" for content
	uuid   string
	files  files
	raw    []byte // what lies at its start when fs is ""
	args   []string
	poke   func(b []byte) // changes the first 4 KiB
}

// system is a disk under test.
type system struct {
	label string // gpt or dos; "": the first partition is the disk
	code  string // boot code in the first sector
	core  string // what lies in the second sector of an MBR
	parts []part
}

// root is the partition of the system, boot that of /boot, esp that of EFI.
func (s *system) part(name string) *part {
	i := slices.IndexFunc(s.parts, func(p part) bool { return p.name == name })
	return &s.parts[i]
}

func (s *system) root() files { return s.part("root").files }
func (s *system) esp() files  { return s.part("esp").files }

// replace changes words in a file, and fails if they are not there.
func (f files) replace(t *testing.T, name, old, words string) {
	t.Helper()
	if !strings.Contains(f[name], old) {
		t.Fatalf("%s does not hold %q", name, old)
	}
	f[name] = strings.ReplaceAll(f[name], old, words)
}

// drop removes all files whose path begins so, and fails if there are none.
func (f files) drop(t *testing.T, prefix string) {
	t.Helper()
	before := len(f)
	maps.DeleteFunc(f, func(name, _ string) bool { return strings.HasPrefix(name, prefix) })
	if len(f) == before {
		t.Fatalf("there is nothing at %s", prefix)
	}
}

// write makes the files in a folder.
func (f files) write(t *testing.T) string {
	t.Helper()
	dir := fstest.Dir(t)
	for name, text := range f {
		at := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
			err = os.Symlink(target, at)
		} else if strings.HasSuffix(name, "/") && err == nil {
			err = os.MkdirAll(at, 0o755)
		} else if err == nil {
			err = os.WriteFile(at, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// layered is a disk made of pieces; later ones lie over earlier ones.
type layered struct {
	size   int64
	pieces []piece
}

type piece struct {
	at, size int64
	r        io.ReaderAt
}

func (l *layered) add(at int64, b []byte) {
	l.pieces = append(l.pieces, piece{at, int64(len(b)), bytes.NewReader(b)})
}

func (l *layered) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), l.size-off)))
	clear(p[:n])
	for _, c := range l.pieces {
		from, to := max(off, c.at), min(off+int64(n), c.at+c.size)
		if from < to {
			if k, err := c.r.ReadAt(p[from-off:to-off], from-c.at); k < int(to-from) {
				return 0, fmt.Errorf("a piece of the test: %w", err)
			}
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// build makes the disk.
func (s *system) build(t *testing.T) *layered {
	t.Helper()
	d := &layered{size: mib}
	script := "label: " + s.label + "\nlabel-id: 0x0badcafe\n"
	if s.label == "gpt" {
		script = "label: gpt\n"
	}
	for i, p := range s.parts {
		if s.label == "" {
			d.size = p.size
			d.pieces = append(d.pieces, p.content(t, 0))
			return d
		}
		script += fmt.Sprintf("start=%d, size=%d, type=%s", d.size/512, p.size/512, p.kind)
		if s.label == "gpt" {
			script += fmt.Sprintf(", name=%q, uuid=00000000-0000-4000-8000-00000000000%d", p.name, i+1)
		}
		if p.active {
			script += ", bootable"
		}
		script += "\n"
		d.pieces = append(d.pieces, p.content(t, d.size))
		if p.poke != nil {
			b := make([]byte, 4096)
			if _, err := d.pieces[len(d.pieces)-1].r.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			p.poke(b)
			d.add(d.size, b)
		}
		d.size += p.size
	}
	d.size += mib
	table := fstest.Blank(t, d.size)
	fstest.Run(t, script, "sfdisk", "-q", table)
	b, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[:440], s.code)
	copy(b[512:], s.core)
	front, back := b[:mib], b[d.size-mib:]
	d.add(0, front)
	d.add(d.size-mib, back)
	return d
}

// content makes what lies in a partition.
func (p part) content(t *testing.T, at int64) piece {
	t.Helper()
	var name string
	switch p.fs {
	case "":
		return piece{at, int64(len(p.raw)), bytes.NewReader(p.raw)}
	case "vfat":
		name = fstest.FAT(t, p.files.write(t), p.size, "-i", strings.ReplaceAll(p.uuid, "-", ""))
	case "xfs":
		name = fstest.XFS(t, p.files.write(t), p.size, append([]string{"-m", "uuid=" + p.uuid}, p.args...)...)
	default:
		name = fstest.Ext(t, p.files.write(t), p.size, append([]string{"-t", p.fs, "-U", p.uuid, "-O", "^resize_inode", "-J", "size=1"}, p.args...)...)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return piece{at, p.size, f}
}

// check runs the check under test.
func check(t *testing.T, s *system) diskcheck.Report {
	t.Helper()
	d := s.build(t)
	r, err := diskcheck.Check(t.Context(), d, d.size, diskcheck.OTC)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// show prints the findings for a failed test.
func show(r diskcheck.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "  %-8s %-16s %s\n", f.Severity, f.ID, f.Found)
	}
	return b.String()
}

// cpio makes an archive of files; their contents do not matter.
func cpio(names ...string) []byte {
	var b bytes.Buffer
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	for i, name := range append(names, "TRAILER!!!") {
		data := "content of " + name
		if name == "TRAILER!!!" || strings.HasSuffix(name, "/") {
			data = ""
		}
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", i+1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name)
		b.WriteByte(0)
		pad()
		b.WriteString(data)
		pad()
	}
	return b.Bytes()
}

// microcode is what lies before the compressed part on most machines.
func microcode() []byte {
	b := cpio("kernel/x86/microcode/GenuineIntel.bin")
	return append(b, make([]byte, 512-len(b)%512)...)
}

func withZstd(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

func withGzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// elf is the beginning of a program for a processor.
func elf(class byte, machine uint16) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF")
	b[4], b[5], b[6] = class, 1, 1
	binary.LittleEndian.PutUint16(b[18:], machine)
	return string(b)
}

// efi is the beginning of an EFI program for a processor.
func efi(machine uint16) string {
	b := make([]byte, 256)
	copy(b, "MZ")
	b[0x3c] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return string(b)
}

const (
	machineX64  = 0x8664
	machineAA64 = 0xaa64
	elfX64      = 62
	elfAA64     = 183
)

// virtioModules are the files of a Debian kernel's drivers.
var virtioModules = []string{
	"kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio_pci.ko",
	"kernel/drivers/block/virtio_blk.ko", "kernel/drivers/scsi/virtio_scsi.ko", "kernel/drivers/net/virtio_net.ko",
}

func modulesDep(without string) string {
	var b strings.Builder
	for _, m := range virtioModules {
		if without == "" || !strings.Contains(m, without) {
			fmt.Fprintf(&b, "%s: kernel/drivers/virtio/virtio.ko\n", m)
		}
	}
	return b.String()
}

// initrd makes an initramfs of a Debian kernel, without one of the drivers.
func initrd(version, without string) []byte {
	names := []string{"init", "usr/lib/modules/" + version + "/kernel/"}
	for _, m := range virtioModules {
		if without == "" || !strings.Contains(m, without) {
			names = append(names, "usr/lib/modules/"+version+"/"+m)
		}
	}
	return cpio(names...)
}
