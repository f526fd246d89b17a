package vmdk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// described is a descriptor with the given lines for its extents.
func described(createType string, extents ...string) string {
	return "# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\ncreateType=\"" + createType + "\"\n\n" +
		"# Extent description\n" + strings.Join(extents, "\n") + "\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"
}

// A disk of all kinds of extents that are read, at odd places, in a descriptor
// that somebody edited on another system.
func TestDescriptor(t *testing.T) {
	t.Parallel()
	disk := make([]byte, 600*sectorSize)
	disktest.Fill(disk[:300*sectorSize], 1)
	disktest.Fill(disk[400*sectorSize:], 2)
	sparsePart := build{disk: disk[100*sectorSize : 300*sectorSize], grain: 8192, noDescriptor: true}.file()
	streamPart := build{disk: disk[450*sectorSize : 580*sectorSize], grain: 16384, stream: true}.file()
	dir := files{
		"a-flat.vmdk":        append(make([]byte, 7*sectorSize), disk[:100*sectorSize]...),
		"b s001.vmdk":        sparsePart,
		"c.vmdk":             disk[400*sectorSize : 450*sectorSize],
		"stream.vmdk":        streamPart,
		"Ünterlagen-f5.vmdk": disk[580*sectorSize:],
	}
	text := "\r\n# made by hand\r\n  # disk descriptorfile \r\nVersion = 4\r\nencoding=\"UTF-8\"\r\nCID=1\r\nparentcid = FFFFFFFF\r\nparentFileNameHint=\"\"\r\n" +
		"CreateType=\"custom\"\r\n" +
		"RW 100 FLAT \"a-flat.vmdk\" 7\r\n" +
		"\trw\t200  sparse\t\"b s001.vmdk\"\r\n" +
		"RDONLY 100 ZERO\r\n" +
		"RW 50 VMFS c.vmdk\r\n" +
		"RW 130 SPARSE \"stream.vmdk\"\r\n" +
		"RW 20 FLAT \"Ünterlagen-f5.vmdk\" 0\r\n" +
		"changeTrackPath=\"/vmfs/volumes/x-ctk.vmdk\"\r\n#DDB\r\nddb.comment = \"RW 1 FLAT x = y\"\r\n\x00garbage"
	f, err := Open(strings.NewReader(text), int64(len(text)), dir.open)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a-flat.vmdk", "b s001.vmdk", "c.vmdk", "stream.vmdk", "Ünterlagen-f5.vmdk"}
	if !slices.Equal(f.Files(), want) || f.CreateType() != "custom" || !f.Compressed() {
		t.Errorf("%q, %q, %v", f.Files(), f.CreateType(), f.Compressed())
	}
	for _, piece := range []int{len(disk), 1, 511, 512, 8192, 100_000} {
		got := make([]byte, 0, len(disk))
		for off := 0; off < len(disk); off += piece {
			p := bytes.Repeat([]byte{0xee}, min(piece, len(disk)-off))
			if piece == 1 && off%97 != 0 {
				copy(p, disk[off:])
			} else if n, err := f.ReadAt(p, int64(off)); err != nil || n != len(p) {
				t.Fatal(n, err)
			}
			got = append(got, p...)
		}
		if !bytes.Equal(got, disk) {
			t.Errorf("read in pieces of %d bytes, the disk is another", piece)
		}
	}
	if err := mapAll(f); err != nil {
		t.Error(err)
	}
}

const sixteen = 16 * sectorSize

