package diskformat_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/quickims/quickims/internal/diskformat"
)

// madeBy are commands that make a file out of the folder's disk.raw, of 200 KiB, and
// what it is.
var madeBy = []struct {
	want diskformat.Format
	line string
}{
	{diskformat.Gzip, "gzip -c disk.raw >out"},
	{diskformat.XZ, "xz -c disk.raw >out"},
	{diskformat.LZMA, "xz -c --format=lzma disk.raw >out"},
	{diskformat.LZMA, "xz -c --format=lzma -9 disk.raw >out"},
	{diskformat.LZMA, "xz -c --format=lzma --lzma1=dict=96KiB,lc=2,lp=2,pb=1 disk.raw >out"},
	{diskformat.Zstd, "zstd -q -c disk.raw >out"},
	{diskformat.Bzip2, "bzip2 -c disk.raw >out"},
	{diskformat.LZ4, "lz4 -q -c disk.raw >out"},
	{diskformat.LZ4, "lz4 -q -l -c disk.raw >out"},
	{diskformat.Lzip, "lzip -c disk.raw >out"},
	{diskformat.Lzop, "lzop -c disk.raw >out"},
	{diskformat.Zip, "zip -q out.zip disk.raw && mv out.zip out"},
	{diskformat.SevenZip, "7zz a -bso0 out.7z disk.raw && mv out.7z out"},
	{diskformat.TAR, "tar --format=v7 -cf out disk.raw"},
	{diskformat.TAR, "tar --format=ustar -cf out disk.raw"},
	{diskformat.TAR, "tar --format=gnu -cf out disk.raw"},
	{diskformat.TAR, "tar --format=posix -cf out disk.raw"},
	{diskformat.CPIO, "echo disk.raw | cpio --quiet -H newc -o >out"},
	{diskformat.CPIO, "echo disk.raw | cpio --quiet -H crc -o >out"},
	{diskformat.CPIO, "echo disk.raw | cpio --quiet -H odc -o >out"},
	{diskformat.AR, "ar -r out disk.raw 2>/dev/null"},
	{diskformat.PGP, "echo pw | gpg -q --batch --passphrase-fd 0 -o out -c disk.raw"},
	{diskformat.PGP, "echo pw | gpg -q --batch --passphrase-fd 0 --armor -o out -c disk.raw"},
	{diskformat.PGP, "gpg -q --batch --passphrase '' --quick-gen-key a@example.org rsa2048 encr && gpg -q --batch --trust-model always -r a@example.org -o out -e disk.raw"},
	{diskformat.PGP, "gpg -q --batch --passphrase '' --quick-gen-key b@example.org future-default && gpg -q --batch --trust-model always -r b@example.org -o out -e disk.raw"},
	{diskformat.OpenSSL, "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in disk.raw -out out"},
	{diskformat.ISO, "xorriso -as mkisofs -quiet -o out disk.raw"},
	{diskformat.LUKS, "qemu-img create -q -f luks --object secret,id=s,data=x -o key-secret=s,iter-time=10 out 1M"},
}

// What tools make of a disk is not a disk any more, and says so.
func TestNoDisks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := make([]byte, 200<<10)
	for i := range disk {
		disk[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range madeBy {
		cmd := exec.Command("sh", "-c", "rm -f out; "+c.line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GNUPGHOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.line, err, out)
		}
		b, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := diskformat.Detect(bytes.NewReader(b), int64(len(b)))
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; right is %s", c.line, got, err, c.want)
		}
		if c.want.Advice() == "" || !strings.HasPrefix(c.want.Describe(), "a") && !strings.HasPrefix(c.want.Describe(), "data") {
			t.Errorf("%s: %q, %q", c.want, c.want.Describe(), c.want.Advice())
		}
	}
	if gpgconf, err := exec.LookPath("gpgconf"); err == nil { // ends the agent of this folder
		cmd := exec.Command(gpgconf, "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+dir)
		_ = cmd.Run()
	}
}

