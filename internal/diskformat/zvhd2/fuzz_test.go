package zvhd2

import (
	"bytes"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/fuzztest"
)

// small makes a sound file of few bytes: its index has one page in place of
// 512 KiB, which readers take.
func small(t testing.TB, ext, byBlock bool) []byte {
	v := newVictim(t, false)
	h := parseHeader(v.footer)
	index := bytes.Clone(v.index[:pageSize])
	if byBlock {
		clear(index)
		for k := range 4 {
			copy(index[16*le.Uint32(v.index[16*k+8:]):], v.index[16*k:][:16])
		}
		h.indexByBlk = 1
	}
	h.indexSeg, h.indexSize = pageSize, pageSize
	h.bitmap = h.index + pageSize
	b := append(bytes.Clone(v.b[:h.index]), index...)
	b = append(append(b, v.bitmap...), h.block()...)
	if ext {
		e := extension{uint64(len(b)), crcOf(index), crcOf(v.bitmap)}
		e.put(b[len(b)-pageSize:])
	}
	return b
}

func FuzzZVHD2Open(f *testing.F) {
	f.Add(small(f, false, false))
	f.Add(small(f, true, false))
	f.Add(small(f, false, true))
	f.Add(convertBytes(f, make([]byte, 512), Options{UUID: [16]byte{1}, Now: mustOpen(f, disktest.Fixture(f, "c.zvhd2")).Created()}))
	f.Add([]byte("z2strm"))
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		check := func(b []byte) {
			file, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				return
			}
			end, n := int64(pageSize), uint32(0)
			for block := range file.Blocks() {
				off, length, ok := file.Record(block)
				if !ok {
					continue
				}
				if n++; off < end || length < pageSize || length > file.MaxRecord() || off+length > int64(len(b)) {
					t.Fatalf("record of block %d: %d bytes at %d after %d in %d", block, length, off, end, len(b))
				}
				end = off + length
			}
			if n != file.DataBlocks() {
				t.Fatalf("%d records, %d were said", n, file.DataBlocks())
			}
			at := int64(0)
			for e := range file.Extents() {
				if e.Offset != at || e.Length <= 0 {
					t.Fatalf("extent %+v after %d", e, at)
				}
				at = e.End()
			}
			if at != file.Size() {
				t.Fatalf("the extents end at %d of %d", at, file.Size())
			}
		}
		check(b)
		// With a checksum that holds, more of the reader is reached.
		if len(b) >= MinFileSize {
			b = bytes.Clone(b)
			zdisk.Seal(b[len(b)-pageSize:])
			check(b)
		}
	})
}

func FuzzZVHD2Record(f *testing.F) {
	const blockSize = MinBlockSize
	plain := make([]byte, blockSize)
	copy(plain, bytes.Repeat([]byte("a block of made-up text\n"), 300))
	f.Add(frame(f, plain), false)
	f.Add(streamed(f, plain), false)
	f.Add(zlibSync(f, plain), true)
	f.Add(zlibClosed(f, plain), true)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0x10, 0, 3, 0x80, 0, 0}, false)
	f.Add([]byte{0x78, 1, 0, 0, 0, 0xff, 0xff}, true)
	fuzztest.Fuzz(f, func(t *testing.T, payload []byte, zlib bool) {
		file := &File{h: header{blockSize: blockSize, maxBlocks: 10, compression: methodZstd}}
		file.h.OrigSize = 10 * blockSize
		if zlib {
			file.h.compression = methodZlib
		}
		if len(payload) > blockSize {
			return
		}
		a, b := make([]byte, blockSize), bytes.Repeat([]byte{0xee}, blockSize)
		_ = file.DecodeRecord(a, payload, 7) // as a whole record
		rec := record(payload, 7)
		err := file.DecodeRecord(a, rec, 7)
		// With room behind the block it is decoded another way, to the same end, and
		// nothing is written behind that room.
		roomy := bytes.Repeat([]byte{0xee}, blockSize+DecodeSlack+64)
		if rerr := file.DecodeRecord(roomy[:blockSize], rec, 7); (rerr == nil) != (err == nil) || err == nil && !bytes.Equal(a, roomy[:blockSize]) {
			t.Fatalf("with room behind it: %v, without: %v", rerr, err)
		}
		if guard := roomy[blockSize+DecodeSlack:]; bytes.Count(guard, []byte{0xee}) != len(guard) {
			t.Fatal("the decoder wrote behind its room")
		}
		if err != nil {
			return
		}
		// What decodes is a whole block, the same every time, and as no other.
		if err := file.DecodeRecord(b, rec, 7); err != nil || !bytes.Equal(a, b) {
			t.Fatalf("decoded again: %v, the same: %v", err, bytes.Equal(a, b))
		}
		if file.DecodeRecord(b, rec, 6) == nil {
			t.Fatal("it was taken for another block")
		}
	})
}
