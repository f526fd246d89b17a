package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

var be = binary.BigEndian

// made is a sound file that a test pokes. Its clusters are the header, an L1
// table, one L2 table, and then what the test adds.
type made struct {
	b    []byte
	bits uint
}

// newMade makes a file of version 3 with an empty disk of that many clusters.
func newMade(bits uint, clusters int64) *made {
	m := &made{b: make([]byte, 3<<bits), bits: bits}
	copy(m.b, magic)
	m.set32(offVersion, 3)
	m.set32(offClusterBits, uint32(bits))
	m.set64(offSize, uint64(clusters)<<bits)
	span := int64(1) << (bits - 3)
	m.set32(offL1Size, uint32((clusters+span-1)/span))
	m.set64(offL1Offset, 1<<bits)
	m.set32(offRefcountOrder, 4)
	m.set32(offHeaderLength, 104)
	m.set64(1<<bits, 2<<bits|flagCopied)
	return m
}

func (m *made) set32(off int, x uint32) { be.PutUint32(m.b[off:], x) }
func (m *made) set64(off int, x uint64) { be.PutUint64(m.b[off:], x) }
func (m *made) or64(off int, x uint64)  { m.set64(off, be.Uint64(m.b[off:])|x) }

// version2 turns the header into one of version 2.
func (m *made) version2() {
	m.set32(offVersion, 2)
	clear(m.b[headerLen2 : headerLen3+8])
}

// extend makes the header longer, to 112 bytes, and sets the compression.
func (m *made) compression(method byte) {
	m.set32(offHeaderLength, 112)
	m.b[offCompression] = method
	if method != 0 {
		m.or64(offIncompatible, featureCompression)
	}
}

// extension puts a header extension after those that are there; off is where
// the first one goes, the result where the next one does.
func (m *made) extension(off int, kind uint32, data string) int {
	m.set32(off, kind)
	m.set32(off+4, uint32(len(data)))
	copy(m.b[off+8:], data)
	return off + 8 + (len(data)+7)&^7
}

// l1 and l2 set an entry of a table.
func (m *made) l1(i int, e uint64) { m.set64(1<<m.bits+8*i, e) }
func (m *made) l2(i int, e uint64) { m.set64(2<<m.bits+8*i, e) }

// store appends a cluster with b in it and lets L2 entry i point to it.
func (m *made) store(i int, b []byte) {
	m.l2(i, uint64(len(m.b))|flagCopied)
	m.b = append(m.b, b...)
	m.b = append(m.b, make([]byte, 1<<m.bits-len(b))...)
}

// pack appends b, compressed bytes, and lets L2 entry i point to them. It does
// not fill the last sector.
func (m *made) pack(i int, b []byte) {
	off := uint64(len(m.b))
	m.b = append(m.b, b...)
	sectors := (uint64(len(m.b))-1)/512 - off/512
	m.l2(i, flagCompressed|off|sectors<<(62-(m.bits-8)))
}

func deflated(plain []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, 6)
	_, _ = w.Write(plain)
	_ = w.Close()
	return out.Bytes()
}

// zstdStreamed compresses as a writer does that does not know the length
// beforehand.
func zstdStreamed(plain []byte, opts ...zstd.EOption) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, opts...)
	if err != nil {
		panic(err)
	}
	for len(plain) > 0 {
		n := min(len(plain), 1000)
		_, _ = w.Write(plain[:n])
		plain = plain[n:]
	}
	_ = w.Close()
	return out.Bytes()
}

func (m *made) open() (*File, error) {
	return Open(bytes.NewReader(m.b), int64(len(m.b)), Options{})
}

func (m *made) mustOpen(t testing.TB) *File {
	t.Helper()
	f, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// content is made up; it is no multiple of anything and compresses.
func content(n int, seed uint64) []byte {
	b := make([]byte, n)
	disktest.Fill(b, seed)
	copy(b, "a cluster of made-up text, a cluster of made-up text")
	return b
}

// readAll reads the whole disk in pieces of that many bytes.
func readAll(f *File, piece int64) ([]byte, error) {
	b := make([]byte, f.Size())
	for off := int64(0); off < f.Size(); off += piece {
		if err := diskformat.ReadFull(f, b[off:min(off+piece, f.Size())], off); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// wantKind checks that err is of a kind and names a field.
func wantKind(t testing.TB, err, kind error, field string) {
	t.Helper()
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.Contains(e.Field, field) {
		t.Fatalf("the error is %v; it should be %q and name %q", err, kind, field)
	}
}
