package vmdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// mostMemory is what a refusal may allocate, in bytes.
const mostMemory = 16 << 20

// opened stands for the file where what refuses reads one that was opened before.
var opened = bytes.NewReader(nil)

var (
	corruptKind     = diskformat.ErrCorrupt
	incompleteKind  = diskformat.ErrIncomplete
	unsupportedKind = diskformat.ErrUnsupported
)

// hostileHeaders are sparse extents that are wrong in one thing each. All are
// refused at opening.
var hostileHeaders = []struct {
	name   string
	stream bool
	poke   func(v *victim)
	kind   error
	field  string
}{
	{"version 0", false, set32(4, 0), unsupportedKind, "header.version"},
	{"version 4", false, set32(4, 4), unsupportedKind, "header.version"},
	{"version giant", false, set32(4, math.MaxUint32), unsupportedKind, "header.version"},
	{"a flag of the future", false, set32(8, 1|1<<5), unsupportedKind, "header.flags"},
	{"all flags", true, set32(8, math.MaxUint32), unsupportedKind, "header.flags"},
	{"compressed, not marked", true, set32(8, 1|flagCompressed), unsupportedKind, "header.flags"},
	{"marked, not compressed", false, set32(8, 1|flagMarkers), unsupportedKind, "header.flags"},
	{"compressed by the flags alone", false, set32(8, 1|flagCompressed|flagMarkers), corruptKind, "header.compressAlgorithm"},
	{"compressed by the algorithm alone", false, func(v *victim) { v.header[77] = 1 }, corruptKind, "header.compressAlgorithm"},
	{"algorithm 2", true, func(v *victim) { v.header[77] = 2 }, unsupportedKind, "header.compressAlgorithm"},
	{"sent as text, CR lost", false, func(v *victim) { copy(v.header[73:], "\n \n\n") }, corruptKind, "header.newline"},
	{"sent as text, LF became CRLF", false, func(v *victim) { copy(v.header[73:], "\r\n \r") }, corruptKind, "header.newline"},

	{"capacity 0", false, set64(12, 0), corruptKind, "header.capacity"},
	{"capacity over 62 TiB", false, set64(12, MaxSize/sectorSize+1), unsupportedKind, "header.capacity"},
	{"capacity negative", false, set64(12, 1<<63), unsupportedKind, "header.capacity"},
	{"capacity giant", false, set64(12, math.MaxUint64), unsupportedKind, "header.capacity"},
	{"capacity a grain more than the descriptor", false, set64(12, uint64(len(victimDisk())/sectorSize+128)), corruptKind, "header.capacity"},
	{"capacity less than the descriptor", false, set64(12, uint64(len(victimDisk())/sectorSize-1)), corruptKind, "header.capacity"},
	{"capacity of 62 TiB in a small file", false, set64(12, MaxSize/sectorSize), incompleteKind, "header.gdOffset"},
	{"grain 0", false, set64(20, 0), unsupportedKind, "header.grainSize"},
	{"grain 8", false, set64(20, 8), unsupportedKind, "header.grainSize"},
	{"grain 129", false, set64(20, 129), unsupportedKind, "header.grainSize"},
	{"grain over 4 MiB", false, set64(20, 16384), unsupportedKind, "header.grainSize"},
	{"grain giant", true, set64(20, 1<<63), unsupportedKind, "header.grainSize"},
	{"tables of 0 entries", false, set32(44, 0), unsupportedKind, "header.numGTEsPerGT"},
	{"tables of 1024 entries", false, set32(44, 1024), unsupportedKind, "header.numGTEsPerGT"},
	{"tables of giant length", false, set32(44, math.MaxUint32), unsupportedKind, "header.numGTEsPerGT"},

	{"directory at 0", false, set64(56, 0), corruptKind, "header.gdOffset"},
	{"directory beyond the file", false, set64(56, 1<<20), incompleteKind, "header.gdOffset"},
	{"directory across the end", false, func(v *victim) { le.PutUint64(v.header[56:], uint64(len(v.b)/sectorSize)) }, incompleteKind, "header.gdOffset"},
	{"directory so that bytes overflow", false, set64(56, 1<<55), incompleteKind, "header.gdOffset"},
	{"directory negative", false, set64(56, math.MaxUint64-1), incompleteKind, "header.gdOffset"},
	{"directory in a footer that is not there", false, set64(56, gdAtEnd), incompleteKind, "footer"},

	{"no descriptor", false, set64(28, 0), unsupportedKind, "header.descriptorOffset"},
	{"descriptor of 0 sectors", false, set64(36, 0), unsupportedKind, "header.descriptorSize"},
	{"descriptor over 1 MiB", false, set64(36, 2049), unsupportedKind, "header.descriptorSize"},
	{"descriptor giant", false, set64(36, math.MaxUint64), unsupportedKind, "header.descriptorSize"},
	{"descriptor beyond the file", false, set64(28, 1<<30), incompleteKind, "header.descriptorOffset"},
	{"descriptor across the end", false, func(v *victim) { le.PutUint64(v.header[28:], uint64(len(v.b)/sectorSize-19)) }, incompleteKind, "header.descriptorOffset"},
	{"descriptor negative", false, set64(28, math.MaxUint64), incompleteKind, "header.descriptorOffset"},
	{"descriptor in the tables", false, set64(28, 129), corruptKind, "descriptor"},

	{"footer in the footer", true, func(v *victim) { le.PutUint64(v.footer[56:], gdAtEnd) }, corruptKind, "footer.gdOffset"},
	{"footer of another capacity", true, func(v *victim) { v.footer[12]++ }, corruptKind, "footer"},
	{"footer of another grain", true, func(v *victim) { le.PutUint64(v.footer[20:], 64) }, corruptKind, "footer"},
	{"footer not compressed", true, func(v *victim) { le.PutUint32(v.footer[8:], 1); v.footer[77] = 0 }, corruptKind, "footer"},
	{"footer without its magic", true, func(v *victim) { v.footer[0] = 0 }, corruptKind, "footer.magicNumber"},
	{"footer of version 9", true, func(v *victim) { v.footer[4] = 9 }, unsupportedKind, "footer.version"},
	{"footer's directory beyond the file", true, func(v *victim) { le.PutUint64(v.footer[56:], 1<<40) }, incompleteKind, "footer.gdOffset"},
	{"footer's directory at 0", true, func(v *victim) { le.PutUint64(v.footer[56:], 0) }, corruptKind, "footer.gdOffset"},
	{"no end marker", true, func(v *victim) { v.b[len(v.b)-sectorSize+12] = 1 }, incompleteKind, "footer"},
	{"no footer marker", true, func(v *victim) { v.b[len(v.b)-3*sectorSize+12] = 2 }, incompleteKind, "footer"},

	{"magic of ESX", false, func(v *victim) { copy(v.header, magicESX) }, unsupportedKind, "header.magic"},
	{"magic of SESparse", false, func(v *victim) { copy(v.header, magicSESparse) }, unsupportedKind, "header.magic"},

	{"a parent", false, text("parentCID=ffffffff", "parentCID=0badcafe"), unsupportedKind, "descriptor.parentCID"},
	{"a parent by name", true, text("\n#DDB", "\nparentFileNameHint=\"/etc/passwd\""), unsupportedKind, "descriptor.parentFileNameHint"},
	{"parentCID no number", false, text("parentCID=ffffffff", "parentCID=-1"), corruptKind, "descriptor.parentCID"},
	{"parentCID twice", false, text("CID=12345678", "parentCID=ffffffff"), corruptKind, "descriptor.parentcid"},
	{"a flat extent within", false, text("SPARSE", "FLAT"), unsupportedKind, "descriptor.extent"},
	{"a second extent within", false, text("# The Disk", "RW 8 ZERO\n#"), unsupportedKind, "descriptor.extent"},
	{"no extent", false, text("RW ", "# RW "), corruptKind, "descriptor"},
}

