package diskformat_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/fuzztest"
)

// at makes a file of size bytes with pieces in it; a negative place counts
// from the end.
func at(size int, pieces map[int]string) []byte {
	b := make([]byte, size)
	for off, s := range pieces {
		if off < 0 {
			off += size
		}
		copy(b[off:], s)
	}
	return b
}

const mib = 1 << 20

var formats = []struct {
	name string
	file []byte
	want diskformat.Format
}{
	{"empty", nil, diskformat.Raw},
	{"one byte", []byte{0x9a}, diskformat.Raw},
	{"zeros", make([]byte, mib), diskformat.Raw},
	{"boot sector", at(mib, map[int]string{510: "\x55\xaa"}), diskformat.Raw},
	{"LUKS", at(mib, map[int]string{0: "LUKS\xba\xbe"}), diskformat.Raw},
	{"LVM", at(mib, map[int]string{512: "LABELONE"}), diskformat.Raw},
	{"cookies where they tell nothing", at(mib, map[int]string{
		1: "QFI\xfb", 512: "KDMV", 4096: "z2strm\x00\x00", 8192: "conectix", 32768: "CD001", 65: "\x7f\x10\xda\xbe",
		-4095: "z2strm", -511 + 1: "conectix", 9000: "vhdxfile",
	}), diskformat.Raw},
	{"an ISO in a partition", at(mib, map[int]string{mib/2 + 32769: "CD001"}), diskformat.Raw},

	{"ZVHD2", at(mib, map[int]string{0: "z2strm\x00\x00", -4096: "z2strm\x00\x00"}), diskformat.ZVHD2},
	{"ZVHD2, odd cookie", at(16384, map[int]string{0: "z2strmXY", -4096: "z2strm12"}), diskformat.ZVHD2},
	{"ZVHD", at(mib, map[int]string{0: "stream\x00\x00", -4096: "stream\x00\x00"}), diskformat.ZVHD},
	{"qcow", at(mib, map[int]string{0: "QFI\xfb\x00\x00\x00\x01"}), diskformat.QCOW},
	{"qcow2 v2", at(mib, map[int]string{0: "QFI\xfb\x00\x00\x00\x02"}), diskformat.QCOW2},
	{"qcow2 v3", at(mib, map[int]string{0: "QFI\xfb\x00\x00\x00\x03"}), diskformat.QCOW2},
	{"qcow2 of the future", at(mib, map[int]string{0: "QFI\xfb\x00\x00\x00\x09"}), diskformat.QCOW2},
	{"QED", at(mib, map[int]string{0: "QED\x00"}), diskformat.QED},
	{"VMDK sparse", at(mib, map[int]string{0: "KDMV"}), diskformat.VMDK},
	{"VMDK ESX", at(mib, map[int]string{0: "COWD"}), diskformat.VMDK},
	{"VMDK descriptor", []byte("# Disk DescriptorFile\nversion=1\n"), diskformat.VMDK},
	{"VMDK descriptor, comments before", []byte("# mine\r\n\r\n#x\r\n  # disk descriptorfile\r\nversion=1\r\n"), diskformat.VMDK},
	{"no descriptor", []byte("version=1\n# Disk DescriptorFile\n"), diskformat.Text},
	{"VHD fixed", at(mib+512, map[int]string{-512: "conectix"}), diskformat.VHD},
	{"VHD fixed, short footer", at(mib+511, map[int]string{-511: "conectix"}), diskformat.VHD},
	{"VHD dynamic", at(mib, map[int]string{0: "conectix", -512: "conectix"}), diskformat.VHD},
	{"VHD dynamic, cut off", at(mib, map[int]string{0: "conectix"}), diskformat.VHD},
	{"VHDX", at(mib, map[int]string{0: "vhdxfile"}), diskformat.VHDX},
	{"VDI", at(mib, map[int]string{0: "<<< Oracle VM VirtualBox Disk Image >>>\n", 64: "\x7f\x10\xda\xbe"}), diskformat.VDI},
	{"Parallels", at(mib, map[int]string{0: "WithoutFreeSpace"}), diskformat.Parallels},
	{"DMG", at(mib, map[int]string{-512: "koly"}), diskformat.DMG},
	{"ISO", at(mib, map[int]string{32768: "\x01CD001\x01"}), diskformat.ISO},
	{"hybrid ISO", at(mib, map[int]string{510: "\x55\xaa", 512: "EFI PART", 32768: "\x01CD001\x01"}), diskformat.ISO},
	{"UDF", at(mib, map[int]string{32768: "\x00BEA01\x01"}), diskformat.ISO},
	{"WIM", at(mib, map[int]string{0: "MSWIM\x00\x00\x00"}), diskformat.WIM},
	{"gzip", at(mib, map[int]string{0: "\x1f\x8b\x08"}), diskformat.Gzip},
	{"xz", at(mib, map[int]string{0: "\xfd7zXZ\x00"}), diskformat.XZ},
	{"zstd", at(mib, map[int]string{0: "\x28\xb5\x2f\xfd"}), diskformat.Zstd},
	{"bzip2", at(mib, map[int]string{0: "BZh9\x31\x41\x59\x26\x53\x59"}), diskformat.Bzip2},
	{"a word that begins so", at(mib, map[int]string{0: "BZhive"}), diskformat.Raw},
	{"LZ4", at(mib, map[int]string{0: "\x04\x22\x4d\x18"}), diskformat.LZ4},
	{"zip", at(mib, map[int]string{0: "PK\x03\x04"}), diskformat.Zip},
	{"7z", at(mib, map[int]string{0: "7z\xbc\xaf\x27\x1c"}), diskformat.SevenZip},
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for _, c := range formats {
		r := &disktest.Counter{R: bytes.NewReader(c.file)}
		got, err := diskformat.Detect(r, int64(len(c.file)))
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; right is %q", c.name, got, err, c.want)
		}
		if reads := r.Reads(); len(reads) > 2 {
			t.Errorf("%s: %d reads", c.name, len(reads))
		}
	}
}

