package vhdx

import (
	"encoding/binary"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

var le = binary.LittleEndian

// Where the parts of a victim lie.
const (
	logAt      = 1 * mib
	metadataAt = 2 * mib
	itemsAt    = metadataAt + metadataTable
	batAt      = 3 * mib
	payloadAt  = 4 * mib
)

// victim is a sound file that a test pokes: pieces of a file of zeros. Its
// checksums are made when it is opened, except those that a test spoils.
type victim struct {
	disktest.Patched
	size    int64
	noSeals bool
}

var someLog = parseGUID("01234567-89AB-CDEF-0123-456789ABCDEF")

// newVictim makes a file for a disk of size bytes in which nothing is stored.
func newVictim(size int64, block, sector uint32) *victim {
	v := &victim{Patched: disktest.Patched{}, size: payloadAt}
	v.Patched[0] = []byte(identifier + "q\x00")
	for i, off := range []int64{headerOff1, headerOff2} {
		h := make([]byte, headerSize)
		copy(h, "head")
		le.PutUint64(h[8:], uint64(7+i))
		le.PutUint16(h[66:], 1)
		le.PutUint32(h[68:], mib)
		le.PutUint64(h[72:], logAt)
		v.Patched[off] = h
	}
	for _, off := range []int64{regionOff1, regionOff2} {
		r := make([]byte, regionSize)
		copy(r, "regi")
		v.Patched[off] = r
	}
	v.region(regionBAT, batAt, mib, 1)
	v.region(regionMetadata, metadataAt, mib, 1)

	table := make([]byte, metadataTable)
	copy(table, "metadata")
	v.Patched[metadataAt] = table
	v.Patched[itemsAt] = make([]byte, 256)
	value := make([]byte, 8)
	le.PutUint32(value, block)
	v.item(itemFileParameters, itemRequired, value)
	v.item(itemDiskSize, itemRequired|2, le.AppendUint64(nil, uint64(size)))
	v.item(itemDiskID, itemRequired|2, make([]byte, 16))
	v.item(itemLogicalSector, itemRequired|2, le.AppendUint32(nil, sector))
	v.item(itemPhysicalSector, itemRequired|2, le.AppendUint32(nil, 4096))
	v.Patched[batAt] = make([]byte, mib)
	return v
}

// region appends to both region tables.
func (v *victim) region(id guid, off uint64, size, required uint32) {
	for _, t := range []int64{regionOff1, regionOff2} {
		b := v.Patched[t]
		n := le.Uint32(b[8:])
		e := b[16+32*n:]
		copy(e, id[:])
		le.PutUint64(e[16:], off)
		le.PutUint32(e[24:], size)
		le.PutUint32(e[28:], required)
		le.PutUint32(b[8:], n+1)
	}
}

// regions changes entry k of both region tables.
func (v *victim) regions(k int, poke func(e []byte)) {
	for _, t := range []int64{regionOff1, regionOff2} {
		poke(v.Patched[t][16+32*k:][:32])
	}
}

// item appends to the metadata table and puts the value after those before.
func (v *victim) item(id guid, flags uint32, value []byte) {
	b := v.Patched[metadataAt]
	n := int(le.Uint16(b[10:]))
	e := b[32+32*n:]
	copy(e, id[:])
	le.PutUint32(e[16:], uint32(metadataTable+32*n))
	le.PutUint32(e[20:], uint32(len(value)))
	le.PutUint32(e[24:], flags)
	le.PutUint16(b[10:], uint16(n+1))
	copy(v.Patched[itemsAt][32*n:], value)
}

// entryOf is entry k of the metadata table, value the value of item k.
func (v *victim) entryOf(k int) []byte { return v.Patched[metadataAt][32+32*k:][:32] }
func (v *victim) value(k int) []byte   { return v.Patched[itemsAt][32*k:] }

// set32 and set64 change both headers.
func set32(off int, x uint32) func(v *victim) {
	return func(v *victim) {
		le.PutUint32(v.Patched[headerOff1][off:], x)
		le.PutUint32(v.Patched[headerOff2][off:], x)
	}
}

func set64(off int, x uint64) func(v *victim) {
	return func(v *victim) {
		le.PutUint64(v.Patched[headerOff1][off:], x)
		le.PutUint64(v.Patched[headerOff2][off:], x)
	}
}

// bat sets entry k of the block allocation table.
func bat(k int, e uint64) func(v *victim) {
	return func(v *victim) { le.PutUint64(v.Patched[batAt][8*k:], e) }
}

// store appends content to the file as a block and returns its entry.
func (v *victim) store(content []byte, block int64) uint64 {
	off := v.size
	v.Patched[off] = content
	v.size += block
	return uint64(off) | statePresent
}

// seal makes the checksums of headers and region tables.
func (v *victim) seal() {
	if v.noSeals {
		return
	}
	for _, off := range []int64{headerOff1, headerOff2, regionOff1, regionOff2} {
		b := v.Patched[off]
		le.PutUint32(b[4:], checksum(b))
	}
}

func (v *victim) open() (*File, error) {
	v.seal()
	return Open(v.Patched, v.size)
}

func (v *victim) mustOpen(t testing.TB) *File {
	t.Helper()
	f, err := v.open()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// write writes the file to path.
func (v *victim) write(path string) error {
	v.seal()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(v.size); err != nil {
		return err
	}
	for _, off := range slices.Sorted(maps.Keys(v.Patched)) {
		if _, err := f.WriteAt(v.Patched[off], off); err != nil {
			return err
		}
	}
	return f.Close()
}

// The usual victim's disk has 10 blocks of 1 MiB, the last in part. Stored are
// 0, 3, 4 and 9; the others read as zeros for four different reasons.
const usualSize = 9*mib + 1536

func usualContent(block int) []byte {
	b := make([]byte, mib)
	disktest.Fill(b[:100_000], uint64(block))
	b[0], b[mib-1] = byte(block+1), byte(block+1)
	return b
}

func usual() *victim {
	v := newVictim(usualSize, mib, 512)
	for _, block := range []int{3, 4, 0, 9} { // 4 follows 3 in the file
		bat(block, v.store(usualContent(block), mib))(v)
	}
	bat(1, stateZero)(v)
	bat(2, stateUndefined|99*mib)(v)
	bat(5, stateUnmapped|2*mib)(v)
	return v
}

// usualDisk is what the usual victim reads as.
func usualDisk() []byte {
	d := make([]byte, 10*mib)
	for _, block := range []int{0, 3, 4, 9} {
		copy(d[block*mib:], usualContent(block))
	}
	return d[:usualSize]
}

// change is a descriptor of a log entry: a sector, or so many zeros.
type change struct {
	off    int64
	sector []byte
	zeros  int64
}

// logEntry is an entry of a log, sealed.
func logEntry(log guid, sequence uint64, tail uint32, file int64, changes ...change) []byte {
	front := (entryHeader + len(changes)*descriptorLen + logSector - 1) / logSector * logSector
	b := make([]byte, front)
	copy(b, "loge")
	le.PutUint32(b[12:], tail)
	le.PutUint64(b[16:], sequence)
	le.PutUint32(b[24:], uint32(len(changes)))
	copy(b[32:], log[:])
	le.PutUint64(b[48:], uint64(file))
	le.PutUint64(b[56:], uint64(file))
	for i, c := range changes {
		d := b[entryHeader+i*descriptorLen:]
		le.PutUint64(d[16:], uint64(c.off))
		le.PutUint64(d[24:], sequence)
		if c.sector == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(c.zeros))
			continue
		}
		copy(d, "desc")
		copy(d[4:8], c.sector[logSector-4:])
		copy(d[8:16], c.sector)
		s := make([]byte, logSector)
		copy(s, c.sector)
		copy(s, "data")
		le.PutUint32(s[4:], uint32(sequence>>32))
		le.PutUint32(s[logSector-4:], uint32(sequence))
		b = append(b, s...)
	}
	le.PutUint32(b[8:], uint32(len(b)))
	sealEntry(b)
	return b
}

func sealEntry(b []byte) { le.PutUint32(b[4:], checksum(b)) }

// logged says in the headers that the log is to be applied, and puts entries in
// it, the first at start; the ring may be left and entered again.
func (v *victim) logged(start int64, entries ...[]byte) {
	for _, h := range []int64{headerOff1, headerOff2} {
		copy(v.Patched[h][48:], someLog[:])
	}
	ring := v.Patched[logAt]
	if ring == nil {
		ring = make([]byte, mib)
		v.Patched[logAt] = ring
	}
	for _, e := range entries {
		n := copy(ring[start:], e)
		copy(ring, e[n:])
		start = (start + int64(len(e))) % mib
	}
}
