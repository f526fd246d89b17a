package bitmap

import "hash/crc32"

// The arithmetic that makes the checksum of joined pieces out of theirs.
//
// A CRC is linear: its bits are the coefficients of a polynomial over GF(2), and
// to sum n more bytes multiplies what was summed before by x^(8n), modulo the
// CRC's own polynomial P, and adds what the new bytes make. What a CRC inverts
// before and after cancels out, so that for any A and B
//
//	crc(A||B) = crc(A)·x^(8·len(B)) + crc(B)   (mod P; + is exclusive or)
//
// As CRC-32C is reflected, the highest bit is the coefficient of x^0 and a shift
// to the right multiplies by x.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// times multiplies two polynomials modulo P.
func times(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 == 1 {
			product ^= b
		}
		b = b>>1 ^ -(b&1)&crc32.Castagnoli
	}
	return product
}

// power is x^(8n) modulo P, for n not negative.
func power(n int64) uint32 {
	const one, x8 = 1 << 31, 1 << 23
	result, square := uint32(one), uint32(x8)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result = times(result, square)
		}
		square = times(square, square)
	}
	return result
}

// unitShift has for each byte of a sum what it becomes when a whole unit follows.
var unitShift = func() (t [4][256]uint32) {
	by := power(UnitSize)
	for k := range t {
		for c := uint32(1); c < 256; c++ {
			if low := c & -c; low == c {
				t[k][c] = times(c<<(8*k), by)
			} else {
				t[k][c] = t[k][low] ^ t[k][c^low]
			}
		}
	}
	return t
}()

// shiftUnit is sum·x^(8·UnitSize) modulo P.
func shiftUnit(sum uint32) uint32 {
	return unitShift[0][byte(sum)] ^ unitShift[1][byte(sum>>8)] ^ unitShift[2][byte(sum>>16)] ^ unitShift[3][byte(sum>>24)]
}

// unitSums are the checksums of a block's units. Units that the disk no longer has
// are 0.
type unitSums [blockUnits]uint32

// join is the checksum of the first n bytes of a block, at most BlockSize: n may
// end within a unit, whose checksum is then that of what n has of it.
func (s *unitSums) join(n int64) (sum uint32) {
	whole := n / UnitSize
	for _, unit := range s[:whole] {
		sum = shiftUnit(sum) ^ unit
	}
	if rest := n % UnitSize; rest > 0 {
		sum = times(sum, power(rest)) ^ s[whole]
	}
	return sum
}