// Descriptors that are refused. Whatever they name is not opened, except plain
// names where the fault is in the file.
var hostileDescriptors = []struct {
	name  string
	text  string
	kind  error
	field string
}{
	{"no title", "# nothing\n# Disk DescriptorFil\nversion=1\n", diskformat.ErrWrongFormat, ""},
	{"settings before the title", "version=1\n" + described("monolithicFlat", `RW 16 FLAT "ok" 0`), corruptKind, "descriptor"},
	{"nothing else", "# Disk DescriptorFile\n", unsupportedKind, "descriptor.createType"},
	{"no extents", described("monolithicFlat"), corruptKind, "descriptor"},
	{"no createType", strings.Replace(described("x", `RW 16 ZERO`), "createType", "#", 1), unsupportedKind, "descriptor.createType"},
	{"createType twice", described("custom", "createType=\"monolithicFlat\"\nRW 16 ZERO"), corruptKind, "descriptor.createtype"},
	{"createType unknown", described("hypercube", `RW 16 ZERO`), unsupportedKind, "descriptor.createType"},
	{"createType endless", described(strings.Repeat("x", 1<<19), `RW 16 ZERO`), unsupportedKind, "descriptor.createType"},
	{"a physical disk", described("fullDevice", `RW 16 FLAT "/dev/sda" 0`), unsupportedKind, "descriptor.extent"},
	{"a raw device mapping", described("vmfsRawDeviceMap", `RW 16 ZERO`), unsupportedKind, "descriptor.createType"},
	{"version 0", strings.Replace(described("custom", `RW 16 ZERO`), "version=1", "version=0", 1), unsupportedKind, "descriptor.version"},
	{"version 6", strings.Replace(described("custom", `RW 16 ZERO`), "version=1", "version=6", 1), unsupportedKind, "descriptor.version"},
	{"version of words", strings.Replace(described("custom", `RW 16 ZERO`), "version=1", "version=one", 1), unsupportedKind, "descriptor.version"},
	{"a parent", strings.Replace(described("custom", `RW 16 ZERO`), "ffffffff", "00000000", 1), unsupportedKind, "descriptor.parentCID"},
	{"a parent by name", described("custom", "RW 16 ZERO\nparentFileNameHint=base.vmdk"), unsupportedKind, "descriptor.parentFileNameHint"},
	{"parentCID too long", strings.Replace(described("custom", `RW 16 ZERO`), "ffffffff", "ffffffffffffffff", 1), corruptKind, "descriptor.parentCID"},
	{"encrypted", described("custom", "RW 16 ZERO\nencryption.keySafe = \"vmware:key/list\""), unsupportedKind, "descriptor.encryption.keysafe"},
	{"a line of neither kind", described("custom", "RW 16 ZERO\nREAD 16 FLAT \"ok\""), corruptKind, "descriptor"},
	{"NUL in the middle", described("custom", "\x00RW 16 ZERO"), corruptKind, "descriptor"},

	{"no access", described("custom", `NOACCESS 16 FLAT "ok" 0`), unsupportedKind, "descriptor.extent"},
	{"access alone", described("custom", `RW`), corruptKind, "descriptor.extent"},
	{"no type", described("custom", `RW 16`), corruptKind, "descriptor.extent"},
	{"type unknown", described("custom", `RW 16 FLOAT "ok" 0`), unsupportedKind, "descriptor.extent"},
	{"type of snapshots", described("custom", `RW 16 VMFSSPARSE "ok"`), unsupportedKind, "descriptor.extent"},
	{"type SESPARSE", described("custom", `RW 16 SESPARSE "ok"`), unsupportedKind, "descriptor.extent"},
	{"type of a device", described("custom", `RW 16 VMFSRDM "ok"`), unsupportedKind, "descriptor.extent"},
	{"size 0", described("custom", `RW 0 FLAT "ok" 0`), corruptKind, "descriptor.extent"},
	{"size negative", described("custom", `RW -16 FLAT "ok" 0`), corruptKind, "descriptor.extent"},
	{"size hexadecimal", described("custom", `RW 0x10 FLAT "ok" 0`), corruptKind, "descriptor.extent"},
	{"size over 64 bits", described("custom", `RW 18446744073709551616 ZERO`), corruptKind, "descriptor.extent"},
	{"size at 64 bits", described("custom", `RW 18446744073709551615 ZERO`), unsupportedKind, "descriptor.extent"},
	{"size so that bytes overflow", described("custom", `RW 36028797018963968 ZERO`), unsupportedKind, "descriptor.extent"},
	{"sum over 62 TiB", described("custom", `RW 133143986176 ZERO`, `RW 1 ZERO`), unsupportedKind, "descriptor.extent"},
	{"1025 extents", described("custom", strings.Repeat("RW 1 ZERO\n", MaxExtents+1)), unsupportedKind, "descriptor.extent"},
	{"flat without a file", described("custom", `RW 16 FLAT`), corruptKind, "descriptor.extent"},
	{"zero with a file", described("custom", `RW 16 ZERO "ok"`), corruptKind, "descriptor.extent"},
	{"sparse with an offset", described("custom", `RW 16 SPARSE "ok" 0`), corruptKind, "descriptor.extent"},
	{"too many words", described("custom", `RW 16 FLAT "ok" 0 id 5`), corruptKind, "descriptor.extent"},
	{"a quote without end", described("custom", `RW 16 FLAT "ok 0`), corruptKind, "descriptor.extent"},
	{"offset negative", described("custom", `RW 16 FLAT "ok" -1`), corruptKind, "descriptor.extent"},
	{"offset giant", described("custom", `RW 16 FLAT "ok" 18446744073709551615`), corruptKind, "descriptor.extent"},
	{"offset at the bound", described("custom", `RW 16 FLAT "ok" 9007199254740992`), incompleteKind, "descriptor.extent"},
	{"offset beyond the file", described("custom", `RW 1 FLAT "ok" 17`), incompleteKind, "descriptor.extent"},
	{"size beyond the file", described("custom", `RW 17 FLAT "ok"`), incompleteKind, "descriptor.extent"},
	{"both beyond the file", described("custom", `RW 16 FLAT "ok" 1`), incompleteKind, "descriptor.extent"},

	{"a path", described("custom", `RW 16 FLAT "/etc/shadow" 0`), unsupportedKind, "descriptor.extent"},
	{"a path up", described("custom", `RW 16 FLAT "../ok" 0`), unsupportedKind, "descriptor.extent"},
	{"a path down", described("custom", `RW 16 FLAT "sub/ok" 0`), unsupportedKind, "descriptor.extent"},
	{"a path of Windows", described("custom", `RW 16 FLAT "..\ok" 0`), unsupportedKind, "descriptor.extent"},
	{"a drive", described("custom", `RW 16 FLAT "C:ok" 0`), unsupportedKind, "descriptor.extent"},
	{"a URL", described("custom", `RW 16 SPARSE "http://169.254.169.254/"`), unsupportedKind, "descriptor.extent"},
	{"a protocol of QEMU", described("custom", `RW 16 FLAT "nbd:localhost:10809" 0`), unsupportedKind, "descriptor.extent"},
	{"the folder", described("custom", `RW 16 FLAT "." 0`), unsupportedKind, "descriptor.extent"},
	{"the folder above", described("custom", `RW 16 FLAT ".." 0`), unsupportedKind, "descriptor.extent"},
	{"no name", described("custom", `RW 16 FLAT "" 0`), unsupportedKind, "descriptor.extent"},
	{"a name with a bell", described("custom", "RW 16 FLAT \"o\ak\" 0"), unsupportedKind, "descriptor.extent"},
	{"a name of no encoding", described("custom", "RW 16 FLAT \"\xff\xfe\" 0"), unsupportedKind, "descriptor.extent"},
	{"a name of 256 bytes", described("custom", "RW 16 FLAT \""+strings.Repeat("o", 256)+"\" 0"), unsupportedKind, "descriptor.extent"},

	{"sparse, but it is flat", described("custom", `RW 16 SPARSE "ok"`), corruptKind, "header.magicNumber"},
	{"sparse, but it is a descriptor", described("custom", `RW 16 SPARSE "descriptor"`), corruptKind, "header.magicNumber"},
	{"sparse, but it is empty", described("custom", `RW 16 SPARSE "empty"`), incompleteKind, "file size"},
	{"sparse, but it is of ESX", described("custom", `RW 16 SPARSE "cowd"`), unsupportedKind, "header.magic"},
	{"sparse of another capacity", described("custom", `RW 17 SPARSE "sparse"`), corruptKind, "header.capacity"},
	{"sparse with a parent", described("custom", `RW 16 SPARSE "delta"`), unsupportedKind, "descriptor.parentCID"},
}