func inUTF16(order binary.AppendByteOrder, text string) string {
	b := order.AppendUint16(nil, 0xfeff)
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

const page = "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"

// What a server says in place of a disk is a page, in whatever way it is written.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file string
		want       diskformat.Format
	}{
		{"HTML", page, diskformat.HTML},
		{"HTML, capitals", strings.ToUpper(page), diskformat.HTML},
		{"HTML behind a byte order mark", "\xef\xbb\xbf" + page, diskformat.HTML},
		{"HTML in UTF-16, little-endian", inUTF16(binary.LittleEndian, page), diskformat.HTML},
		{"HTML in UTF-16, big-endian", inUTF16(binary.BigEndian, page), diskformat.HTML},
		{"HTML behind white space and a comment", "\r\n\t <!-- made by\nhand --> <html lang=de>B\xfcro</html>", diskformat.HTML},
		{"HTML without its optional tags", "<title>Moved</title><p>The document has moved", diskformat.HTML},
		{"XHTML", "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\" \"x\"><html xmlns=\"x\"/>", diskformat.HTML},
		{"HTML, padded to a sector", page + strings.Repeat("\x00", 1024-len(page)), diskformat.HTML},
		{"HTML, padded to a megabyte", page + strings.Repeat("\x00", mib-len(page)), diskformat.HTML},
		{"HTML, a large one", page + strings.Repeat("<p>It was moved.</p>\n", 10000), diskformat.HTML},
		{"an error of S3", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code></Error>", diskformat.XML},
		{"an error of S3 without a prologue", "<Error><Code>NoSuchKey</Code></Error>", diskformat.XML},
		{"OVF", "<?xml version='1.0'?><Envelope/>", diskformat.XML},
		{"an error in JSON", "{\"error\": {\"code\": 401}}\n", diskformat.JSON},
		{"a list in JSON", "\n[1, 2]", diskformat.JSON},
		{"JSON, a large one", "{\"items\": [\n" + strings.Repeat("\"x\",\n", 30000), diskformat.JSON},
		{"a line", "404 Not Found\n", diskformat.Text},
		{"a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", diskformat.Text},
		{"letters beyond ASCII", strings.Repeat("Die Datei ist nicht verfügbar. ", 5000), diskformat.Text},
		{"a line, padded to a sector", "Access denied.\n" + strings.Repeat("\x00", 497), diskformat.Text},

		{"text at the front of a disk", "a few words" + strings.Repeat("\x00", mib), diskformat.Raw},
		{"a page at the front of a disk", page + strings.Repeat("\x00", mib) + "\xff\x01", diskformat.Raw},
		{"a text as large as a disk", strings.Repeat("a line of a log\n", 100000), diskformat.Raw},
		{"a pattern", strings.Repeat("disk", 1000), diskformat.Raw},
		{"bytes of no text", "<html>\x00\x01\x02</html>", diskformat.Raw},
		{"a tag of nothing", "<\x90\x90\x90", diskformat.Raw},
		{"a page under a boot sector", page + strings.Repeat("\x00", 510-len(page)) + "\x55\xaa" + strings.Repeat("\x00", 512), diskformat.Raw},
	} {
		got, err := diskformat.Detect(strings.NewReader(c.file), int64(len(c.file)))
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; right is %s", c.name, got, err, c.want)
		}
	}
}

// Files whose tools are not in Debian, by their headers.
func TestNoDisksByHeader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		head string
		want diskformat.Format
	}{
		"E01":            {"EVF\x09\x0d\x0a\xff\x00\x01\x01\x00\x00\x00", diskformat.EWF},
		"Ex01":           {"EVF2\x0d\x0a\x81\x00\x02\x01", diskformat.EWF},
		"L01":            {"LVF\x09\x0d\x0a\xff\x00\x01\x01\x00\x00\x00", diskformat.EWF},
		"Android sparse": {"\x3a\xff\x26\xed\x01\x00\x00\x00\x1c\x00\x0c\x00\x00\x10\x00\x00", diskformat.AndroidSparse},
		"VMA":            {"VMA\x00\x00\x00\x00\x01", diskformat.VMA},
		"RAR 4":          {"Rar!\x1a\x07\x00", diskformat.RAR},
		"RAR 5":          {"Rar!\x1a\x07\x01\x00", diskformat.RAR},
		"partclone":      {"partclone-image0002", diskformat.Partclone},
		"ntfsclone":      {"\x00ntfsclone-image\x0a\x00", diskformat.Partclone},
		"age":            {"age-encryption.org/v1\n-> X25519 a\n\x80\x81", diskformat.Age},
		"compress":       {"\x1f\x9d\x90\x80\x80", diskformat.Compress},
		"an empty zip":   {"PK\x05\x06", diskformat.Zip},
		"cabinet":        {"MSCF\x00\x00\x00\x00", diskformat.Cabinet},
		"RPM":            {"\xed\xab\xee\xdb\x03\x00", diskformat.RPM},
		"PDF":            {"%PDF-1.7\n%\xe2\xe3", diskformat.PDF},
		"a program":      {"\x7fELF\x02\x01\x01", diskformat.ELF},
		"LUKS 1":         {"LUKS\xba\xbe\x00\x01", diskformat.LUKS},

		// Marks by chance: a boot sector wins, and numbers that are none do not count.
		"lzma with an odd dictionary": {"\x5d\x01\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00", diskformat.Raw},
		"lzma with a wrong coder":     {"\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x01", diskformat.Raw},
		"a packet of no cipher":       {"\x8c\x0d\x04\x63\x03\x02", diskformat.Raw},
		"cpio's number alone":         {"070701\x00\x00", diskformat.Raw},
	} {
		b := append([]byte(c.head), make([]byte, mib-len(c.head))...)
		got, err := diskformat.Detect(bytes.NewReader(b), mib)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; right is %s", name, got, err, c.want)
		}
		if weak := c.want == diskformat.Raw; weak {
			continue
		}
		// A boot sector before it makes a disk only of what is weak, and none of these is.
		copy(b[510:], "\x55\xaa")
		if got, _ := diskformat.Detect(bytes.NewReader(b), mib); got != c.want {
			t.Errorf("%s with the mark of a boot sector: %q", name, got)
		}
	}
}
