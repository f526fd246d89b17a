package open_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/open"
)

// encodings are those that VMware Workstation declares on Windows and Linux, with
// iconv's name and a name of a machine in it. In some of these the second byte of a
// letter is that of a backslash or a bracket.
var encodings = []struct{ declared, iconv, stem string }{
	{"GBK", "GBK", "虚拟机"},
	{"GBK", "GBK", "俓俙乗"},
	{"gb18030", "GB18030", "虚拟机㐀"},
	{"GB2312", "GB2312", "虚拟机"},
	{"windows-936", "GBK", "虚拟机"},
	{"Big5", "BIG5", "虛擬功能"},
	{"windows-950", "CP950", "許功蓋"},
	{"Shift_JIS", "SHIFT-JIS", "表示ソ能"},
	{"windows-932", "CP932", "仮想マシン"},
	{"windows-31j", "CP932", "仮想①"},
	{"EUC-JP", "EUC-JP", "仮想マシン"},
	{"EUC-KR", "EUC-KR", "가상머신"},
	{"windows-949", "CP949", "가상머신"},
	{"windows-1250", "CP1250", "Počítač"},
	{"windows-1251", "CP1251", "Машина"},
	{"windows-1252", "CP1252", "Büro – 1"},
	{"windows-1253", "CP1253", "Μηχανή"},
	{"windows-1254", "CP1254", "Işık"},
	{"windows-1255", "CP1255", "מכונה"},
	{"windows-1256", "CP1256", "جهاز"},
	{"ISO-8859-1", "ISO-8859-1", "Büro"},
	{"ISO-8859-15", "ISO-8859-15", "Büro€"},
	{"KOI8-R", "KOI8-R", "Машина"},
	{"CP437", "CP437", "Büro"},
	{"UTF-8", "UTF-8", "虚拟机 Büro"},
}

func descriptor(t *testing.T, dir, declared, charset, stem string, sectors string) {
	t.Helper()
	text := "# Disk DescriptorFile\nversion=1\n"
	if declared != "" {
		text += "encoding=\"" + declared + "\"\n"
	}
	text += "CID=1a2b3c4d\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW " + sectors + " FLAT \"" + stem + "-flat.vmdk\" 0\n\nddb.adapterType = \"lsilogic\"\n"
	cmd := exec.Command("iconv", "-f", "UTF-8", "-t", charset)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("iconv to %s: %v", charset, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "disk.vmdk"), out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The names in a descriptor are read in the encoding that it declares.
func TestDescriptorEncodings(t *testing.T) {
	t.Parallel()
	for _, c := range encodings {
		dir := t.TempDir()
		disk := make([]byte, 1<<20)
		disktest.Fill(disk, 3)
		if err := os.WriteFile(filepath.Join(dir, c.stem+"-flat.vmdk"), disk, 0o600); err != nil {
			t.Fatal(err)
		}
		descriptor(t, dir, c.declared, c.iconv, c.stem, "2048")
		d, err := open.Open((&folder{t: t, dir: dir}).source("disk.vmdk"), "")
		if err != nil {
			t.Errorf("%s, %s: %v", c.declared, c.stem, err)
			continue
		}
		got := make([]byte, d.Size())
		if err := diskformat.ReadFull(d, got, 0); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s: another disk, %v", c.declared, err)
		}
		want := diskformat.NoteEncoding
		if c.declared == "UTF-8" {
			want = ""
		}
		if ids := noteIDs(d.Notes()); ids != want {
			t.Errorf("%s: the notes are %q", c.declared, ids)
		}
	}
}

// An encoding that is not known matters only where there is more than ASCII; what can't
// be decoded opens nothing.
func TestDescriptorsThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"plain-flat.vmdk", "B\ufffdro-flat.vmdk"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	descriptor(t, dir, "x-klingon", "UTF-8", "plain", "2048")
	if d, err := open.Open((&folder{t: t, dir: dir}).source("disk.vmdk"), ""); err != nil || len(d.Notes()) > 0 {
		t.Errorf("an unknown encoding of ASCII: %v", err)
	}
	for name, c := range map[string]struct {
		declared, charset string
		says              string
	}{
		"unknown":             {"x-klingon", "CP1252", `encoding: it is "x-klingon"`},
		"of two bytes":        {"UTF-16", "CP1252", `encoding: it is "UTF-16"`},
		"not declared":        {"", "CP1252", `encoding="windows-1252"`},
		"declared wrongly":    {"UTF-8", "CP1252", "not in UTF-8"},
		"bytes that are none": {"Shift_JIS", "CP1252", "none of the encoding"},
	} {
		descriptor(t, dir, c.declared, c.charset, "Büro", "2048")
		f := &folder{t: t, dir: dir}
		_, err := open.Open(f.source("disk.vmdk"), "")
		if err == nil || !strings.Contains(err.Error(), c.says) || len(f.opened) > 0 ||
			!errors.Is(err, diskformat.ErrUnsupported) && !errors.Is(err, diskformat.ErrCorrupt) {
			t.Errorf("%s: %v; opened %q", name, err, f.opened)
		}
	}
}
