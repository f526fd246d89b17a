package vhdx

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
)

// Where the parts of the header section lie, from [MS-VHDX] 2.2.
const (
	identifier = "vhdxfile"

	headerOff1 = 64 << 10
	headerOff2 = 128 << 10
	headerSize = 4 << 10

	regionOff1 = 192 << 10
	regionOff2 = 256 << 10
	regionSize = 64 << 10
	maxRegions = 2047

	frontSize = 320 << 10 // up to the end of the second region table
	mib       = 1 << 20   // what regions and blocks are aligned to
)

// maxFile bounds offsets in a file: a block allocation table has 44 bits of
// MiB, of which a file of 64 TiB needs 26.
const maxFile = 1 << 62

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// guid as it lies on disk: the first three groups little-endian.
type guid [16]byte

// parseGUID is for constants.
func parseGUID(s string) (g guid) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		panic("not a GUID: " + s)
	}
	copy(g[:], b)
	return g.swapped()
}

func (g guid) swapped() guid {
	for _, r := range [][2]int{{0, 3}, {1, 2}, {4, 5}, {6, 7}} {
		g[r[0]], g[r[1]] = g[r[1]], g[r[0]]
	}
	return g
}

func (g guid) String() string {
	s := g.swapped()
	return fmt.Sprintf("%X-%X-%X-%X-%X", s[:4], s[4:6], s[6:8], s[8:10], s[10:])
}

// Kinds of regions, from [MS-VHDX] 2.2.3.2.
var (
	regionBAT      = parseGUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
	regionMetadata = parseGUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
)

// header is what counts of one of the two headers. Positions are in bytes.
type header struct {
	sequence uint64
	log      guid // zero: the log is empty
	logOff   int64
	logLen   int64
}

// checksum is the CRC-32C of b, in which the field at 4 counts as zero.
func checksum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:4])
	crc = crc32.Update(crc, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(crc, castagnoli, b[8:])
}

// sound tells whether b begins with the signature and makes its checksum.
func sound(b []byte, signature string) bool {
	return string(b[:4]) == signature && checksum(b) == binary.LittleEndian.Uint32(b[4:])
}

// currentHeader returns the header that counts: the sound one, or of two the
// one with the greater sequence number.
func currentHeader(front []byte) (*header, error) {
	one, two := front[headerOff1:][:headerSize], front[headerOff2:][:headerSize]
	var now []byte
	switch ok1, ok2 := sound(one, "head"), sound(two, "head"); {
	case !ok1 && !ok2:
		return nil, corrupt("header", "neither of the two at 64 KiB and 128 KiB has its signature and checksum")
	case ok1 && ok2:
		a, b := binary.LittleEndian.Uint64(one[8:]), binary.LittleEndian.Uint64(two[8:])
		if a == b && !bytes.Equal(one, two) {
			return nil, corrupt("header.SequenceNumber", "two headers that differ have the same, %d", a)
		}
		if now = one; b > a {
			now = two
		}
	case ok1:
		now = one
	default:
		now = two
	}
	return parseHeader(now)
}

func parseHeader(b []byte) (*header, error) {
	le := binary.LittleEndian
	h := &header{sequence: le.Uint64(b[8:]), log: guid(b[48:64])}
	if v := le.Uint16(b[64:]); v != 0 && h.log != (guid{}) {
		return nil, unsupported("header.LogVersion", "it is %d; logs of version 0 are read", v)
	}
	if v := le.Uint16(b[66:]); v != 1 {
		return nil, unsupported("header.Version", "it is %d; 1 is read", v)
	}
	n, off := le.Uint32(b[68:]), le.Uint64(b[72:])
	if n%mib != 0 {
		return nil, corrupt("header.LogLength", "it is %d, no multiple of 1 MiB", n)
	}
	if off%mib != 0 || off > maxFile || n != 0 && off < mib {
		return nil, corrupt("header.LogOffset", "it is %d; right is a multiple of 1 MiB after the header section", off)
	}
	h.logOff, h.logLen = int64(off), int64(n)
	return h, nil
}