// Whatever is cut from a file, telling what it is neither fails nor panics,
// except that a ZVHD2 file must be whole.
func TestDetectCutOff(t *testing.T) {
	t.Parallel()
	for _, c := range formats {
		for n := range min(len(c.file), 600) {
			_, err := diskformat.Detect(bytes.NewReader(c.file[:n]), int64(n))
			if c.want != diskformat.ZVHD2 && err != nil {
				t.Errorf("%s, first %d bytes: %v", c.name, n, err)
			}
			if c.want == diskformat.ZVHD2 && n >= 6 && !errors.Is(err, diskformat.ErrIncomplete) {
				t.Errorf("%s, first %d bytes: %v", c.name, n, err)
			}
		}
	}
}

func TestDetectFixtures(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]diskformat.Format{"c.raw": diskformat.Raw, "c.zvhd2": diskformat.ZVHD2, "c.zvhd": diskformat.ZVHD} {
		b := disktest.Fixture(t, name)
		if got, err := diskformat.Detect(bytes.NewReader(b), int64(len(b))); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestDetectRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		file  []byte
		want  diskformat.Format
		kind  error
		words []string
	}{
		{"ZVHD2 without its footer", at(mib, map[int]string{0: "z2strm\x00\x00"}), diskformat.ZVHD2, diskformat.ErrIncomplete, []string{"cut off"}},
		{"ZVHD2 of one page", at(4095, map[int]string{0: "z2strm\x00\x00"}), diskformat.ZVHD2, diskformat.ErrIncomplete, []string{"cut off"}},
		{"ZVHD2 without its front", at(mib, map[int]string{-4096: "z2strm\x00\x00"}), diskformat.ZVHD2, diskformat.ErrCorrupt, []string{"header"}},
		{"qcow2 and ISO", at(mib, map[int]string{0: "QFI\xfb\x00\x00\x00\x03", 32769: "CD001"}), "", diskformat.ErrAmbiguous, []string{"qcow2", "iso"}},
		{"qcow2 and ZVHD2", at(mib, map[int]string{0: "QFI\xfb\x00\x00\x00\x03", -4096: "z2strm"}), "", diskformat.ErrAmbiguous, []string{"qcow2", "zvhd2"}},
		{"ZVHD2 and VHD", at(mib, map[int]string{0: "z2strm", -4096: "z2strm", -512: "conectix"}), "", diskformat.ErrAmbiguous, []string{"zvhd2", "vhd"}},
		{"gzip and VDI", at(mib, map[int]string{0: "\x1f\x8b\x08", 64: "\x7f\x10\xda\xbe"}), "", diskformat.ErrAmbiguous, []string{"gzip", "vdi"}},
	} {
		got, err := diskformat.Detect(bytes.NewReader(c.file), int64(len(c.file)))
		if !errors.Is(err, c.kind) || got != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the error %q does not name %s", c.name, err, w)
			}
		}
	}
	if _, err := diskformat.Detect(bytes.NewReader(nil), -1); err == nil {
		t.Error("a negative size was taken")
	}
}

