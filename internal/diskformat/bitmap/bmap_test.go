package bitmap

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os/exec"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/fuzztest"
	"github.com/quickims/quickims/internal/ims"
)

// bmapFile is a block map that a test changes before it is written.
type bmapFile struct {
	version, sumType    string
	size, block         int64
	count, mapped       string
	ranges              []string // "a-b" or "a"
	raw                 []byte   // checksums of its ranges are written if set
	before, inside, end string   // further text
}

func newHash(sumType string) hash.Hash {
	if sumType == "sha1" {
		return sha1.New()
	}
	return sha256.New()
}

// bytes writes the block map with its own checksum.
func (f bmapFile) bytes() []byte {
	sumElement, attrName := "BmapFileChecksum", "chksum"
	if f.version == "1.3" {
		sumElement, attrName, f.sumType = "BmapFileSHA1", "sha1", "sha1"
	}
	zeros := strings.Repeat("0", 2*newHash(f.sumType).Size())
	var b strings.Builder
	fmt.Fprintf(&b, "<?xml version=\"1.0\" ?>\n%s<!-- %s -->\n<bmap version=%q>\n", f.before, zeros, f.version)
	fmt.Fprintf(&b, " <ImageSize> %d </ImageSize>\n <BlockSize>%d</BlockSize>\n", f.size, f.block)
	fmt.Fprintf(&b, " <BlocksCount> %s </BlocksCount><MappedBlocksCount>%s </MappedBlocksCount>\n", f.count, f.mapped)
	if f.version != "1.3" {
		fmt.Fprintf(&b, "<ChecksumType> %s </ChecksumType>\n", f.sumType)
	}
	fmt.Fprintf(&b, " <%s> %s </%s>\n%s<BlockMap>\n", sumElement, zeros, sumElement, f.inside)
	for _, r := range f.ranges {
		sum := ""
		if f.raw != nil {
			var first, last int64
			if n, _ := fmt.Sscanf(r, "%d-%d", &first, &last); n == 1 {
				last = first
			}
			h := newHash(f.sumType)
			h.Write(f.raw[first*f.block : min(int64(len(f.raw)), (last+1)*f.block)])
			sum = fmt.Sprintf(" %s=\"%x\"", attrName, h.Sum(nil))
		}
		fmt.Fprintf(&b, "  <Range%s> %s </Range>\n", sum, r)
	}
	b.WriteString(" </BlockMap>\n</bmap>\n" + f.end)
	out := []byte(b.String())
	h := newHash(f.sumType)
	h.Write(out)
	at := bytes.Index(out, []byte("<"+sumElement+"> ")) + len(sumElement) + 3
	copy(out[at:], hex.EncodeToString(h.Sum(nil)))
	return out
}

// fixtureMap is the map that bmaptool 3.6 makes of c.raw on ext4.
func fixtureMap(t testing.TB) bmapFile {
	return bmapFile{
		version: "2.0", sumType: "sha256", size: 16806400, block: 4096, count: "4104", mapped: "514",
		ranges: []string{"0-511", "1024", "2560"}, raw: disktest.Fixture(t, "c.raw"),
	}
}

func TestBMAPVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.3", "1.4", "2.0", "2.7"} {
		f := fixtureMap(t)
		f.version = version
		m, err := parseBytes(f.bytes(), f.size)
		if err != nil {
			t.Errorf("version %s: %v", version, err)
			continue
		}
		if m.Kind() != BMAP {
			t.Errorf("version %s: %s (%s)", version, m.Kind(), m.Reason())
		}
		checkMap(t, m, f.raw, false)
		if err := m.Verify(t.Context(), bytes.NewReader(f.raw), nil, Options{}); err != nil {
			t.Errorf("version %s: %v", version, err)
		}
		changed := bytes.Clone(f.raw)
		changed[1024*4096+9] ^= 1
		if err := m.Verify(t.Context(), bytes.NewReader(changed), nil, Options{}); !errors.Is(err, diskformat.ErrMismatch) {
			t.Errorf("version %s, a changed disk: %v", version, err)
		}
	}
	for version, reason := range map[string]string{"0.9": "checksum", "1.0": "checksum", "1.2": "checksum", "3.0": "version"} {
		f := fixtureMap(t)
		f.version = version
		m, err := parseBytes(f.bytes(), f.size)
		if err != nil || m.Kind() != Unknown || m.DataBlocks() != m.Blocks() || !strings.Contains(m.Reason(), reason) {
			t.Errorf("version %s: %v, %+v", version, err, m)
		}
	}
	f := fixtureMap(t)
	f.sumType = "md5"
	if m, err := parseBytes(f.bytes(), f.size); err != nil || m.Kind() != Unknown || !strings.Contains(m.Reason(), "md5") {
		t.Errorf("md5: %v, %+v", err, m)
	}
}

// Ranges of any grain, folded into blocks of 2 MiB: one that touches a block
// makes it data.
func TestBMAPFolding(t *testing.T) {
	t.Parallel()
	f := bmapFile{version: "2.0", sumType: "sha256", size: 8*BlockSize + 100, block: 4096, count: "4097", mapped: "517",
		ranges: []string{"511-512", "1536", "2048-2560", "4096"}}
	m, err := parseBytes(f.bytes(), f.size)
	if err != nil {
		t.Fatal(err)
	}
	want := []bool{true, true, false, true, true, true, false, false, true}
	for i, data := range want {
		if m.Block(int64(i)) != data {
			t.Errorf("block %d: %v", i, !data)
		}
	}
	if err := m.Verify(t.Context(), bytes.NewReader(make([]byte, f.size)), nil, Options{}); !errors.Is(err, ErrUnverifiable) {
		t.Errorf("without checksums of ranges: %v", err)
	}
	big := bmapFile{version: "2.0", sumType: "sha256", size: 3 << 30, block: 64 << 20, count: "48", mapped: "1", ranges: []string{"47"}}
	if m, err := parseBytes(big.bytes(), big.size); err != nil || m.DataBlocks() != 32 || m.Block(1503) || !m.Block(1504) {
		t.Errorf("blocks of 64 MiB: %v", err)
	}
	empty := bmapFile{version: "2.0", sumType: "sha256", size: 100, block: 4096, count: "1", mapped: "0"}
	if m, err := parseBytes(empty.bytes(), empty.size); err != nil || m.DataBlocks() != 0 || m.Verify(t.Context(), nil, nil, Options{}) != nil {
		t.Errorf("no ranges: %v", err)
	}
}

func TestHostileBMAPsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		poke  func(f *bmapFile)
		kind  error
		field string
	}{
		{"another disk's size", func(f *bmapFile) { f.size += 4096 }, diskformat.ErrMismatch, "ImageSize"},
		{"size giant", func(f *bmapFile) { f.size = 1<<63 - 1 }, diskformat.ErrMismatch, "ImageSize"},
		{"size negative", func(f *bmapFile) { f.size = -1 }, diskformat.ErrCorrupt, "ImageSize"},
		{"block size 0", func(f *bmapFile) { f.raw, f.block = nil, 0 }, diskformat.ErrCorrupt, "BlockSize"},
		{"block size 3", func(f *bmapFile) { f.raw, f.block = nil, 3000 }, diskformat.ErrCorrupt, "BlockSize"},
		{"block size giant", func(f *bmapFile) { f.raw, f.block = nil, 1<<62 }, diskformat.ErrCorrupt, "BlockSize"},
		{"block size 256", func(f *bmapFile) { f.raw, f.block = nil, 256 }, diskformat.ErrCorrupt, "BlockSize"},
		{"blocks", func(f *bmapFile) { f.count = "4105" }, diskformat.ErrCorrupt, "BlocksCount"},
		{"blocks beyond 64 bits", func(f *bmapFile) { f.count = "99999999999999999999" }, diskformat.ErrCorrupt, "BlocksCount"},
		{"blocks as a word", func(f *bmapFile) { f.count = "many" }, diskformat.ErrCorrupt, "BlocksCount"},
		{"mapped blocks", func(f *bmapFile) { f.mapped = "513" }, diskformat.ErrCorrupt, "MappedBlocksCount"},
		{"a range more", func(f *bmapFile) { f.raw = nil; f.ranges = append(f.ranges, "3000") }, diskformat.ErrCorrupt, "MappedBlocksCount"},
		{"a range beyond", func(f *bmapFile) { f.raw = nil; f.ranges[2] = "4104" }, diskformat.ErrCorrupt, "Range 2"},
		{"a range giant", func(f *bmapFile) { f.raw = nil; f.ranges[2] = "2560-9223372036854775807" }, diskformat.ErrCorrupt, "Range 2"},
		{"a range beyond 64 bits", func(f *bmapFile) { f.raw = nil; f.ranges[2] = "2560-18446744073709551616" }, diskformat.ErrCorrupt, "Range 2"},
		{"a range backwards", func(f *bmapFile) { f.raw = nil; f.ranges[0] = "511-0" }, diskformat.ErrCorrupt, "Range 0"},
		{"a range negative", func(f *bmapFile) { f.raw = nil; f.ranges[0] = "-5" }, diskformat.ErrCorrupt, "Range 0"},
		{"a range empty", func(f *bmapFile) { f.raw = nil; f.ranges[0] = "" }, diskformat.ErrCorrupt, "Range 0"},
		{"ranges overlap", func(f *bmapFile) { f.ranges[1] = "511" }, diskformat.ErrCorrupt, "Range 1"},
		{"ranges swapped", func(f *bmapFile) { f.ranges[1], f.ranges[2] = f.ranges[2], f.ranges[1] }, diskformat.ErrCorrupt, "Range 2"},
		{"a range twice", func(f *bmapFile) { f.ranges[1] = "2560" }, diskformat.ErrCorrupt, "Range 2"},
		{"version", func(f *bmapFile) { f.version = "two" }, diskformat.ErrCorrupt, "version"},
		{"version negative", func(f *bmapFile) { f.version = "-1.4" }, diskformat.ErrCorrupt, "version"},
		{"a size twice", func(f *bmapFile) { f.inside = "<ImageSize>1</ImageSize>" }, diskformat.ErrCorrupt, "XML"},
		{"a document type within", func(f *bmapFile) { f.inside = `<!DOCTYPE bmap [<!ENTITY x "y">]>` }, diskformat.ErrCorrupt, "XML"},
		{"an entity", func(f *bmapFile) { f.inside = "<a>&x;</a>" }, diskformat.ErrCorrupt, "XML"},
		{"depth", func(f *bmapFile) { f.inside = "<a><b><c><d></d></c></b></a>" }, diskformat.ErrCorrupt, "XML"},
		{"a long value", func(f *bmapFile) { f.mapped = strings.Repeat("5", 300) }, diskformat.ErrCorrupt, "XML"},
		{"many values", func(f *bmapFile) {
			for i := range 40 {
				f.inside += fmt.Sprintf("<v%d/>", i)
			}
		}, diskformat.ErrCorrupt, "XML"},
		{"many ranges", func(f *bmapFile) { f.raw = nil; f.ranges = make([]string, bmapMaxRanges+1) }, diskformat.ErrCorrupt, "XML"},
		{"not closed", func(f *bmapFile) { f.inside = "<a>" }, diskformat.ErrCorrupt, "XML"},
		{"a second root", func(f *bmapFile) { f.end = "<bmap/>" }, diskformat.ErrCorrupt, "XML"},
		{"no closing", func(f *bmapFile) { f.inside = "</bmap>" }, diskformat.ErrCorrupt, "XML"},
	} {
		f := fixtureMap(t)
		c.poke(&f)
		_, err := parseBytes(f.bytes(), 16806400)
		t.Run(c.name, func(t *testing.T) { wantKind(t, err, c.kind, c.field) })
	}
	// What the checksum of the file is for.
	for _, version := range []string{"1.3", "2.0"} {
		f := fixtureMap(t)
		f.version = version
		sound := f.bytes()
		for name, b := range map[string][]byte{
			"a range dropped": bytes.Replace(sound, []byte(" 1024 "), []byte(" 1025 "), 1),
			"a comment":       bytes.Replace(sound, []byte("<!--"), []byte("<!-- "), 1),
			"the checksum":    bytes.Replace(sound, []byte("<BmapFile"), []byte("<BmapLost"), 1),
			"a shorter one":   append(bytes.Clone(sound), '\n'),
		} {
			if _, err := parseBytes(b, f.size); !errors.Is(err, diskformat.ErrCorrupt) {
				t.Errorf("version %s, %s: %v", version, name, err)
			}
		}
		for n := range len(sound) - 1 {
			m, err := parseBytes(sound[:n], f.size)
			if err == nil && (m.Kind() != Unknown || m.DataBlocks() != m.Blocks()) {
				t.Fatalf("version %s, cut after %d of %d: taken", version, n, len(sound))
			}
		}
	}
}

