package zvhd

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// encode makes a file the way its description says, with the standard
// library's zlib.
func encode(t testing.TB, raw []byte) []byte { return encodeBlocks(t, raw, BlockSize) }

// encodeBlocks makes one with blocks of another size.
func encodeBlocks(t testing.TB, raw []byte, size int) []byte {
	header := make([]byte, zdisk.PageSize)
	front := zdisk.Front{OrigSize: uint64(len(raw)), CurrSize: zdisk.VirtualSize(uint64(len(raw)))}
	copy(front.Cookie[:], cookie)
	front.Put(header)
	zdisk.Seal(header)
	out := bytes.Clone(header)
	var stream bytes.Buffer
	z, err := zlib.NewWriterLevel(&stream, 1)
	if err != nil {
		t.Fatal(err)
	}
	for block := 0; block*size < len(raw); block++ {
		plain := make([]byte, size)
		copy(plain, raw[block*size:])
		if bytes.Equal(plain, make([]byte, size)) {
			continue
		}
		if _, err := z.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
		out = append(out, record(stream.Bytes(), uint32(block))...)
		stream.Reset()
	}
	return append(out, header...)
}

func record(payload []byte, block uint32) []byte {
	return zdisk.FinishRecord(append(make([]byte, zdisk.RecordHeadSize), payload...), block)
}

// extract writes the disk of the file r to dst, with what the file leaves out as zeros.
func extract(dst io.WriterAt, r io.Reader) error {
	z, err := newReader(r, BlockSize)
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	done := int64(0)
	for {
		off, plain, err := z.Next()
		switch {
		case err == io.EOF:
			off, plain = z.OrigSize(), nil
		case err != nil:
			return err
		}
		for done < off {
			n := min(off-done, int64(len(zeros)))
			if _, err := dst.WriteAt(zeros[:n], done); err != nil {
				return err
			}
			done += n
		}
		if err == io.EOF {
			return nil
		}
		if _, err := dst.WriteAt(plain, off); err != nil {
			return err
		}
		done += int64(len(plain))
	}
}

func extractBytes(t testing.TB, file []byte) ([]byte, error) {
	out := disktest.SparseFile(t, 0)
	if err := extract(out, bytes.NewReader(file)); err != nil {
		return nil, err
	}
	return os.ReadFile(out.Name())
}

func TestFixtureDecodes(t *testing.T) {
	t.Parallel()
	raw, file := disktest.Fixture(t, "c.raw"), disktest.Fixture(t, "c.zvhd")
	got, err := extractBytes(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != 16806400 || !bytes.Equal(got, raw) {
		t.Error("the disk differs from the source")
	}
	z, err := newReader(bytes.NewReader(file), BlockSize)
	if err != nil || z.OrigSize() != 16806400 || z.Size() != 1<<30 {
		t.Errorf("%v, sizes %d and %d", err, z.OrigSize(), z.Size())
	}
}

// The test's writer is right: but for zlib's choices it makes the fixture.
func TestEncodeMakesTheFixturesHeader(t *testing.T) {
	t.Parallel()
	ours, theirs := encode(t, disktest.Fixture(t, "c.raw")), disktest.Fixture(t, "c.zvhd")
	for _, b := range [][]byte{ours, theirs} {
		clear(b[24:28]) // time
		clear(b[64:84]) // checksum, UUID
	}
	if !bytes.Equal(ours[:512], theirs[:512]) {
		t.Errorf("%x\n%x", ours[:512], theirs[:512])
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		raw := make([]byte, rapid.IntRange(0, 3).Draw(rt, "blocks")*BlockSize+512*rapid.IntRange(1, 4096).Draw(rt, "sectors"))
		for range rapid.IntRange(0, 3).Draw(rt, "pieces") {
			off := rapid.IntRange(0, len(raw)-1).Draw(rt, "offset")
			n := rapid.IntRange(1, len(raw)-off).Draw(rt, "length")
			disktest.Fill(raw[off:off+n], rapid.Uint64().Draw(rt, "content"))
		}
		dst := &disktest.Memory{B: bytes.Repeat([]byte{0xee}, len(raw))}
		if err := extract(dst, bytes.NewReader(encode(t, raw))); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(dst.B, raw) {
			rt.Fatal("the disk differs")
		}
	})
}

