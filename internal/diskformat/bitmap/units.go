package bitmap

import (
	"encoding/binary"
	"fmt"
)

const (
	// UnitSize is what the smallest checksum covers, in bytes: one of a block's
	// units.
	UnitSize = 32 << 10

	blockUnits  = BlockSize / UnitSize
	unitSumsLen = 4 * blockUnits // in the file, of one block
)

// UnitSums tells where in the map's file the checksums of block i's units lie, in
// bytes; n is 256. They are not part of the [Map], which would take 128 MiB more of
// a full TiB. ok is false where there are none: in a map that is not Ours, and for
// a block that is zero.
func (m *Map) UnitSums(i int64) (off, n int64, ok bool) {
	if m.kind != Ours || !m.Block(i) {
		return 0, 0, false
	}
	return headLen(m.Blocks(), m.DataBlocks()) + unitSumsLen*int64(m.data.Rank(uint32(i))), unitSumsLen, true
}

// CheckUnitSums says whether b, which was read from where [Map.UnitSums] says, are
// the checksums of block i's units: they must make the block's own. If not, the
// error is an ErrCorrupt that names the block.
func (m *Map) CheckUnitSums(b []byte, i int64) error {
	want, ok := m.Checksum(i)
	if !ok {
		return corruptUnits(i, "the map has none of it")
	}
	if len(b) != unitSumsLen {
		return corruptUnits(i, "they have %d bytes, right are %d", len(b), unitSumsLen)
	}
	sums, n := decodeUnitSums(b), m.blockLen(i)
	for u := (n + UnitSize - 1) / UnitSize; u < blockUnits; u++ {
		if sums[u] != 0 {
			return corruptUnits(i, "unit %d lies beyond the disk and has the checksum %#08x, right is 0", u, sums[u])
		}
	}
	if sum := sums.join(n); sum != want {
		return corruptUnits(i, "together they make %#08x, the block's is %#08x; make the map anew", sum, want)
	}
	return nil
}

func corruptUnits(i int64, problem string, args ...any) error {
	return corruptMF(fmt.Sprintf("checksums of block %d's units", i), problem, args...)
}

// UnitSum is the CRC-32C (Castagnoli) of unit u of a block, 0 to 63, in b, which
// [Map.CheckUnitSums] found right: of its UnitSize bytes or, of the disk's last
// unit, of those that are left.
func UnitSum(b []byte, u int) uint32 { return binary.LittleEndian.Uint32(b[4*u:]) }

func decodeUnitSums(b []byte) (s unitSums) {
	for u := range s {
		s[u] = UnitSum(b, u)
	}
	return s
}

// encode is the inverse of decodeUnitSums.
func (s *unitSums) encode() (b [unitSumsLen]byte) {
	for u, sum := range s {
		binary.LittleEndian.PutUint32(b[4*u:], sum)
	}
	return b
}