func TestHostileDescriptors(t *testing.T) {
	part := build{disk: make([]byte, sixteen), grain: 8192}
	delta := &victim{b: part.file()}
	text("parentCID=ffffffff", "parentCID=00000001")(delta)
	dir := files{
		"ok": make([]byte, sixteen), "empty": {}, "cowd": append([]byte(magicESX), make([]byte, 4096)...),
		"sparse": part.file(), "delta": delta.b,
	}
	dir["descriptor"] = []byte(described("custom", `RW 16 SPARSE "descriptor"`) + strings.Repeat("#\n", 300))
	opener := func(name string) (io.ReaderAt, int64, error) {
		if _, ok := dir[name]; !ok {
			t.Errorf("%q was to be opened", name)
		}
		return dir.open(name)
	}
	for _, c := range hostileDescriptors {
		refused(t, c.name, c.kind, c.field, strings.NewReader(c.text), func(r io.ReaderAt) error {
			_, err := Open(r, int64(len(c.text)), opener)
			return err
		})
	}
	// What is refused above is refused for its one fault.
	for _, extent := range []string{`RW 16 FLAT "ok" 0`, `RW 16 FLAT "ok"`, `RW 16 SPARSE "sparse"`, `RW 133143986176 ZERO`, `RW 15 FLAT "ok" 1`} {
		s := described("custom", extent)
		if _, err := Open(strings.NewReader(s), int64(len(s)), opener); err != nil {
			t.Errorf("%s: %v", extent, err)
		}
	}
}