func TestHostileHeaders(t *testing.T) {
	for _, c := range hostileHeaders {
		v := newVictim(c.stream)
		mustOpen(t, v.b)
		c.poke(v)
		refused(t, c.name, c.kind, c.field, bytes.NewReader(v.b), func(r io.ReaderAt) error {
			_, err := Open(r, int64(len(v.b)), nil)
			return err
		})
	}
}

// refused checks that do refuses the file r with an error of the kind that names
// the field, at once and with little memory. Who calls it does not run in
// parallel: it measures.
func refused(t *testing.T, name string, kind error, field string, r io.ReaderAt, do func(r io.ReaderAt) error) {
	t.Helper()
	err := disktest.Refuse(t, r, mostMemory, do)
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.HasPrefix(e.Field, field) {
		t.Errorf("%s: the error is %v; it should be %q and name %q", name, err, kind, field)
	}
}

// hostileTables are sound at opening. Reading says what is wrong, and so does
// mapping where the tables are wrong; Extents calls data what it can't map.
var hostileTables = []struct {
	name   string
	stream bool
	poke   func(v *victim)
	kind   error
	field  string
	maps   bool // the tables are sound
}{
	{"table beyond the file", false, func(v *victim) { le.PutUint32(v.gd(), 1<<20) }, incompleteKind, "grain directory", false},
	{"table at the greatest sector", false, func(v *victim) { le.PutUint32(v.gd(), math.MaxUint32) }, incompleteKind, "grain directory", false},
	{"table across the end", false, func(v *victim) { le.PutUint32(v.gd(), uint32(len(v.b)/sectorSize-3)) }, incompleteKind, "grain directory", false},
	{"grain beyond the file", false, func(v *victim) { le.PutUint32(v.gt()[8:], 1<<20) }, incompleteKind, "grain table", false},
	{"grain at the greatest sector", false, func(v *victim) { le.PutUint32(v.gt()[16:], math.MaxUint32) }, incompleteKind, "grain table", false},
	{"grain of zeros without the flag", false, func(v *victim) { le.PutUint32(v.gt()[4:], 1) }, corruptKind, "grain table", false},
	{"compressed grain beyond the file", true, func(v *victim) { le.PutUint32(v.gt()[8:], 1<<20) }, incompleteKind, "grain table", false},
	{"compressed grain at the end", true, func(v *victim) { le.PutUint32(v.gt()[8:], uint32(len(v.b)/sectorSize)) }, incompleteKind, "grain table", false},

	{"two grains at one place", true, func(v *victim) { copy(v.gt()[8:12], v.gt()) }, corruptKind, "grain marker", true},
	{"two grains swapped", true, func(v *victim) {
		a, b := le.Uint32(v.gt()), le.Uint32(v.gt()[8:])
		le.PutUint32(v.gt(), b)
		le.PutUint32(v.gt()[8:], a)
	}, corruptKind, "grain marker", true},
	{"grain in the directory's marker", true, func(v *victim) { le.PutUint32(v.gt(), le.Uint32(v.gd())-1) }, corruptKind, "grain marker", true},
	{"marker of another sector", true, func(v *victim) { v.grain(2)[0]++ }, corruptKind, "grain marker", true},
	{"marker of a sector 2^63 on", true, func(v *victim) { v.grain(2)[7] = 0x80 }, corruptKind, "grain marker", true},
	{"stream of 0 bytes", true, func(v *victim) { le.PutUint32(v.grain(0)[8:], 0) }, corruptKind, "grain marker", true},
	{"stream of 4 GiB", true, func(v *victim) { le.PutUint32(v.grain(0)[8:], math.MaxUint32) }, corruptKind, "grain marker", true},
	{"stream twice a grain and one", true, func(v *victim) { le.PutUint32(v.grain(0)[8:], 128<<10+1) }, corruptKind, "grain marker", true},
	{"stream across the end", true, func(v *victim) { le.PutUint32(v.grain(4)[8:], 128<<10) }, incompleteKind, "grain marker", true},
	{"stream cut by a byte", true, func(v *victim) { le.PutUint32(v.grain(2)[8:], le.Uint32(v.grain(2)[8:])-1) }, corruptKind, "grain", true},
	{"stream of 1 byte", true, func(v *victim) { le.PutUint32(v.grain(2)[8:], 1) }, corruptKind, "grain", true},
	{"no zlib header", true, func(v *victim) { v.grain(2)[12] = 0 }, corruptKind, "grain", true},
	{"a dictionary asked for", true, func(v *victim) { copy(v.grain(2)[12:], "\x78\xbb") }, corruptKind, "grain", true},
	{"a bit in the stream", true, func(v *victim) { v.grain(2)[3000] ^= 4 }, corruptKind, "grain", true},
	{"checksum of the stream", true, func(v *victim) { g := v.grain(4); g[11+le.Uint32(g[8:])] ^= 1 }, corruptKind, "grain", true},
	{"stream of a grain and a byte", true, func(v *victim) { regrain(v, 2, 64<<10+1) }, corruptKind, "grain", true},
	{"stream of a thousand grains", true, func(v *victim) { regrain(v, 2, 64000<<10) }, corruptKind, "grain", true},
	{"stream of less than a grain", true, func(v *victim) { regrain(v, 2, 64<<10-1) }, corruptKind, "grain", true},
	{"stream of less than the disk's end", true, func(v *victim) { regrain(v, 4, 3*sectorSize-1) }, corruptKind, "grain", true},
}

