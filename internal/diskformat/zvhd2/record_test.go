package zvhd2

import (
	"bytes"
	stdzlib "compress/zlib"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// frame compresses p into one zstd frame.
func frame(t testing.TB, p []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(p, nil)
}

// streamed compresses p into a frame that does not know its content's size.
func streamed(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enc.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := enc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zlibSync compresses p as method 0 does.
func zlibSync(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := stdzlib.NewWriterLevel(&b, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func record(payload []byte, block uint32) []byte {
	return zdisk.FinishRecord(append(make([]byte, zdisk.RecordHeadSize), payload...), block)
}

// block is a made-up block of the published size.
func madeUpBlock(seed uint64) []byte {
	p := make([]byte, DefaultBlockSize)
	disktest.Fill(p, seed)
	p[0] = 1
	return p
}

func TestHostileRecordsAreRefused(t *testing.T) {
	t.Parallel()
	plain := madeUpBlock(1)
	good := frame(t, plain)
	f := &File{h: header{blockSize: DefaultBlockSize, maxBlocks: 100, compression: methodZstd}}
	f.h.OrigSize = 100 * DefaultBlockSize
	fz := &File{h: f.h}
	fz.h.compression = methodZlib
	z := zlibSync(t, plain)

	dst := make([]byte, DefaultBlockSize)
	for _, ok := range []struct {
		name string
		f    *File
		rec  []byte
	}{
		{"with a checksum", f, record(good, 7)},
		{"without", f, record(frame(t, plain, zstd.WithEncoderCRC(false)), 7)},
		{"with a window", f, record(window(good, 11<<3), 7)}, // 2 MiB
		{"not a single segment", f, record(frame(t, plain, zstd.WithSingleSegment(false)), 7)},
		{"of the best compression", f, record(frame(t, plain, zstd.WithEncoderLevel(zstd.SpeedBestCompression)), 7)},
		{"zlib", fz, record(z, 7)},
	} {
		// Without and with room behind the block, in the midst of what is others'.
		for _, room := range []int{0, DecodeSlack, DecodeSlack + 100} {
			all := bytes.Repeat([]byte{0xee}, DefaultBlockSize+2*DecodeSlack+100)
			dst := all[: DefaultBlockSize : DefaultBlockSize+room]
			if err := ok.f.DecodeRecord(dst, ok.rec, 7); err != nil || !bytes.Equal(dst, plain) {
				t.Fatalf("a sound record %s, room for %d bytes behind it: %v", ok.name, room, err)
			}
			if rest := all[DefaultBlockSize+min(room, DecodeSlack):]; bytes.Count(rest, []byte{0xee}) != len(rest) {
				t.Fatalf("a sound record %s, room for %d bytes behind it: more was written to", ok.name, room)
			}
		}
	}

	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 0x10
	sum := bytes.Clone(good)
	sum[len(sum)-1] ^= 1
	poke := func(rec []byte, fn func([]byte)) []byte { fn(rec); return rec }
	for _, c := range []struct {
		name  string
		f     *File
		rec   []byte
		field string
	}{
		{"nothing", f, nil, "record"},
		{"half a page", f, record(good, 7)[:2048], "record"},
		{"a page less", f, func() []byte { r := record(good, 7); return r[:len(r)-pageSize] }(), "payload size"},
		{"a page more", f, append(record(good, 7), make([]byte, pageSize)...), "payload size"},
		{"another head", f, poke(record(good, 7), func(r []byte) { r[11] = ' ' }), "head"},
		{"another tail", f, poke(record(good, 7), func(r []byte) { r[len(r)-1] = ' ' }), "tail"},
		{"another block", f, record(good, 8), "block number"},
		{"payload size 0", f, poke(record(good, 7), func(r []byte) { le.PutUint32(r[12:], 0) }), "payload size"},
		{"payload size giant", f, poke(record(good, 7), func(r []byte) { le.PutUint32(r[12:], 1<<32-1) }), "payload size"},
		{"payload size that overflows", f, poke(record(good, 7), func(r []byte) { le.PutUint32(r[12:], 1<<32-52) }), "payload size"},
		{"payload of one byte", f, record([]byte{0x28}, 7), "payload"},
		{"no zstd", f, record(plain[:9000], 7), "payload"},
		{"a bit flipped", f, record(flipped, 7), "payload"},
		{"a checksum flipped", f, record(sum, 7), "payload"},
		{"two frames", f, record(append(bytes.Clone(good), good...), 7), "payload"},
		{"an empty frame after it", f, record(append(bytes.Clone(good), frame(t, nil, zstd.WithZeroFrames(true))...), 7), "payload"},
		{"a skippable frame before it", f, record(append(bytes.Clone(skippable), good...), 7), "payload"},
		{"a skippable frame after it", f, record(append(bytes.Clone(good), skippable...), 7), "payload"},
		{"a byte after it", f, record(append(bytes.Clone(good), 0), 7), "payload"},
		{"cut in the checksum", f, record(good[:len(good)-1], 7), "payload"},
		{"cut in a block", f, record(good[:len(good)/2], 7), "payload"},
		{"content a byte less", f, record(frame(t, plain[1:]), 7), "payload"},
		{"content twice a block", f, record(frame(t, append(bytes.Clone(plain), plain...)), 7), "payload"},
		{"content size unknown", f, record(streamed(t, plain), 7), "payload"},
		{"content size a lie", f, record(lie(t, plain[:1<<20]), 7), "payload"},
		{"a bomb", f, record(frame(t, make([]byte, 64<<20)), 7), "payload"},
		{"a bomb that lies", f, record(lie(t, make([]byte, 64<<20)), 7), "payload"},
		{"a dictionary", f, record(dictionary(good), 7), "payload"},
		{"a giant window", f, record(window(good, 0xff), 7), "payload"},
		{"a window over the largest block", f, record(window(good, 16<<3), 7), "payload"}, // 64 MiB
		{"zstd in zlib's place", fz, record(good, 7), "payload"},
		{"zlib in zstd's place", f, record(z, 7), "payload"},
		{"zlib, no sync flush", fz, record(z[:len(z)-1], 7), "payload"},
		{"zlib, a reserved block type", fz, record(poke(bytes.Clone(z), func(b []byte) { b[2] |= 6 }), 7), "payload"},
		{"zlib, ended by a final block", fz, record(zlibClosed(t, plain), 7), "payload"},
		{"zlib, less than a block", fz, record(zlibSync(t, plain[1:]), 7), "payload"},
		{"zlib, more than a block", fz, record(zlibSync(t, append(bytes.Clone(plain), 1)), 7), "payload"},
		{"zlib, two blocks", fz, record(append(bytes.Clone(z), z[2:]...), 7), "payload"},
		{"zlib, a bomb", fz, record(zlibSync(t, make([]byte, 64<<20)), 7), "payload"},
		{"zlib, with a dictionary", fz, record(poke(bytes.Clone(z), func(b []byte) { b[0], b[1] = 0x78, 0x20 }), 7), "payload"},
		{"zlib, another method", fz, record(poke(bytes.Clone(z), func(b []byte) { b[0], b[1] = 0x77, 31-0x7700%31 }), 7), "payload"},
		{"zlib, header's check", fz, record(poke(bytes.Clone(z), func(b []byte) { b[1]++ }), 7), "payload"},
		{"zlib, one byte", fz, record(z[:1], 7), "payload"},
	} {
		err := c.f.DecodeRecord(dst, c.rec, 7)
		if err == nil {
			t.Errorf("%s: it was decoded", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) { wantKind(t, err, diskformat.ErrCorrupt, c.field) })
	}
	if err := f.DecodeRecord(dst[1:], record(good, 7), 7); err == nil {
		t.Error("a short destination was taken")
	}
	if err := f.DecodeRecord(dst, record(good, 100), 100); err == nil {
		t.Error("a block beyond the disk was taken")
	}
}

// lie is a frame of p whose header says that it holds a block.
func lie(t testing.TB, p []byte) []byte {
	b := frame(t, p, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	le.PutUint32(b[5:], DefaultBlockSize)
	return b
}

// window gives a frame of a single segment a window descriptor.
func window(frame []byte, descriptor byte) []byte {
	b := append([]byte{}, frame[:4]...)
	b = append(b, frame[4]&^(1<<5), descriptor)
	return append(b, frame[5:]...)
}

// zlibClosed compresses p to a finished zlib stream.
func zlibClosed(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := stdzlib.NewWriter(&b)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// dictionary makes a frame ask for a dictionary with the id 9.
func dictionary(frame []byte) []byte {
	b := append([]byte{}, frame[:4]...)
	b = append(b, frame[4]|1)
	if frame[4]&(1<<5) == 0 {
		b = append(b, frame[5], 9)
		return append(b, frame[6:]...)
	}
	return append(append(b, 9), frame[5:]...)
}

// Decoding holds no memory that a record asks for. Not parallel: it measures.
func TestDecodingMemoryIsBounded(t *testing.T) {
	f := &File{h: header{blockSize: DefaultBlockSize, maxBlocks: 1, compression: methodZstd}}
	f.h.OrigSize = DefaultBlockSize
	dst := make([]byte, DefaultBlockSize)
	if err := f.DecodeRecord(dst, record(frame(t, madeUpBlock(2)), 0), 0); err != nil {
		t.Fatal(err)
	}
	fz := &File{h: f.h}
	fz.h.compression = methodZlib
	for name, c := range map[string]struct {
		f   *File
		rec []byte
	}{
		"a bomb":           {f, record(frame(t, make([]byte, 64<<20)), 0)},
		"a bomb that lies": {f, record(lie(t, make([]byte, 64<<20)), 0)},
		"a zlib bomb":      {fz, record(zlibSync(t, make([]byte, 64<<20)), 0)},
		"a sound one":      {f, record(frame(t, madeUpBlock(3)), 0)},
		"no size":          {f, record(streamed(t, make([]byte, 64<<20)), 0)},
	} {
		if n := disktest.Allocated(func() { _ = c.f.DecodeRecord(dst, c.rec, 0) }); n > 4<<20 {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
}

// What lies behind a reader's buffer is the reader's.
func TestReadAtStaysInItsBuffer(t *testing.T) {
	t.Parallel()
	// Every length of the last copy, so that some end in the midst of a stride.
	for n := range 16 {
		readAtStays(t, text(n))
	}
}

// text is a block of short matches that ends n bytes into one of its lines.
func text(n int) []byte {
	var b []byte
	for i := 0; len(b) < DefaultBlockSize+16; i++ {
		b = fmt.Appendf(b, "line %d of a block of made-up text\n", i*i)
	}
	b = b[n:]
	return b[:DefaultBlockSize]
}

func readAtStays(t *testing.T, plain []byte) {
	t.Helper()
	var out bytes.Buffer
	if _, err := Convert(t.Context(), &out, bytes.NewReader(plain), int64(len(plain)), ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.Repeat([]byte{0xee}, DefaultBlockSize+100)
	if _, err := f.ReadAt(all[:DefaultBlockSize], 0); err != nil || !bytes.Equal(all[:DefaultBlockSize], plain) {
		t.Fatalf("read a block: %v", err)
	}
	if rest := all[DefaultBlockSize:]; bytes.Count(rest, []byte{0xee}) != len(rest) {
		t.Fatal("more was written to")
	}
}