// Checksums of ranges must be ones.
func TestBMAPRangeChecksums(t *testing.T) {
	t.Parallel()
	f := fixtureMap(t)
	sum := sha256.Sum256(f.raw[:512*4096])
	for _, text := range []string{"00", strings.Repeat("zz", 32), strings.Repeat("00", 20)} {
		b := bytes.Replace(f.bytes(), []byte(hex.EncodeToString(sum[:])), []byte(text), 1)
		_, err := parseBytes(mendBMAP(b), f.size)
		wantKind(t, err, diskformat.ErrCorrupt, "Range 0")
	}
}

// mendBMAP makes the file's own checksum, a SHA-256, hold.
func mendBMAP(b []byte) []byte {
	at := bytes.Index(b, []byte("<BmapFileChecksum> ")) + 19
	copy(b[at:], strings.Repeat("0", 64))
	own := sha256.Sum256(b)
	copy(b[at:], hex.EncodeToString(own[:]))
	return b
}

// A block map whose checksum holds and that yet is not whole, or too long.
func TestBMAPNotWholeOrTooLong(t *testing.T) {
	t.Parallel()
	f := fixtureMap(t)
	b := f.bytes()
	for _, end := range []string{"</bmap>", "</BlockMap>"} {
		_, err := parseBytes(mendBMAP(b[:bytes.LastIndex(b, []byte(end))]), f.size)
		wantKind(t, err, diskformat.ErrCorrupt, "XML")
	}
	f.end = "<!--" + strings.Repeat(" ", MaxRead) + "-->"
	if m, err := parseBytes(f.bytes(), f.size); err != nil || m.Kind() != Unknown || m.DataBlocks() != m.Blocks() {
		t.Errorf("%d bytes: %v", len(f.bytes()), err)
	}
}

// A block map that bmaptool itself made of a sparse file. Debian's package
// bmap-tools has it.
func TestBMAPOfBmaptool(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("bmaptool")
	if err != nil {
		t.Skip("bmaptool is not installed (Debian: bmap-tools); block maps as it writes them are tested without it")
	}
	raw := disktest.Fixture(t, "c.raw")
	disk := disktest.TempFile(t, raw)
	out, err := exec.CommandContext(t.Context(), tool, "create", disk.Name()).Output()
	if err != nil {
		t.Skipf("bmaptool can't make maps on this file system: %v", err)
	}
	m, err := parseBytes(out, int64(len(raw)))
	if err != nil || m.Kind() != BMAP {
		t.Fatalf("%v\n%s", err, out)
	}
	if m.DataBlocks() != 3 || !m.Block(0) || !m.Block(2) || !m.Block(5) {
		t.Errorf("%d data blocks", m.DataBlocks())
	}
	if err := m.Verify(t.Context(), disk, nil, Options{}); err != nil {
		t.Error(err)
	}
}

