package bitmap

import (
	"hash/crc32"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// The checksum of two pieces, of any lengths, is made of theirs.
func TestChecksumOfTwoPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := make([]byte, rapid.IntRange(0, 5*UnitSize).Draw(t, "length"))
		disktest.Fill(p, rapid.Uint64().Draw(t, "content"))
		at := rapid.IntRange(0, len(p)).Draw(t, "cut")
		a, b := crc32.Checksum(p[:at], castagnoli), crc32.Checksum(p[at:], castagnoli)
		want := crc32.Checksum(p, castagnoli)
		if got := times(a, power(int64(len(p)-at))) ^ b; got != want {
			t.Fatalf("%d and %d bytes make %#08x, right is %#08x", at, len(p)-at, got, want)
		}
	})
}

// A unit's shift by table is the shift by multiplication, whatever the sum.
func TestShiftOfAUnit(t *testing.T) {
	t.Parallel()
	by := power(UnitSize)
	rapid.Check(t, func(t *rapid.T) {
		sum := rapid.Uint32().Draw(t, "sum")
		if got, want := shiftUnit(sum), times(sum, by); got != want {
			t.Fatalf("%#08x becomes %#08x, right is %#08x", sum, got, want)
		}
	})
}

// The checksum of a block, or of the first bytes of one, is made of its units'.
func TestChecksumOfUnits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, BlockSize), rapid.SampledFrom([]int{0, 1, UnitSize - 1, UnitSize, UnitSize + 1, BlockSize - 1, BlockSize})).Draw(t, "length")
		p := make([]byte, n)
		disktest.Fill(p, rapid.Uint64().Draw(t, "content"))
		var s unitSums
		for at := 0; at < n; at += UnitSize {
			s[at/UnitSize] = crc32.Checksum(p[at:min(n, at+UnitSize)], castagnoli)
		}
		if got, want := s.join(int64(n)), crc32.Checksum(p, castagnoli); got != want {
			t.Fatalf("the units of %d bytes make %#08x, right is %#08x", n, got, want)
		}
	})
}
