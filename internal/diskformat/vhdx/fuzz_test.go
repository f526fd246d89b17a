package vhdx

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/fuzztest"
)

// pieces are the places of a file that a fuzzed input fills, in order; all
// else is zeros, or content from payloadAt on. A real file has 4 MiB before it.
var pieces = []struct{ off, size int64 }{
	{0, 8},
	{headerOff1, 80},
	{headerOff2, 80},
	{regionOff1, 16 + 3*32},
	{regionOff2, 16 + 3*32},
	{metadataAt, 32 + 7*32},
	{itemsAt, 7 * 32},
	{batAt, 12 * entrySize},
	{logAt, 4 * logSector},
}

// gathered is the pieces of v as an input, zeros at its end left out.
func gathered(v *victim) []byte {
	v.seal()
	var b []byte
	for _, p := range pieces {
		part := make([]byte, p.size)
		if _, err := v.ReadAt(part, p.off); err != nil {
			panic(err)
		}
		b = append(b, part...)
	}
	return bytes.TrimRight(b, "\x00")
}

// scattered is a victim that is made anew for each input, in the same memory.
type scattered struct{ victim }

func newScattered() *scattered {
	s := &scattered{victim{Patched: disktest.Patched{payloadAt: payload}, size: 8 * mib}}
	for _, p := range pieces {
		full := p.size
		switch p.off {
		case headerOff1, headerOff2:
			full = headerSize
		case regionOff1, regionOff2:
			full = regionSize
		}
		s.Patched[p.off] = make([]byte, full)
	}
	return s
}

// fill makes the file of the input. Behind a piece that is longer in the file than
// in the input there are zeros, which nobody writes to.
func (s *scattered) fill(b []byte) {
	for _, p := range pieces {
		part := s.Patched[p.off][:p.size]
		n := copy(part, b)
		clear(part[n:])
		b = b[n:]
	}
}

var payload = func() []byte {
	b := make([]byte, 4*mib)
	disktest.Fill(b, 7)
	return b
}()

// FuzzVHDX opens files whose structures, but not their payload, are any bytes;
// with mend, the checksums are made to hold.
func FuzzVHDX(f *testing.F) {
	f.Add(gathered(usual()), false)
	f.Add(gathered(newVictim(70<<30, 32<<20, 4096)), true)
	dirty := usual()
	dirty.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, sector: bytes.Clone(dirty.Patched[batAt][:logSector])}))
	f.Add(gathered(dirty), true)
	zeroed := usual()
	zeroed.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, zeros: 4096}), logEntry(someLog, 6, 0, 8*mib))
	f.Add(gathered(zeroed), true)
	f.Add([]byte(identifier), false)
	v, c := newScattered(), new(checked)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte, mend bool) {
		v.fill(b)
		if mend {
			for at := 0; at < 4*logSector; at += logSector {
				e := v.Patched[logAt][at:]
				if n := int(le.Uint32(e[8:])); string(e[:4]) == "loge" && n >= entryHeader && n <= len(e) {
					sealEntry(e[:n])
				}
			}
		}
		v.noSeals = !mend
		file, err := v.open()
		if err != nil {
			if file != nil {
				t.Fatal("a disk with an error")
			}
			return
		}
		c.check(t, file)
	})
}

var unread = bytes.Repeat([]byte{0xee}, 9001)

// checked is the room in which disks are checked: what is read at once, and in pieces.
type checked struct{ p, q [9001]byte }

// check checks what holds of any disk that opens: the extents cover it,
// holes are zeros, and a range reads the same however it is cut, unless it
// does not read at all.
func (c *checked) check(t *testing.T, f *File) {
	t.Helper()
	if f.Size() <= 0 || f.Size() > MaxSize || f.Size()%f.LogicalSector() != 0 {
		t.Fatalf("the disk has %d bytes", f.Size())
	}
	at, was, budget := int64(0), false, 8
	for e, err := range f.Map(context.Background()) {
		if err != nil {
			// Whoever reads there meets it too.
			if _, err := f.ReadAt(make([]byte, 1), at); err == nil || err == io.EOF {
				t.Fatalf("mapping fails after %d, reading there does not", at)
			}
			return
		}
		if e.Offset != at || e.Length <= 0 || at > 0 && e.Data == was {
			t.Fatalf("the extent %+v follows what ends at %d", e, at)
		}
		at, was = e.End(), e.Data
		n := min(e.Length, int64(len(c.p)))
		for _, off := range []int64{e.Offset, e.Offset + (e.Length-n)/2, e.End() - n} {
			if budget--; budget < 0 {
				break
			}
			p, q := c.p[:n], c.q[:n]
			copy(p, unread)
			copy(q, unread)
			k, err := f.ReadAt(p, off)
			switch {
			case err != nil && err != io.EOF:
				if !e.Data {
					t.Fatalf("the hole %+v does not read: %v", e, err)
				}
				continue
			case int64(k) != n:
				t.Fatalf("%d of %d bytes at %d, %v", k, n, off, err)
			case !e.Data && !sparse.IsZero(p):
				t.Fatalf("the hole %+v is not zero", e)
			}
			_, err1 := f.ReadAt(q[:n/3], off)
			_, err2 := f.ReadAt(q[n/3:], off+n/3)
			if err1 != nil || err2 != nil && err2 != io.EOF || !bytes.Equal(p, q) {
				t.Fatalf("%d bytes at %d in two pieces: %v, %v, the same: %v", n, off, err1, err2, bytes.Equal(p, q))
			}
		}
	}
	if at != f.Size() {
		t.Fatalf("the extents end at %d of %d", at, f.Size())
	}
}