// A source that fails or is shorter than it says is an error of its own kind.
func TestDetectFailingSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("the line is dead")
	b := make([]byte, mib)
	for _, off := range []int64{0, mib - 1} {
		_, err := diskformat.Detect(disktest.Failing{R: bytes.NewReader(b), At: off, Err: broken}, mib)
		if !errors.Is(err, broken) {
			t.Errorf("failing at %d: %v", off, err)
		}
	}
	if _, err := diskformat.Detect(bytes.NewReader(b), mib+512); err == nil {
		t.Error("a source shorter than its size was taken")
	}
}

// Files that qemu-img itself made: it is the judge of its formats. Debian's
// package qemu-utils has it.
func TestDetectFilesOfQEMU(t *testing.T) {
	t.Parallel()
	qemu, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (Debian: qemu-utils); the formats' marks are tested without it")
	}
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want diskformat.Format
	}{
		{[]string{"-f", "raw"}, diskformat.Raw},
		{[]string{"-f", "qcow"}, diskformat.QCOW},
		{[]string{"-f", "qcow2"}, diskformat.QCOW2},
		{[]string{"-f", "qcow2", "-o", "compat=0.10"}, diskformat.QCOW2},
		{[]string{"-f", "qed"}, diskformat.QED},
		{[]string{"-f", "vmdk"}, diskformat.VMDK},
		{[]string{"-f", "vmdk", "-o", "subformat=streamOptimized"}, diskformat.VMDK},
		{[]string{"-f", "vmdk", "-o", "subformat=monolithicFlat"}, diskformat.VMDK},
		{[]string{"-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"}, diskformat.VMDK},
		{[]string{"-f", "vpc"}, diskformat.VHD},
		{[]string{"-f", "vpc", "-o", "subformat=fixed"}, diskformat.VHD},
		{[]string{"-f", "vhdx"}, diskformat.VHDX},
		{[]string{"-f", "vdi"}, diskformat.VDI},
		{[]string{"-f", "parallels"}, diskformat.Parallels},
	} {
		name := filepath.Join(dir, strings.NewReplacer("-", "", "=", "", " ", "").Replace(strings.Join(c.args, "")))
		if out, err := exec.CommandContext(t.Context(), qemu, append(append([]string{"create", "-q"}, c.args...), name, "5M")...).CombinedOutput(); err != nil {
			t.Errorf("qemu-img create %v: %v\n%s", c.args, err, out)
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := diskformat.Detect(f, st.Size()); err != nil || got != c.want {
			t.Errorf("qemu-img create %v: %q, %v; right is %q", c.args, got, err, c.want)
		}
		f.Close()
	}
}

// gptDisk makes a disk with a GPT of n entries of each bytes at lba.
func gptDisk(size int, sector int, lba uint64, n, each uint32, kinds ...string) []byte {
	b := make([]byte, size)
	b[510], b[511] = 0x55, 0xaa
	b[446+4] = 0xee
	binary.LittleEndian.PutUint32(b[446+8:], 1)
	binary.LittleEndian.PutUint32(b[446+12:], 1<<32-1)
	entries := b[int(lba)*sector:][:n*each]
	for i, k := range kinds {
		copy(entries[i*int(each):], k)
	}
	le := binary.LittleEndian
	h := b[sector : sector+92]
	copy(h, "EFI PART\x00\x00\x01\x00")
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[24:], 1)
	le.PutUint64(h[72:], lba)
	le.PutUint32(h[80:], n)
	le.PutUint32(h[84:], each)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return b
}

