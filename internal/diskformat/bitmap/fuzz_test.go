package bitmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/fuzztest"
)

func FuzzMF(f *testing.F) {
	b, size := victimMF(f)
	f.Add(b, size)
	f.Add(b[:4096], size)
	f.Add(b[:8], int64(512))
	f.Add([]byte{}, int64(1<<40))
	f.Add(append(bytes.Clone(b), b...), size+1)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte, size int64) {
		// With checksums that hold, more of the reader is reached.
		sealed := bytes.Clone(b)
		if len(sealed) >= 8192 {
			seal(sealed)
		}
		for _, b := range [][]byte{b, sealed} {
			m, err := parseBytes(b, size)
			if err != nil {
				continue
			}
			if m.ImageSize() != size || m.Kind() == Unknown && m.DataBlocks() != m.Blocks() {
				t.Fatalf("%s: %d of %d blocks of %d", m.Kind(), m.DataBlocks(), m.Blocks(), m.ImageSize())
			}
			if m.Kind() == Ours {
				fuzzUnits(t, m, b)
			}
		}
	})
}

// fuzzUnits uses the unit table of a map that was taken from b, whatever is in it.
func fuzzUnits(t *testing.T, m *Map, b []byte) {
	head := m.encodeHead()
	if !bytes.Equal(head, b[:len(head)]) {
		t.Fatal("a map that was taken is not the one that is written")
	}
	// joined gets the checksums of blocks that those of units make.
	joined, table := bytes.Clone(b), len(head)-4*len(m.sums)
	for i := int64(-1); i <= m.Blocks(); i++ {
		off, n, ok := m.UnitSums(i)
		if ok != m.Block(i) {
			t.Fatalf("block %d has checksums of units: %v", i, ok)
		}
		switch {
		case ok:
			sum := slowJoin(b[off:off+n], m.blockLen(i)) // which lie within the file
			binary.LittleEndian.PutUint32(joined[table:], sum)
			table += 4
		case i < 10 || i == m.Blocks():
			off, n = 0, 256
		default:
			continue
		}
		for _, sums := range [][]byte{b[off : off+n], b[:n], b[:n-1], nil} {
			if err := m.CheckUnitSums(sums, i); err != nil && !errors.Is(err, diskformat.ErrCorrupt) {
				t.Fatal(err)
			} else if want, _ := m.Checksum(i); err == nil && slowJoin(sums, m.blockLen(i)) != want {
				t.Fatalf("checksums of units that do not make block %d's were taken", i)
			}
		}
	}
	seal(joined)
	m, err := parseBytes(joined, m.ImageSize())
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Blocks() {
		off, n, ok := m.UnitSums(i)
		if !ok {
			continue
		}
		sums := joined[off : off+n]
		beyond := sums[4*((m.blockLen(i)+UnitSize-1)/UnitSize):]
		if err := m.CheckUnitSums(sums, i); (err == nil) != bytes.Equal(beyond, make([]byte, len(beyond))) {
			t.Fatalf("checksums of units that make block %d's: %v", i, err)
		}
	}
}

// slowJoin is the checksum of n bytes of which sums has those of their units.
func slowJoin(sums []byte, n int64) (sum uint32) {
	u, by := 0, power(UnitSize)
	for ; n >= UnitSize; n -= UnitSize {
		sum = times(sum, by) ^ UnitSum(sums, u)
		u++
	}
	if n > 0 {
		sum = times(sum, power(n)) ^ UnitSum(sums, u)
	}
	return sum
}
