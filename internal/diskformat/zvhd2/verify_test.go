package zvhd2

import (
	"errors"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// forms are sound files: ours, the same as others write it, and one that the published
// code made, whose copy has a stale checksum.
func forms(t *testing.T) map[string][]byte {
	return map[string][]byte{
		"ours":         newVictim(t, true).b,
		"no extension": newVictim(t, false).b,
		"published":    disktest.Fixture(t, "c.zvhd2"),
		"all zero":     convertBytes(t, make([]byte, 3<<20), Options{WholeBlocks: true}),
		"by block":     small(t, false, true),
		"framed":       framedFile(),
		"framed zeros": convertBytes(t, make([]byte, 3<<20), Options{}),
	}
}

// Every bit of the header and of its copy that counts, flipped: the file opens as
// before, and Verify names the block at fault.
func TestVerifySeesEveryBitOfHeaderAndCopy(t *testing.T) {
	t.Parallel()
	for name, b := range forms(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := mustOpen(t, b)
			if err := f.Verify(t.Context(), Options{}); err != nil {
				t.Fatal(err)
			}
			parts := map[string]int64{"header.": 0, "copy.": f.x.end}
			if f.Framed() {
				parts["second copy."] = f.h.recordsEnd()
			}
			for part, off := range parts {
				for bit := range int64(8 * zdisk.HeaderSize) {
					if part == "copy." && bit/8 >= 64 && bit/8 < 68 && !f.extended {
						continue // its checksum, which may be stale
					}
					b[off+bit/8] ^= 1 << (bit % 8)
					if part == "copy." && !f.extended && b[off+bit/8] == f.footer[bit/8] {
						b[off+bit/8] ^= 1 << (bit % 8)
						continue // a 0 for what was not known yet became what it should be
					}
					err := f.Verify(t.Context(), Options{})
					b[off+bit/8] ^= 1 << (bit % 8)
					var e *diskformat.Error
					if !errors.As(err, &e) || e.Kind != diskformat.ErrCorrupt || !strings.HasPrefix(e.Field, part) {
						t.Fatalf("bit %d of %s flipped: %v", bit, part, err)
					}
				}
			}
		})
	}
}

func TestVerifyNamesTheField(t *testing.T) {
	t.Parallel()
	const copyAt = -1 // where the copy begins
	for _, c := range []struct {
		name   string
		at     int64
		poke   func(block []byte)
		sealed bool
		field  string
	}{
		{"the header's page is gone", 0, func(b []byte) { clear(b) }, false, "header.cookie"},
		{"all of it but the cookie", 0, func(b []byte) { clear(b[6:]) }, false, "header.checksum"},
		{"a header that is wrong under a checksum that holds", 0, func(b []byte) { b[70] ^= 1 }, true, "header.uuid"},
		{"another disk's size", 0, func(b []byte) { le.PutUint64(b[40:], 512) }, true, "header.orig_size"},
		{"an index elsewhere", 0, func(b []byte) { le.PutUint64(b[offIndex:], 4096) }, true, "header.index_lba"},
		{"another count", 0, func(b []byte) { b[offDataBlocks] = 9 }, true, "header.non_zero_blk_num"},
		{"the end of the cookie", 0, func(b []byte) { b[7] = 1 }, true, "header.cookie"},
		{"the last byte that counts", 0, func(b []byte) { b[511] = 1 }, true, "header.reserved"},
		{"the copy's page is gone", copyAt, func(b []byte) { clear(b) }, false, "copy.cookie"},
		{"the copy's UUID", copyAt, func(b []byte) { b[68] ^= 1 }, false, "copy.uuid"},
		{"the copy's method", copyAt, func(b []byte) { b[offCompression] = 0 }, false, "copy.compress_method"},
		{"the copy's count", copyAt, func(b []byte) { b[offDataBlocks] = 0 }, true, "copy.non_zero_blk_num"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t, false)
			f := mustOpen(t, v.b)
			off := c.at
			if off == copyAt {
				off = f.h.recordsEnd()
			}
			block := v.b[off:][:pageSize]
			if c.poke(block); c.sealed {
				zdisk.Seal(block)
			}
			mustOpen(t, v.b) // the footer alone is what readers need
			err := f.Verify(t.Context(), Options{})
			wantKind(t, err, diskformat.ErrCorrupt, c.field)
		})
	}
}

// Bytes 512 to 4095 of all three blocks are unspecified, the copy's checksum is stale
// in other writers' files, a header may say already what others leave 0, and the padding of records may hold anything.
func TestVerifyTakesWhatIsUnspecified(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"no extension", "published"} {
		b := forms(t)[name]
		f := mustOpen(t, b)
		disktest.Fill(b[zdisk.HeaderSize:pageSize], 1)
		end := f.h.recordsEnd()
		disktest.Fill(b[end+zdisk.HeaderSize:end+pageSize], 2)
		le.PutUint32(b[end+64:], 0xdeadbeef)
		if name == "published" {
			h := f.h
			copy(b, h.block()[:zdisk.HeaderSize])
		}
		disktest.Fill(b[len(b)-pageSize+zdisk.HeaderSize:], 3)
		off, length, _ := f.Record(f.x.stored.Next(0))
		rec := b[off:][:length]
		disktest.Fill(rec[48+le.Uint32(rec[12:]):length-4], 4)
		if err := mustOpen(t, b).Verify(t.Context(), Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