func TestBMAPVerifyFails(t *testing.T) {
	t.Parallel()
	f := fixtureMap(t)
	m, err := parseBytes(f.bytes(), f.size)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("bad sector")
	if err := m.Verify(t.Context(), disktest.Failing{R: bytes.NewReader(f.raw), At: 100, Err: broken}, nil, Options{}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Verify(ctx, bytes.NewReader(f.raw), nil, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	last := int64(0)
	if err := m.Verify(t.Context(), bytes.NewReader(f.raw), nil, Options{Progress: func(done, _ int64) { last = done }}); err != nil || last != f.size {
		t.Errorf("%v, progress ended at %d", err, last)
	}
}

// What a hostile file may take. Not parallel: it measures.
func TestMapMemory(t *testing.T) {
	full := bmapFile{version: "2.0", sumType: "sha256", size: 1 << 40, block: 4096, count: "268435456", mapped: "30000"}
	for i := range 30000 {
		full.ranges = append(full.ranges, fmt.Sprint(i*2))
	}
	short := full
	short.ranges, short.mapped = nil, "0"
	for range 60000 {
		short.ranges = append(short.ranges, "9")
	}
	comment := full
	comment.ranges, comment.before = nil, "<!--"+strings.Repeat("x", 3_000_000)+"-->"
	attribute := full
	attribute.ranges, attribute.inside = nil, "<a b='"+strings.Repeat("x", 3_000_000)+"'/>"
	mf, size := victimMF(t)
	for name, c := range map[string]struct {
		b    []byte
		size int64
	}{
		"many ranges":       {full.bytes(), 1 << 40},
		"short ranges":      {short.bytes(), 1 << 40},
		"a long comment":    {comment.bytes(), 1 << 40},
		"a long attribute":  {attribute.bytes(), 1 << 40},
		"ours":              {mf, size},
		"an unknown, large": {make([]byte, 64<<20), 1 << 40},
	} {
		n := disktest.Peak(t, func() { _, _ = parseBytes(c.b, c.size) })
		t.Logf("%s: %d bytes of file, %d KiB at most", name, len(c.b), n>>10)
		if n > 16<<20 {
			t.Errorf("%s: %d bytes of memory", name, n)
		}
	}
}

func FuzzBmap(f *testing.F) {
	for _, version := range []string{"1.3", "2.0"} {
		m := fixtureMap(f)
		m.version, m.raw = version, nil
		f.Add(m.bytes(), m.size)
		m.raw = disktest.Fixture(f, "c.raw")
		f.Add(m.bytes(), m.size)
	}
	f.Add([]byte("<bmap version='2.0'><BlockMap><Range>1-2</Range></BlockMap></bmap>"), int64(4096))
	f.Add([]byte("<!DOCTYPE x><bmap/>"), int64(4096))
	fuzztest.Fuzz(f, func(t *testing.T, b []byte, size int64) {
		m, err := parseBytes(b, size)
		if err == nil && (m.ImageSize() != size || m.Kind() == Unknown && m.DataBlocks() != m.Blocks()) {
			t.Fatalf("%s: %d of %d blocks of %d", m.Kind(), m.DataBlocks(), m.Blocks(), m.ImageSize())
		}
		// What lies behind the checksum of the file, which no fuzzer finds.
		if size <= 0 || size > ims.MaxDiskSize {
			return
		}
		if x, isBMAP, err := decodeBMAP(b); isBMAP && err == nil {
			_, _ = x.build(size, sha256.New)
		}
	})
}