// backupAt says in a GPT of 512-byte sectors where its backup lies.
func backupAt(b []byte, lba uint64) []byte {
	h := b[512 : 512+92]
	binary.LittleEndian.PutUint64(h[32:], lba)
	binary.LittleEndian.PutUint32(h[16:], 0)
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return b
}

const (
	guidESP   = "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b"
	guidBIOS  = "Hah!IdontNeedEFI"
	guidLinux = "\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4"
)

// mbrDisk makes a disk with an MBR of entries (status, type, start, count).
func mbrDisk(size int, entries ...[4]uint32) []byte {
	b := make([]byte, size)
	b[510], b[511] = 0x55, 0xaa
	for i, e := range entries {
		p := b[446+16*i:]
		p[0], p[4] = byte(e[0]), byte(e[1])
		binary.LittleEndian.PutUint32(p[8:], e[2])
		binary.LittleEndian.PutUint32(p[12:], e[3])
	}
	return b
}

func TestHints(t *testing.T) {
	t.Parallel()
	poke := func(b []byte, off int, x byte) []byte { b[off] ^= x; return b }
	protective := diskformat.Hints{Table: diskformat.MBR, Partitions: 1}
	for _, c := range []struct {
		name string
		disk []byte
		want diskformat.Hints
	}{
		{"nothing", make([]byte, mib), diskformat.Hints{Table: diskformat.NoTable}},
		{"less than a sector", make([]byte, 100), diskformat.Hints{Table: diskformat.NoTable}},
		{"one sector", mbrDisk(512), diskformat.Hints{Table: diskformat.NoTable}},
		{"MBR", mbrDisk(mib, [4]uint32{0, 0x83, 1, 100}), diskformat.Hints{Table: diskformat.MBR, Partitions: 1}},
		{"MBR, active", mbrDisk(mib, [4]uint32{0x80, 0x83, 1, 100}, [4]uint32{0, 0x82, 101, 5}), diskformat.Hints{Table: diskformat.MBR, Partitions: 2, BIOSBoot: true}},
		{"MBR with ESP", mbrDisk(mib, [4]uint32{0, 0xef, 1, 100}), diskformat.Hints{Table: diskformat.MBR, Partitions: 1, EFISystem: true}},
		{"MBR beyond the disk", mbrDisk(mib, [4]uint32{0, 0x83, 1 << 20, 100}), diskformat.Hints{Table: diskformat.NoTable}},
		{"a file system's boot sector", mbrDisk(mib, [4]uint32{0x6f, 0x72, 0x20746f62, 100}), diskformat.Hints{Table: diskformat.NoTable}},
		{"GPT", gptDisk(mib, 512, 2, 128, 128, guidLinux), diskformat.Hints{Table: diskformat.GPT, Partitions: 1}},
		{"GPT with ESP", gptDisk(mib, 512, 2, 128, 128, guidLinux, guidESP), diskformat.Hints{Table: diskformat.GPT, Partitions: 2, EFISystem: true}},
		{"GPT with BIOS boot", gptDisk(mib, 512, 2, 128, 128, guidBIOS, guidLinux), diskformat.Hints{Table: diskformat.GPT, Partitions: 2, BIOSBoot: true}},
		{"GPT with both", gptDisk(mib, 512, 2, 128, 128, guidBIOS, guidESP), diskformat.Hints{Table: diskformat.GPT, Partitions: 2, BIOSBoot: true, EFISystem: true}},
		{"GPT, legacy bootable", gptDisk(mib, 512, 2, 128, 128, guidLinux+strings.Repeat("\x01", 16)+strings.Repeat("\x00", 16)+"\x04"), diskformat.Hints{Table: diskformat.GPT, Partitions: 1, BIOSBoot: true}},
		{"GPT of 4096-byte sectors", gptDisk(mib, 4096, 2, 128, 128, guidESP), diskformat.Hints{Table: diskformat.GPT, LargeSectors: true, Partitions: 1, EFISystem: true}},
		{"GPT, entries far away", gptDisk(mib, 512, 1000, 128, 128, guidESP), diskformat.Hints{Table: diskformat.GPT, Partitions: 1, EFISystem: true}},
		{"GPT, large entries", gptDisk(mib, 512, 2, 16, 4096, guidESP), diskformat.Hints{Table: diskformat.GPT, Partitions: 1, EFISystem: true}},
		{"MBR, cut off", mbrDisk(mib, [4]uint32{0, 0x83, 1, 100}, [4]uint32{0, 0x83, 101, 2048}), diskformat.Hints{Table: diskformat.MBR, Partitions: 2, CutOff: true}},
		{"MBR, to the end", mbrDisk(mib, [4]uint32{0, 0x83, 1, 2047}), diskformat.Hints{Table: diskformat.MBR, Partitions: 1}},
		{"GPT, a partition to the end", gptDisk(mib, 512, 2, 128, 128, guidLinux+strings.Repeat("\x00", 24)+"\xff\x07"), diskformat.Hints{Table: diskformat.GPT, Partitions: 1}},
		{"GPT, a partition cut off", gptDisk(mib, 512, 2, 128, 128, guidLinux+strings.Repeat("\x00", 24)+"\x00\x08"), diskformat.Hints{Table: diskformat.GPT, Partitions: 1, CutOff: true}},
		{"GPT, the backup cut off", backupAt(gptDisk(mib, 512, 2, 128, 128, guidLinux), 2048), diskformat.Hints{Table: diskformat.GPT, Partitions: 1, CutOff: true}},
		{"GPT, the backup at the end", backupAt(gptDisk(mib, 512, 2, 128, 128, guidLinux), 2047), diskformat.Hints{Table: diskformat.GPT, Partitions: 1}},
		{"GPT, header damaged", poke(gptDisk(mib, 512, 2, 128, 128, guidESP), 512+40, 1), protective},
		{"GPT, entries damaged", poke(gptDisk(mib, 512, 2, 128, 128, guidESP), 1024, 1), protective},
		{"GPT, no entries", gptDisk(mib, 512, 2, 0, 128), protective},
		{"GPT, giant", gptDisk(8*mib, 512, 2, 1024, 4096, guidESP), protective},
		{"GPT, odd entries", gptDisk(mib, 512, 2, 100, 100, guidESP), protective},
	} {
		r := &disktest.Counter{R: bytes.NewReader(c.disk)}
		got, err := diskformat.ReadHints(r, int64(len(c.disk)))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; right is %+v", c.name, got, err, c.want)
		}
		reads := r.Reads()
		if len(reads) > 2 {
			t.Errorf("%s: %d reads", c.name, len(reads))
		}
		for _, read := range reads {
			if read.Len > 256<<10 {
				t.Errorf("%s: %d bytes were read at once", c.name, read.Len)
			}
		}
		if f, err := diskformat.Detect(r, int64(len(c.disk))); err != nil || f != diskformat.Raw {
			t.Errorf("%s: detected as %s, %v", c.name, f, err)
		}
	}
}