// regrain puts a stream of n zeros at the file's end, in a stream's place.
func regrain(v *victim, grain, n int) {
	z := deflated(make([]byte, n))
	head := bytes.Clone(v.grain(grain)[:grainHead])
	le.PutUint32(head[8:], uint32(len(z)))
	// The footer stays at the end: the grain comes before its marker.
	end := len(v.b) - 3*sectorSize
	le.PutUint32(v.gt()[grain*entrySize:], uint32(end/sectorSize))
	b := append(append(bytes.Clone(v.b[:end]), head...), z...)
	b = append(b, make([]byte, -len(b)&(sectorSize-1))...)
	v.b = append(b, v.b[end:]...)
}

func TestHostileTables(t *testing.T) {
	for _, c := range hostileTables {
		v := newVictim(c.stream)
		c.poke(v)
		f, err := openBytes(v.b)
		if err != nil {
			t.Errorf("%s: opening: %v", c.name, err)
			continue
		}
		refused(t, c.name, c.kind, c.field, opened, func(io.ReaderAt) error {
			_, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, f.Size()))
			return err
		})
		refused(t, c.name+", at once", c.kind, c.field, opened, func(io.ReaderAt) error {
			_, err := f.ReadAt(make([]byte, f.Size()), 0)
			return err
		})
		if c.maps {
			if err := mapAll(f); err != nil {
				t.Errorf("%s: mapping: %v", c.name, err)
			}
			continue
		}
		refused(t, c.name+", mapping", c.kind, c.field, opened, func(io.ReaderAt) error { return mapAll(f) })
	}
}

