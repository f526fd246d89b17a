package zvhd2

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"

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
	for _, block := range [][]byte{b[:pageSize], b[h.recordsEnd():][:pageSize]} {
		block[offIndexByBlk] = h.indexByBlk
		zdisk.Seal(block)
	}
	b = append(append(b, v.bitmap...), h.block()...)
	if ext {
		e := extension{uint64(len(b)), crcOf(index), crcOf(v.bitmap), nil}
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

// smallBlock is the size of most blocks that FuzzZVHD2Record decodes: the decoders
// don't care, and a block of the smallest size that files may have costs more than
// all else. It has room for twice the window of deflate.
const smallBlock = 64 << 10

// recordRoom is what FuzzZVHD2Record decodes from and to, used again each time.
type recordRoom struct {
	rec                []byte
	one, again, larger []byte
}

func newRecordRoom() *recordRoom {
	const n = MinBlockSize
	return &recordRoom{
		rec: make([]byte, 0, n+2*pageSize), one: make([]byte, n), again: make([]byte, n), larger: make([]byte, n+DecodeSlack+64),
	}
}

// blockOf is the size of block that the payload is taken for: the smallest that files
// may have if it is a zstd frame that says so.
func blockOf(payload []byte) int {
	var h zstd.Header
	if h.Decode(payload) == nil && h.HasFCS && h.FrameContentSize == MinBlockSize {
		return MinBlockSize
	}
	return smallBlock
}

func FuzzZVHD2Record(f *testing.F) {
	plain := make([]byte, smallBlock)
	copy(plain, bytes.Repeat([]byte("a block of made-up text\n"), 300))
	f.Add(frame(f, plain), false)
	f.Add(frame(f, text(5)[:smallBlock]), false)
	f.Add(frame(f, append(bytes.Clone(plain), make([]byte, MinBlockSize-smallBlock)...)), false)
	f.Add(streamed(f, plain), false)
	f.Add(zlibSync(f, plain), true)
	f.Add(zlibSync(f, text(5)[:smallBlock]), true)
	f.Add(zlibClosed(f, plain), true)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 1, 0, 3, 0x80, 0, 0}, false)
	f.Add([]byte{0x78, 1, 0, 0, 0, 0xff, 0xff}, true)
	room, other := newRecordRoom(), bytes.Repeat([]byte{0xee}, MinBlockSize)
	fuzztest.Fuzz(f, func(t *testing.T, payload []byte, zlib bool) {
		if len(payload) > MinBlockSize {
			return
		}
		size := smallBlock
		if !zlib {
			size = blockOf(payload)
		}
		file := &File{h: header{blockSize: uint32(size), maxBlocks: 10, compression: methodZstd}}
		file.h.OrigSize = 10 * uint64(size)
		if zlib {
			file.h.compression = methodZlib
		}
		a, b := room.one[:size:size], room.again[:size:size]
		_ = file.DecodeRecord(a, payload, 7) // as a whole record
		rec := zdisk.FinishRecord(append(room.rec[:zdisk.RecordHeadSize], payload...), 7)
		err := file.DecodeRecord(a, rec, 7)
		// With room behind the block it is decoded another way, to the same end, and
		// nothing is written behind that room.
		roomy := room.larger[: size+DecodeSlack+64 : size+DecodeSlack+64]
		copy(roomy[size:], other)
		if rerr := file.DecodeRecord(roomy[:size], rec, 7); (rerr == nil) != (err == nil) || err == nil && !bytes.Equal(a, roomy[:size]) {
			t.Fatalf("with room behind it: %v, without: %v", rerr, err)
		}
		if guard := roomy[size+DecodeSlack:]; bytes.Count(guard, []byte{0xee}) != len(guard) {
			t.Fatal("the decoder wrote behind its room")
		}
		if err != nil {
			return
		}
		// What decodes is a whole block, the same every time, and as no other.
		copy(b, other)
		if err := file.DecodeRecord(b, rec, 7); err != nil || !bytes.Equal(a, b) {
			t.Fatalf("decoded again: %v, the same: %v", err, bytes.Equal(a, b))
		}
		if file.DecodeRecord(b, rec, 6) == nil {
			t.Fatal("it was taken for another block")
		}
	})
}