func wantKind(t testing.TB, err, kind error, field string) {
	t.Helper()
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.Contains(e.Field, field) {
		t.Errorf("the error is %v; it should be %q and name %q", err, kind, field)
	}
}

// sample is a file of three records: blocks 0, 2 and 3 of 4 and a bit.
func sample(t testing.TB) (file []byte, records []int) { return sampleBlocks(t, BlockSize) }

// sampleBlocks is a sample with blocks of another size.
func sampleBlocks(t testing.TB, size int) (file []byte, records []int) {
	raw := make([]byte, 4*size+512)
	for _, block := range []int{0, 2, 3} {
		disktest.Fill(raw[block*size:][:size/64], uint64(block))
		raw[block*size] = 1
	}
	file = encodeBlocks(t, raw, size)
	for off := zdisk.PageSize; off < len(file)-zdisk.PageSize; {
		records = append(records, off)
		off += int(zdisk.RecordLen(int64(binary.LittleEndian.Uint32(file[off+12:]))))
	}
	if len(records) != 3 {
		t.Fatalf("records at %v", records)
	}
	return file, records
}

func TestHostileFilesAreRefused(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for _, c := range []struct {
		name  string
		poke  func(b []byte, rec []int) []byte
		kind  error
		field string
	}{
		{"cookie", func(b []byte, _ []int) []byte { b[7] = 1; return b }, diskformat.ErrWrongFormat, ""},
		{"checksum", func(b []byte, _ []int) []byte { b[100] ^= 1; return b }, diskformat.ErrCorrupt, "checksum"},
		{"orig_size 0", func(b []byte, _ []int) []byte { le.PutUint64(b[40:], 0); zdisk.Seal(b); return b }, diskformat.ErrCorrupt, "orig_size"},
		{"orig_size odd", func(b []byte, _ []int) []byte { b[40]++; zdisk.Seal(b); return b }, diskformat.ErrCorrupt, "orig_size"},
		{"orig_size giant", func(b []byte, _ []int) []byte { le.PutUint64(b[40:], 1<<63); zdisk.Seal(b); return b }, diskformat.ErrUnsupported, "orig_size"},
		{"curr_size less", func(b []byte, _ []int) []byte { le.PutUint64(b[48:], 512); zdisk.Seal(b); return b }, diskformat.ErrCorrupt, "curr_size"},
		{"curr_size giant", func(b []byte, _ []int) []byte { le.PutUint64(b[48:], 1<<64-1); zdisk.Seal(b); return b }, diskformat.ErrCorrupt, "curr_size"},
		{"record head", func(b []byte, rec []int) []byte { b[rec[1]] ^= 1; return b }, diskformat.ErrCorrupt, "head"},
		{"record tail", func(b []byte, rec []int) []byte { b[rec[2]-1] ^= 1; return b }, diskformat.ErrCorrupt, "tail"},
		{"block twice", func(b []byte, rec []int) []byte { le.PutUint32(b[rec[1]+16:], 0); return b }, diskformat.ErrCorrupt, "block number"},
		{"blocks swapped", func(b []byte, rec []int) []byte {
			le.PutUint32(b[rec[1]+16:], 3)
			le.PutUint32(b[rec[2]+16:], 2)
			return b
		}, diskformat.ErrCorrupt, "block number"},
		{"block beyond the disk", func(b []byte, rec []int) []byte { le.PutUint32(b[rec[2]+16:], 5); return b }, diskformat.ErrCorrupt, "block number"},
		{"block giant", func(b []byte, rec []int) []byte { le.PutUint32(b[rec[2]+16:], 1<<32-1); return b }, diskformat.ErrCorrupt, "block number"},
		{"payload size 0", func(b []byte, rec []int) []byte { le.PutUint32(b[rec[0]+12:], 0); return b }, diskformat.ErrCorrupt, "payload size"},
		{"payload size giant", func(b []byte, rec []int) []byte { le.PutUint32(b[rec[0]+12:], 1<<32-1); return b }, diskformat.ErrCorrupt, "payload size"},
		{"payload size over the limit", func(b []byte, rec []int) []byte { le.PutUint32(b[rec[0]+12:], MaxRecord-51); return b }, diskformat.ErrCorrupt, "payload size"},
		{"zlib header", func(b []byte, rec []int) []byte { b[rec[0]+48] = 0x79; return b }, diskformat.ErrCorrupt, "payload"},
		{"no sync flush", func(b []byte, rec []int) []byte {
			le.PutUint32(b[rec[1]+12:], le.Uint32(b[rec[1]+12:])-1)
			return b
		}, diskformat.ErrCorrupt, "payload"},
		{"a record left out", func(b []byte, rec []int) []byte { return append(b[:rec[0]:rec[0]], b[rec[1]:]...) }, diskformat.ErrCorrupt, "payload"},
		{"another copy", func(b []byte, _ []int) []byte { b[len(b)-4096+70] ^= 1; return b }, diskformat.ErrCorrupt, "copy"},
		{"bytes after the copy", func(b []byte, _ []int) []byte { return append(b, 0) }, diskformat.ErrCorrupt, "file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, rec := sample(t)
			_, err := extractBytes(t, c.poke(b, rec))
			wantKind(t, err, c.kind, c.field)
		})
	}
}

