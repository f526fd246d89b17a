package qcow2

import (
	"bytes"
	"context"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

var (
	errCorrupt     = diskformat.ErrCorrupt
	errUnsupported = diskformat.ErrUnsupported
	errIncomplete  = diskformat.ErrIncomplete
	errWrongFormat = diskformat.ErrWrongFormat
)

// hostileHeaders are files that are wrong in one thing each. All must be
// refused at opening, whatever the rest of the file holds.
var hostileHeaders = []struct {
	name  string
	poke  func(m *made)
	kind  error
	field string
}{
	{"magic", func(m *made) { m.b[3] = 0 }, errWrongFormat, "magic"},
	{"no bytes", func(m *made) { m.b = nil }, errWrongFormat, "magic"},
	{"magic alone", func(m *made) { m.b = m.b[:4] }, errWrongFormat, "magic"},
	{"version 0", func(m *made) { m.set32(offVersion, 0) }, errUnsupported, "version"},
	{"version 1", func(m *made) { m.set32(offVersion, 1) }, errUnsupported, "version"},
	{"version 4", func(m *made) { m.set32(offVersion, 4) }, errUnsupported, "version"},
	{"version giant", func(m *made) { m.set32(offVersion, math.MaxUint32) }, errUnsupported, "version"},
	{"cut in the header", func(m *made) { m.b = m.b[:103] }, errIncomplete, "header"},
	{"cut in the header of version 2", func(m *made) { m.version2(); m.b = m.b[:71] }, errIncomplete, "header"},
	{"cut in a longer header", func(m *made) { m.compression(0); m.b = m.b[:108] }, errIncomplete, "header_length"},

	{"clusters of 256 bytes", func(m *made) { m.set32(offClusterBits, 8) }, errUnsupported, "cluster_bits"},
	{"clusters of 1 byte", func(m *made) { m.set32(offClusterBits, 0) }, errUnsupported, "cluster_bits"},
	{"clusters of 4 MiB", func(m *made) { m.set32(offClusterBits, 22) }, errUnsupported, "cluster_bits"},
	{"cluster_bits 64", func(m *made) { m.set32(offClusterBits, 64) }, errUnsupported, "cluster_bits"},
	{"cluster_bits giant", func(m *made) { m.set32(offClusterBits, math.MaxUint32) }, errUnsupported, "cluster_bits"},
	{"subclusters of 256 bytes", func(m *made) { m.or64(offIncompatible, featureExtendedL2) }, errCorrupt, "cluster_bits"},

	{"size over 64 TiB", func(m *made) { m.set64(offSize, 64<<40+512) }, errUnsupported, "size"},
	{"size negative", func(m *made) { m.set64(offSize, 1<<63) }, errUnsupported, "size"},
	{"size all ones", func(m *made) { m.set64(offSize, math.MaxUint64) }, errUnsupported, "size"},
	{"size odd", func(m *made) { m.set64(offSize, 1000) }, errCorrupt, "size"},
	{"size more than the L1 table holds", func(m *made) { m.set64(offSize, 1<<40) }, errCorrupt, "l1_size"},
	{"size 64 TiB with a small L1 table", func(m *made) { m.set64(offSize, 64<<40) }, errCorrupt, "l1_size"},

	{"l1_size 0", func(m *made) { m.set32(offL1Size, 0) }, errCorrupt, "l1_size"},
	{"l1_size one less", func(m *made) { m.set32(offL1Size, 2) }, errCorrupt, "l1_size"},
	{"l1_size giant", func(m *made) { m.set32(offL1Size, math.MaxUint32) }, errUnsupported, "l1_size"},
	{"l1_size 32 MiB", func(m *made) { m.set32(offL1Size, maxL1Entries) }, errIncomplete, "l1_table_offset"},
	{"l1_table_offset 0", func(m *made) { m.set64(offL1Offset, 0) }, errCorrupt, "l1_table_offset"},
	{"l1_table_offset not aligned", func(m *made) { m.set64(offL1Offset, 520) }, errCorrupt, "l1_table_offset"},
	{"l1_table_offset at the end", func(m *made) { m.set64(offL1Offset, uint64(len(m.b)+511)&^511) }, errIncomplete, "l1_table_offset"},
	{"l1_table_offset far away", func(m *made) { m.set64(offL1Offset, 1<<50) }, errIncomplete, "l1_table_offset"},
	{"l1_table_offset so that the end overflows", func(m *made) { m.set64(offL1Offset, math.MaxInt64&^511) }, errCorrupt, "l1_table_offset"},
	{"l1_table_offset negative", func(m *made) { m.set64(offL1Offset, 1<<63) }, errCorrupt, "l1_table_offset"},
	{"l1_table_offset all ones", func(m *made) { m.set64(offL1Offset, math.MaxUint64&^511) }, errCorrupt, "l1_table_offset"},

	{"crypt_method AES", func(m *made) { m.set32(offCryptMethod, 1) }, errUnsupported, "crypt_method"},
	{"crypt_method LUKS", func(m *made) { m.set32(offCryptMethod, 2) }, errUnsupported, "crypt_method"},
	{"crypt_method unknown", func(m *made) { m.set32(offCryptMethod, 3) }, errUnsupported, "crypt_method"},
	{"marked as damaged", func(m *made) { m.or64(offIncompatible, featureCorrupt) }, errUnsupported, "incompatible_features"},
	{"data file", func(m *made) { m.or64(offIncompatible, featureDataFile) }, errUnsupported, "incompatible_features"},
	{"unknown feature 5", func(m *made) { m.or64(offIncompatible, 1<<5) }, errUnsupported, "incompatible_features"},
	{"unknown feature 63", func(m *made) { m.or64(offIncompatible, 1<<63) }, errUnsupported, "incompatible_features"},
	{"compression without its feature", func(m *made) { m.compression(0); m.b[offCompression] = 1 }, errCorrupt, "compression_type"},
	{"feature without its compression", func(m *made) { m.or64(offIncompatible, featureCompression) }, errCorrupt, "compression_type"},
	{"compression unknown", func(m *made) { m.compression(2) }, errUnsupported, "compression_type"},
	{"compression 255", func(m *made) { m.compression(255) }, errUnsupported, "compression_type"},
	{"refcount_order", func(m *made) { m.set32(offRefcountOrder, 7) }, errCorrupt, "refcount_order"},
	{"header_length short", func(m *made) { m.set32(offHeaderLength, 96) }, errCorrupt, "header_length"},
	{"header_length 0", func(m *made) { m.set32(offHeaderLength, 0) }, errCorrupt, "header_length"},
	{"header_length odd", func(m *made) { m.set32(offHeaderLength, 108) }, errCorrupt, "header_length"},
	{"header_length over the cluster", func(m *made) { m.set32(offHeaderLength, 520) }, errCorrupt, "header_length"},
	{"header_length giant", func(m *made) { m.set32(offHeaderLength, math.MaxUint32&^7) }, errCorrupt, "header_length"},

	{"backing file", func(m *made) { m.backing(200, 12) }, errUnsupported, "backing_file"},
	{"backing file in version 2", func(m *made) { m.version2(); m.backing(200, 12) }, errUnsupported, "backing_file"},
	{"backing file in the header", func(m *made) { m.backing(50, 12) }, errCorrupt, "backing_file_offset"},
	{"backing file beyond the cluster", func(m *made) { m.backing(520, 12) }, errCorrupt, "backing_file_offset"},
	{"backing file's offset giant", func(m *made) { m.backing(math.MaxUint64, 12) }, errCorrupt, "backing_file_offset"},
	{"backing file's name empty", func(m *made) { m.backing(200, 0) }, errCorrupt, "backing_file_size"},
	{"backing file's name over the cluster", func(m *made) { m.backing(200, 400) }, errCorrupt, "backing_file_size"},
	{"backing file's name giant", func(m *made) { m.backing(200, math.MaxUint32) }, errCorrupt, "backing_file_size"},

	{"extension over the cluster", func(m *made) { m.set32(104, 77); m.set32(108, 512) }, errCorrupt, "header extension"},
	{"extension giant", func(m *made) { m.set32(104, 77); m.set32(108, math.MaxUint32) }, errCorrupt, "header extension"},
	{"second extension giant", func(m *made) {
		at := m.extension(104, 77, "one")
		m.set32(at, 78)
		m.set32(at+4, math.MaxInt32)
	}, errCorrupt, "header extension"},
	{"extension over the backing file's name", func(m *made) { m.extension(104, 77, "long enough"); m.backing(115, 3) }, errCorrupt, "header extension"},
}

func (m *made) backing(off uint64, n uint32) {
	m.set64(offBackingOffset, off)
	m.set32(offBackingSize, n)
	if off < 500 {
		copy(m.b[off:], "/etc/shadow!")
	}
}

func half(b []byte) []byte { return b[:len(b)/2] }

// victim has three L2 tables' worth of disk and some data.
func victim() *made {
	m := newMade(9, 150)
	m.store(0, content(512, 1))
	m.pack(1, deflated(content(512, 2)))
	return m
}

// Not parallel: it measures.
func TestHostileHeaders(t *testing.T) {
	if len(hostileHeaders) < 50 {
		t.Errorf("%d cases", len(hostileHeaders))
	}
	victim().mustOpen(t)
	for _, c := range hostileHeaders {
		t.Run(c.name, func(t *testing.T) {
			m := victim()
			c.poke(m)
			err := disktest.Refuse(t, bytes.NewReader(m.b), 1<<20, func(r io.ReaderAt) error {
				_, err := Open(r, int64(len(m.b)), Options{})
				return err
			})
			wantKind(t, err, c.kind, c.field)
		})
	}
}

// hostileTables are files whose header is sound. They must be refused when the
// first byte is read.
var hostileTables = []struct {
	name  string
	poke  func(m *made)
	kind  error
	field string
}{
	{"L1: reserved bit 0", func(m *made) { m.l1(0, 2<<9|1) }, errCorrupt, "L1 table"},
	{"L1: reserved bit 62", func(m *made) { m.l1(0, 2<<9|1<<62) }, errCorrupt, "L1 table"},
	{"L1: at the end of the file", func(m *made) { m.l1(0, uint64(len(m.b)+511)&^511) }, errIncomplete, "L1 table"},
	{"L1: far beyond the file", func(m *made) { m.l1(0, offsetMask) }, errIncomplete, "L1 table"},
	{"L2: reserved bit 1", func(m *made) { m.l2(0, 2) }, errCorrupt, "L2 table"},
	{"L2: reserved bit 61", func(m *made) { m.l2(0, 1<<61) }, errCorrupt, "L2 table"},
	{"L2: zero cluster in version 2", func(m *made) { m.version2(); m.l2(0, flagZero) }, errCorrupt, "L2 table"},
	{"cluster at the end of the file", func(m *made) { m.l2(0, uint64(len(m.b)+511)&^511) }, errIncomplete, "cluster"},
	{"cluster far beyond the file", func(m *made) { m.l2(0, offsetMask) }, errIncomplete, "cluster"},
	{"compressed beyond the file", func(m *made) { m.l2(0, flagCompressed|uint64(len(m.b))) }, errIncomplete, "cluster"},
	{"compressed far beyond the file", func(m *made) { m.l2(0, math.MaxUint64) }, errIncomplete, "cluster"},
	{"compressed: too few sectors in the file", func(m *made) {
		m.pack(0, half(deflated(content(512, 5))))
		m.or64(2<<9, 1<<61)
	}, errIncomplete, "cluster"},
	{"compressed: cut short", func(m *made) { m.pack(0, half(deflated(content(512, 5)))) }, errCorrupt, "cluster"},
	{"compressed: less than a cluster", func(m *made) { m.pack(0, deflated(content(511, 5))) }, errCorrupt, "cluster"},
	{"compressed: no deflate", func(m *made) { m.pack(0, bytes.Repeat([]byte{0xff}, 60)) }, errCorrupt, "cluster"},
	{"zstd: no frame", func(m *made) { m.compression(1); m.pack(0, deflated(content(512, 5))) }, errCorrupt, "cluster"},
	{"zstd: cut short", func(m *made) { m.compression(1); m.pack(0, half(zstdStreamed(content(512, 5)))) }, errCorrupt, "cluster"},
	{"zstd: cut in the header", func(m *made) { m.compression(1); m.pack(0, zstdStreamed(content(512, 5))[:5]) }, errCorrupt, "cluster"},
	{"zstd: less than a cluster", func(m *made) { m.compression(1); m.pack(0, zstdStreamed(content(511, 5))) }, errCorrupt, "cluster"},
	{"zstd: more than a cluster", func(m *made) { m.compression(1); m.pack(0, zstdStreamed(content(513, 5))) }, errCorrupt, "cluster"},
	{"zstd: a bomb", func(m *made) { m.compression(1); m.pack(0, zstdStreamed(make([]byte, 64<<20))) }, errCorrupt, "cluster"},
	{"zstd: a skippable frame", func(m *made) {
		m.compression(1)
		m.pack(0, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"))
	}, errCorrupt, "cluster"},
	{"zstd: a giant window", func(m *made) {
		// A frame of version RFC 8878 with the largest window, without a size.
		m.compression(1)
		m.pack(0, []byte("\x28\xb5\x2f\xfd\x04\xff\x01\x00\x00"))
	}, errCorrupt, "cluster"},
	{"zstd: a large window, a bomb", func(m *made) {
		// 128 MiB of window, then a block of 128 KiB of one byte, again and again.
		m.compression(1)
		m.pack(0, append([]byte("\x28\xb5\x2f\xfd\x00\x88"), bytes.Repeat([]byte("\x02\x00\x10a"), 200)...))
	}, errCorrupt, "cluster"},
	{"zstd: wants a dictionary", func(m *made) {
		m.compression(1)
		m.pack(0, []byte("\x28\xb5\x2f\xfd\x01\x00\x07\x01\x00\x00"))
	}, errCorrupt, "cluster"},
}

// Not parallel: it measures.
func TestHostileTables(t *testing.T) {
	p := make([]byte, 512)
	for _, c := range hostileTables {
		t.Run(c.name, func(t *testing.T) {
			m := victim()
			c.poke(m)
			f := m.mustOpen(t)
			err := disktest.Refuse(t, f, 2<<20, func(r io.ReaderAt) error {
				_, err := r.ReadAt(p, 0)
				return err
			})
			wantKind(t, err, c.kind, c.field)
			// What can't be looked up is never called a hole.
			if all, err := disktest.Extents(f.Map(t.Context())); len(all) > 0 && !all[0].Data || len(all) == 0 && err == nil {
				t.Errorf("the extents are %+v, %v", all, err)
			}
		})
	}
}

// hostileSubclusters are those that need extended L2 entries.
func TestHostileSubclusters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		entry  uint64
		bitmap uint64
		kind   error
	}{
		{"zero flag of standard entries", 3<<14 | flagZero, 0, errCorrupt},
		{"allocated and zero", 3 << 14, 1<<32 | 1, errCorrupt},
		{"allocated nowhere", 0, 1, errCorrupt},
		{"another subcluster allocated nowhere", 0, 1 << 31, errCorrupt},
		{"not aligned", 3<<14 + 512, 1, errCorrupt},
		{"beyond the file", 40 << 14, 1, errIncomplete},
	} {
		m := newMade(14, 3)
		m.or64(offIncompatible, featureExtendedL2)
		m.set64(2<<14, c.entry)
		m.set64(2<<14+8, c.bitmap)
		f := m.mustOpen(t)
		_, err := f.ReadAt(make([]byte, 512), 0)
		if c.kind == errIncomplete {
			wantKind(t, err, c.kind, "cluster")
		} else {
			wantKind(t, err, c.kind, "L2 table")
		}
	}
}