// Without an opener nothing beside the file is read, and the error names what
// would have been; zeros need no file.
func TestNoOpener(t *testing.T) {
	t.Parallel()
	s := described("monolithicFlat", `RW 16 FLAT "server-flat.vmdk" 0`)
	_, err := Open(strings.NewReader(s), int64(len(s)), nil)
	if !errors.Is(err, unsupportedKind) || !strings.Contains(err.Error(), "server-flat.vmdk") {
		t.Error(err)
	}
	s = described("custom", "RW 16 ZERO")
	f, err := Open(strings.NewReader(s), int64(len(s)), nil)
	if err != nil || f.Size() != sixteen {
		t.Fatal(err)
	}
	for e, err := range f.Map(t.Context()) {
		if err != nil || e != (diskformat.Extent{Length: sixteen}) {
			t.Errorf("%+v, %v", e, err)
		}
	}
	// What the opener says is passed on.
	s = described("monolithicFlat", `RW 16 FLAT "gone" 0`)
	if _, err := Open(strings.NewReader(s), int64(len(s)), files{}.open); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A descriptor has at most 1 MiB; one that has is read in no time.
func TestLongDescriptor(t *testing.T) {
	t.Parallel()
	s := described("custom", "RW 16 ZERO")
	for _, c := range []struct{ name, line string }{
		{"lines", "#\n"}, {"one line", "x"}, {"settings", "ddb.a=b\n"}, {"blank", "\n"},
	} {
		long := s + "#" + strings.Repeat(c.line, (maxDescriptor-len(s)-1)/len(c.line))
		if _, err := Open(strings.NewReader(long), int64(len(long)), nil); err != nil && c.name != "settings" {
			t.Errorf("%s: %v", c.name, err)
		}
		long += strings.Repeat(" ", maxDescriptor+1-len(long))
		_, err := Open(strings.NewReader(long), int64(len(long)), nil)
		if !errors.Is(err, unsupportedKind) {
			t.Errorf("%s and a byte: %v", c.name, err)
		}
	}
	// Extents in number.
	lines := make([]string, MaxExtents)
	for i := range lines {
		lines[i] = fmt.Sprintf("RW %d ZERO", i+1)
	}
	s = described("custom", lines...)
	f, err := Open(strings.NewReader(s), int64(len(s)), nil)
	if err != nil || f.Size() != MaxExtents*(MaxExtents+1)/2*sectorSize {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, f.Size()+1), 0); int64(n) != f.Size() || err != io.EOF {
		t.Error(n, err)
	}
}