// However little is left of a file, it is told from a whole one.
func TestTruncated(t *testing.T) {
	t.Parallel()
	b, rec := sample(t)
	dst := &disktest.Memory{B: make([]byte, 4*BlockSize+512)}
	for n := 0; n < len(b); n++ {
		// Every byte where it is cheap, some where a block must be decoded.
		if n > rec[0]+100 && n%211 != 0 {
			continue
		}
		err := extract(dst, bytes.NewReader(b[:n]))
		kind := diskformat.ErrIncomplete
		if n < len(cookie) {
			kind = diskformat.ErrWrongFormat
		}
		if !errors.Is(err, kind) {
			t.Fatalf("cut after %d of %d: %v", n, len(b), err)
		}
	}
}

type failingReader struct {
	r   io.Reader
	err error
}

func (f failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func TestFailingSource(t *testing.T) {
	t.Parallel()
	b, rec := sample(t)
	broken := errors.New("the line is dead")
	for _, n := range []int{0, 100, 4096, rec[1] + 5, rec[1] + 4096, len(b) - 1, len(b)} {
		err := extract(&disktest.Memory{B: make([]byte, 4*BlockSize+512)}, failingReader{bytes.NewReader(b[:n]), broken})
		if !errors.Is(err, broken) {
			t.Errorf("failing after %d bytes: %v", n, err)
		}
	}
}

// What a file asks for is not what it gets. Not parallel: it measures.
func TestMemoryIsBounded(t *testing.T) {
	b, rec := sample(t)
	giant := bytes.Clone(b)
	binary.LittleEndian.PutUint32(giant[rec[0]+12:], MaxRecord-100)
	bomb := bytes.Clone(b[:rec[0]])
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	if _, err := w.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	bomb = append(bomb, record(z.Bytes(), 0)...)
	for name, file := range map[string][]byte{"sound": b, "giant record": giant, "giant record, cut off": giant[:rec[0]+8192], "bomb": bomb} {
		dst := &disktest.Memory{B: make([]byte, 4*BlockSize+512)}
		n := disktest.Allocated(func() {
			if err := extract(dst, bytes.NewReader(file)); (err == nil) != (name == "sound") {
				t.Errorf("%s: %v", name, err)
			}
		})
		most := uint64(8 << 20)
		if name == "giant record, cut off" {
			most = 256 << 10
		}
		if n > most {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
}