// mapAll maps f, and checks that the extents are in order up to an error.
func mapAll(f *File) error {
	at, first, was := int64(0), true, false
	for e, err := range f.Map(context.Background()) {
		if err != nil {
			return err
		}
		if e.Offset != at || e.Length <= 0 || !first && e.Data == was {
			return fmt.Errorf("the extent %+v follows what ends at %d", e, at)
		}
		at, first, was = e.End(), false, e.Data
	}
	if at != f.Size() {
		return fmt.Errorf("the map ends at %d of %d", at, f.Size())
	}
	return nil
}

// A file that ends too early anywhere is refused, at opening or when it is
// read; never is something else read.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		b := newVictim(stream).b
		for n := 0; n < len(b); n += 1 + n%509 {
			f, err := openBytes(b[:n])
			if err == nil {
				got := make([]byte, f.Size())
				_, err = f.ReadAt(got, 0)
				if err == nil && bytes.Equal(got, victimDisk()) && !stream {
					continue // what was cut off was padding
				}
			}
			kind := diskformat.ErrIncomplete
			if n < 4 {
				kind = diskformat.ErrWrongFormat
			}
			if !errors.Is(err, kind) {
				t.Fatalf("stream %v, cut after %d of %d bytes: %v", stream, n, len(b), err)
			}
		}
	}
}

// A read that fails is the source's error and not a fault of the file, and is
// told again and again, not remembered as something else.
func TestFailingSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("the line is dead")
	for _, stream := range []bool{false, true} {
		v := newVictim(stream)
		for _, p := range []struct {
			name string
			b    []byte
		}{{"header", v.header}, {"descriptor", v.b[sectorSize:]}, {"directory", v.gd()}, {"table", v.gt()}, {"grain", v.grain(2)}} {
			at := int64(len(v.b) - len(p.b))
			if p.name == "header" {
				at = 0
			}
			var err error
			f, err := Open(disktest.Failing{R: bytes.NewReader(v.b), At: at, Err: broken}, int64(len(v.b)), nil)
			for range 2 {
				if f != nil {
					_, err = f.ReadAt(make([]byte, f.Size()), 0)
				}
				var e *diskformat.Error
				if !errors.Is(err, broken) || errors.As(err, &e) {
					t.Errorf("stream %v, %s: %v", stream, p.name, err)
				}
			}
		}
	}
	v := newVictim(false)
	if _, err := Open(bytes.NewReader(v.b[:100]), int64(len(v.b)), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source shorter than its size: %v", err)
	}
}

func TestNotVMDK(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"empty": {}, "short": []byte("KDM"), "zeros": make([]byte, 64<<10), "a comment": []byte("# a script\n"),
		"RAW": disktest.Fixture(t, "c.raw"), "ZVHD2": disktest.Fixture(t, "c.zvhd2"),
	} {
		if _, err := openBytes(b); !errors.Is(err, diskformat.ErrWrongFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, size := range []int64{-1, math.MaxInt64} {
		if _, err := Open(disktest.Patched{}, size, nil); err == nil {
			t.Errorf("a file of %d bytes was opened", size)
		}
	}
}
