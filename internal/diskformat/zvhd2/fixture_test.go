package zvhd2

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

func mustOpen(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// extract returns the disk by way of a file, as users get it.
func extract(t testing.TB, f *File, opts ExtractOptions) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out.raw")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := f.Extract(t.Context(), out, opts); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func convertBytes(t testing.TB, raw []byte, opts Options) []byte {
	t.Helper()
	var out bytes.Buffer
	s, err := Convert(t.Context(), &out, bytes.NewReader(raw), int64(len(raw)), ConvertOptions{Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	if s.FileSize != int64(out.Len()) {
		t.Fatalf("the summary says %d bytes, %d were written", s.FileSize, out.Len())
	}
	return out.Bytes()
}

// The published code's file gives the published code's disk.
func TestFixtureDecodes(t *testing.T) {
	t.Parallel()
	raw, file := disktest.Fixture(t, "c.raw"), disktest.Fixture(t, "c.zvhd2")
	if len(raw) != 16806400 {
		t.Fatalf("c.raw has %d bytes", len(raw))
	}
	f := mustOpen(t, file)
	if f.OrigSize() != int64(len(raw)) || f.Size() != 1<<30 || f.BlockSize() != 2<<20 || f.Blocks() != 9 || f.DataBlocks() != 3 {
		t.Fatalf("sizes %d %d, blocks of %d: %d, %d of them data", f.OrigSize(), f.Size(), f.BlockSize(), f.Blocks(), f.DataBlocks())
	}
	if f.Compression() != "zstd" || f.Created().Year() < 2018 {
		t.Errorf("compression %s, created %s", f.Compression(), f.Created())
	}
	if !bytes.Equal(extract(t, f, ExtractOptions{}), raw) {
		t.Error("the extracted disk differs from the source")
	}
	virtual := make([]byte, 20<<20)
	if _, err := f.ReadAt(virtual, 0); err != nil {
		t.Fatal(err)
	}
	if want := append(bytes.Clone(raw), make([]byte, len(virtual)-len(raw))...); !bytes.Equal(virtual, want) {
		t.Error("the virtual disk differs from the source with a tail of zeros")
	}
	for block, want := range map[uint32][3]int64{0: {4096, 4096, 1}, 1: {}, 2: {8192, 4096, 1}, 5: {12288, 4096, 1}, 8: {}, 9: {}, 1 << 31: {}} {
		off, length, ok := f.Record(block)
		if off != want[0] || length != want[1] || ok != (want[2] == 1) {
			t.Errorf("record of block %d: %d bytes at %d, %v", block, length, off, ok)
		}
	}
	if err := f.Verify(t.Context(), Options{}); err != nil {
		t.Error(err)
	}
}

// Our header is, byte for byte, the one that the published code wrote for the
// same disk at the same time under the same UUID, and our copy and footer
// differ from its own only where offsets and checksums must.
func TestWritesThePublishedHeader(t *testing.T) {
	t.Parallel()
	raw, theirs := disktest.Fixture(t, "c.raw"), disktest.Fixture(t, "c.zvhd2")
	fixture := mustOpen(t, theirs)
	ours := convertBytes(t, raw, Options{WholeBlocks: true, Now: fixture.Created(), UUID: fixture.UUID()})
	if !bytes.Equal(ours[:512], theirs[:512]) {
		t.Errorf("header:\n%x\n%x", ours[:512], theirs[:512])
	}
	if !bytes.Equal(ours[512:4096], make([]byte, 4096-512)) {
		t.Error("the rest of the header's page is not zero")
	}
	// The three records take one page each in both files.
	if len(ours) != len(theirs) {
		t.Fatalf("ours has %d bytes, theirs %d", len(ours), len(theirs))
	}
	copyOf := func(b []byte) []byte {
		c := bytes.Clone(b[4*4096 : 4*4096+512])
		clear(c[64:68]) // stale in theirs
		return c
	}
	if !bytes.Equal(copyOf(ours), copyOf(theirs)) {
		t.Errorf("copy:\n%x\n%x", copyOf(ours), copyOf(theirs))
	}
	if !bytes.Equal(ours[5*4096:5*4096+524288+4096], theirs[5*4096:5*4096+524288+4096]) {
		t.Error("index or bitmap differ")
	}
	if a, b := ours[len(ours)-4096:][:512], theirs[len(theirs)-4096:][:512]; !bytes.Equal(a, b) {
		t.Errorf("footer:\n%x\n%x", a, b)
	}
	// The copy's checksum is valid in ours.
	c := ours[4*4096:]
	if got, want := binary.LittleEndian.Uint32(c[64:]), checksumOf(c); got != want {
		t.Errorf("the copy's checksum is %#x, right is %#x", got, want)
	}
	if !bytes.Equal(extract(t, mustOpen(t, ours), ExtractOptions{}), raw) {
		t.Error("the disk differs after the way there and back")
	}
}

// checksumOf is the header's checksum in the words of its description.
func checksumOf(b []byte) uint32 {
	sum := uint32(0)
	for i, c := range b[:512] {
		if i/4 != 16 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// What a record holds on disk, seen without this package's decoder.
func TestRecordOnDisk(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 4<<20)
	disktest.Fill(raw[2<<20:], 7)
	b := convertBytes(t, raw, Options{WholeBlocks: true})
	off, length, ok := mustOpen(t, b).Record(1)
	if !ok {
		t.Fatal("block 1 is not stored")
	}
	rec := b[off : off+length]
	size := int64(binary.LittleEndian.Uint32(rec[12:]))
	if string(rec[:12]) != "hwstream bg\x00" || binary.LittleEndian.Uint32(rec[16:]) != 1 || string(rec[length-4:]) != "end\x00" {
		t.Errorf("head % x tail % x", rec[:48], rec[length-4:])
	}
	if !bytes.Equal(rec[20:48], make([]byte, 28)) || !bytes.Equal(rec[48+size:length-4], make([]byte, length-52-size)) {
		t.Error("reserved or padding bytes are not zero")
	}
	if length != (48+size+4+4095)/4096*4096 {
		t.Errorf("%d bytes of payload in a record of %d", size, length)
	}
	// RFC 8878: magic; content size of 4 bytes, single segment, checksum.
	if want := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0, 0, 0x20, 0}; !bytes.Equal(rec[48:57], want) {
		t.Errorf("frame header % x, right is % x", rec[48:57], want)
	}
}

func TestTimeAndUUIDAreInputs(t *testing.T) {
	t.Parallel()
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	id := [16]byte{1, 2, 3}
	f := mustOpen(t, convertBytes(t, make([]byte, 512), Options{Now: now, UUID: id}))
	if !f.Created().Equal(now) || f.UUID() != id {
		t.Errorf("created %s, UUID %x", f.Created(), f.UUID())
	}
	a, b := mustOpen(t, convertBytes(t, make([]byte, 512), Options{})), mustOpen(t, convertBytes(t, make([]byte, 512), Options{}))
	if a.UUID() == b.UUID() || time.Since(a.Created()) > time.Hour {
		t.Errorf("UUIDs %x and %x, created %s", a.UUID(), b.UUID(), a.Created())
	}
}