// region is a range of the file that is not of blocks.
type region struct {
	name string
	off  int64
	size int64
}

func (r region) end() int64 { return r.off + r.size }

// overlaps tells whether the n bytes at off share one with r.
func (r region) overlaps(off, n int64) bool { return off < r.end() && r.off < off+n }

// regions are those of a file: the header section, the log and what the region
// table lists.
type regions struct {
	all      []region // in order, none overlaps another
	bat      region
	metadata region
}

// readRegions reads the region table, of which there are two copies.
func readRegions(front []byte, h *header) (*regions, error) {
	one, two := front[regionOff1:][:regionSize], front[regionOff2:][:regionSize]
	switch ok1, ok2 := sound(one, "regi"), sound(two, "regi"); {
	case !ok1 && !ok2:
		return nil, corrupt("region table", "neither of the two at 192 KiB and 256 KiB has its signature and checksum")
	case ok1 && ok2 && !bytes.Equal(one, two):
		return nil, corrupt("region table", "its two copies differ, and the checksums of both hold")
	case !ok1:
		one = two
	}
	r := &regions{all: []region{{"the header section", 0, mib}}}
	if h.logLen > 0 {
		if err := r.add(region{"the log", h.logOff, h.logLen}); err != nil {
			return nil, err
		}
	}
	return r, r.parse(one)
}

func (r *regions) parse(b []byte) error {
	le := binary.LittleEndian
	n := le.Uint32(b[8:])
	if n > maxRegions {
		return corrupt("region table.EntryCount", "it is %d, at most %d fit", n, maxRegions)
	}
	seen := make(map[guid]bool)
	for e := b[16 : 16+32*n]; len(e) > 0; e = e[32:] {
		id := guid(e[:16])
		if seen[id] {
			return corrupt("region table", "the region %s is listed twice", id)
		}
		seen[id] = true
		x := region{name: "the region " + id.String()}
		off, size, required := le.Uint64(e[16:]), le.Uint32(e[24:]), le.Uint32(e[28:])&1 != 0
		switch {
		case id == regionBAT:
			x.name = "the block allocation table"
		case id == regionMetadata:
			x.name = "the metadata"
		case required:
			return unsupported("region table", "the region %s must be understood to read the disk, and is not known here", id)
		}
		if off%mib != 0 || off < mib || off > maxFile {
			return corrupt("region table.FileOffset", "%s lies at %d; right is a multiple of 1 MiB after the header section", x.name, off)
		}
		if size%mib != 0 || size == 0 {
			return corrupt("region table.Length", "%s has %d bytes; right is a multiple of 1 MiB", x.name, size)
		}
		x.off, x.size = int64(off), int64(size)
		if err := r.add(x); err != nil {
			return err
		}
		switch id {
		case regionBAT:
			r.bat = x
		case regionMetadata:
			r.metadata = x
		}
	}
	if r.bat.size == 0 {
		return corrupt("region table", "it lists no block allocation table (%s)", regionBAT)
	}
	if r.metadata.size == 0 {
		return corrupt("region table", "it lists no metadata (%s)", regionMetadata)
	}
	slices.SortFunc(r.all, func(a, b region) int { return cmp.Compare(a.off, b.off) })
	return nil
}

// add takes one region more, if it is apart from all others.
func (r *regions) add(x region) error {
	for _, o := range r.all {
		if o.overlaps(x.off, x.size) {
			return corrupt("region table", "%s, %d bytes at %d, overlaps %s, %d bytes at %d", x.name, x.size, x.off, o.name, o.size, o.off)
		}
	}
	r.all = append(r.all, x)
	return nil
}

// free tells whether the n bytes at off are of no region.
func (r *regions) free(off, n int64) bool {
	i := sort.Search(len(r.all), func(i int) bool { return r.all[i].end() > off })
	return i == len(r.all) || !r.all[i].overlaps(off, n)
}

func corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VHDX, diskformat.ErrCorrupt, field, problem, args...)
}

func unsupported(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VHDX, diskformat.ErrUnsupported, field, problem, args...)
}

func incomplete(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VHDX, diskformat.ErrIncomplete, field, problem, args...)
}