// A header that says its entries lie beyond the disk, or so that the end
// overflows, is no table.
func TestHintsOfHostileGPT(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for name, lba := range map[string]uint64{
		"at 0": 0, "in the header": 1, "at the end": mib/512 - 1, "beyond": mib / 512, "giant": 1<<64 - 1, "overflowing": 1<<55 + 2, "negative": 1 << 63,
	} {
		b := gptDisk(mib, 512, 2, 128, 128, guidESP)
		h := b[512 : 512+92]
		le.PutUint64(h[72:], lba)
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		got, err := diskformat.ReadHints(bytes.NewReader(b), mib)
		if err != nil || got.Table != diskformat.MBR {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// Header lengths around what fits.
	for _, n := range []uint32{0, 91, 513, 1<<32 - 1} {
		b := gptDisk(mib, 512, 2, 128, 128, guidESP)
		le.PutUint32(b[512+12:], n)
		if got, err := diskformat.ReadHints(bytes.NewReader(b), mib); err != nil || got.Table != diskformat.MBR {
			t.Errorf("header of %d bytes: %+v, %v", n, got, err)
		}
	}
}

// Telling the format of anything takes little memory. Not parallel: it
// measures.
func TestDetectMemory(t *testing.T) {
	for _, c := range formats {
		n := disktest.Allocated(func() { _, _ = diskformat.Detect(bytes.NewReader(c.file), int64(len(c.file))) })
		if n > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", c.name, n)
		}
	}
	// Headers of a GPT that ask for much, on a disk where all of it would be.
	le := binary.LittleEndian
	for name, poke := range map[string]func(h []byte){
		"a giant header":                     func(h []byte) { le.PutUint32(h[12:], 1<<32-1) },
		"giant entries":                      func(h []byte) { le.PutUint32(h[84:], 1<<31) },
		"many entries":                       func(h []byte) { le.PutUint32(h[80:], 2048) },
		"so many entries that they overflow": func(h []byte) { le.PutUint32(h[80:], 1<<25) },
	} {
		b := gptDisk(64<<10, 512, 2, 128, 128, guidESP)
		h := b[512 : 512+92]
		poke(h)
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		r := &disktest.Counter{R: disktest.Patched{0: b}}
		n := disktest.Allocated(func() {
			if got, err := diskformat.ReadHints(r, 1<<40); err != nil || got.Table != diskformat.MBR {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		})
		if reads := r.Reads(); n > 1<<20 || len(reads) != 1 {
			t.Errorf("%s: %d bytes were allocated, %d reads", name, n, len(reads))
		}
	}
}

func FuzzDetect(f *testing.F) {
	for _, c := range formats {
		if len(c.file) <= 64<<10 {
			f.Add(c.file)
		} else {
			// Cut in the middle, so that both ends remain.
			f.Add(append(bytes.Clone(c.file[:36<<10]), c.file[len(c.file)-4096:]...))
		}
	}
	f.Add(gptDisk(40<<10, 512, 2, 128, 128, guidESP, guidBIOS))
	f.Add(mbrDisk(4096, [4]uint32{0x80, 0x83, 1, 5}))
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		r := &disktest.Counter{R: bytes.NewReader(b)}
		f, err := diskformat.Detect(r, int64(len(b)))
		if err == nil && f == "" {
			t.Error("no format and no error")
		}
		if reads := r.Reads(); len(reads) > 2 {
			t.Errorf("%d reads", len(reads))
		}
		h, err := diskformat.ReadHints(r, int64(len(b)))
		if err != nil || h.Table == "" {
			t.Errorf("%+v, %v", h, err)
		}
		if reads := r.Reads(); len(reads) > 4 {
			t.Errorf("%d reads", len(reads))
		}
	})
}