// A file may say that it is large, and be sparse: what is held does not grow
// with what its header says. Not parallel: it measures.
func TestHugeFilesTakeLittleMemory(t *testing.T) {
	for _, c := range []struct {
		name string
		bits uint
		size uint64
		l1   uint32
	}{
		{"64 TiB, 64 KiB clusters", 16, 64 << 40, 128 << 10},
		{"64 TiB, 2 MiB clusters", 21, 64 << 40, 128},
		{"128 GiB, 512-byte clusters, the largest L1 table", 9, 128 << 30, maxL1Entries},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMade(c.bits, 1)
			m.set64(offSize, c.size)
			m.set32(offL1Size, c.l1)
			// All L1 entries point to the one L2 table, which is all data.
			l1 := make([]byte, recent.PageSize)
			for i := 0; i < len(l1); i += 8 {
				be.PutUint64(l1[i:], 2<<c.bits|flagCopied)
			}
			for i := range 1 << (c.bits - 3) {
				m.l2(i, uint64(i+3)<<c.bits|flagCopied)
			}
			file := disktest.Patched{0: m.b}
			for off := int64(1) << 30; off < 1<<30+8*int64(c.l1); off += recent.PageSize {
				file[off] = l1
			}
			be.PutUint64(m.b[offL1Offset:], 1<<30)
			p := make([]byte, 1<<20)
			peak := disktest.Peak(t, func() {
				f, err := Open(file, 1<<50, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				for i := range int64(100) {
					if _, err := f.ReadAt(p, f.Size()/100*i); err != nil {
						t.Error(err)
						return
					}
				}
				// Every table once, for as long as a test may take.
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				for _, err := range f.Map(ctx) {
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
				runtime.KeepAlive(f)
			})
			if peak > 16<<20 {
				t.Errorf("%d bytes were held", peak)
			}
		})
	}
}

// The error for an unknown feature says what the file calls it.
func TestUnknownFeatureIsNamed(t *testing.T) {
	t.Parallel()
	m := newMade(12, 1)
	m.or64(offIncompatible, 1<<9|1<<44)
	name := func(kind, bit byte, s string) string {
		return string([]byte{kind, bit}) + s + strings.Repeat("\x00", 46-len(s))
	}
	at := m.extension(104, 0x12345678, "not known, skipped")
	m.extension(at, extFeatureNames, name(1, 9, "compatible")+name(0, 44, "later")+name(0, 9, "time travel")+name(0, 200, "x")+"rest")
	_, err := m.open()
	wantKind(t, err, errUnsupported, "incompatible_features")
	if !strings.Contains(err.Error(), "bit 9") || !strings.Contains(err.Error(), "time travel") {
		t.Error(err)
	}
}