func ExampleDetect() {
	file := at(16384, map[int]string{0: "QFI\xfb\x00\x00\x00\x03"})
	format, err := diskformat.Detect(bytes.NewReader(file), int64(len(file)))
	fmt.Println(format, err)
	// Output: qcow2 <nil>
}

// A tar, and so an OVA, is told by its magic and its checksum together.
func TestTar(t *testing.T) {
	t.Parallel()
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var file bytes.Buffer
		w := tar.NewWriter(&file)
		disk := bytes.Repeat([]byte("disk"), 1000)
		err := w.WriteHeader(&tar.Header{Name: "machine.vmdk", Size: int64(len(disk)), Mode: 0o644, Format: format})
		if _, err2 := w.Write(disk); errors.Join(err, err2, w.Close()) != nil {
			t.Fatal(err, err2)
		}
		b := file.Bytes()
		if got, err := diskformat.Detect(bytes.NewReader(b), int64(len(b))); got != diskformat.TAR || err != nil {
			t.Errorf("%v: %q, %v", format, got, err)
		}
		b[0]++
		if got, err := diskformat.Detect(bytes.NewReader(b), int64(len(b))); got != diskformat.Raw || err != nil {
			t.Errorf("%v with another checksum: %q, %v", format, got, err)
		}
	}
}
