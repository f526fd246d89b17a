package checksum

import (
	"hash/crc32"
)

// nvme is the reflected polynomial of CRC-64/NVME (NVM Express base
// specification 2.0, section 5.2.1.3.4).
const nvme = 0x9a6c9329ac4bc9b5

// combine returns the CRC of two byte strings put together from their CRCs and
// the second one's length.
//
// A reflected CRC register that n zero bits are shifted into is multiplied by
// x^n modulo the polynomial. The start and end values that all three CRCs are
// XORed with (all ones) cancel out, so crc(AB) = crc(A)*x^(8*len(B)) + crc(B).
func (a Algorithm) combine(first, second uint64, length int64) uint64 {
	poly, bits := uint64(nvme), uint(64)
	switch a {
	case CRC32:
		poly, bits = crc32.IEEE, 32
	case CRC32C:
		poly, bits = crc32.Castagnoli, 32
	}
	// power is x^(8*2^i) in the i-th round; in reflected form x^k is the bit
	// bits-1-k.
	power := uint64(1) << (bits - 1 - 8)
	for n := uint64(length); n > 0; n >>= 1 {
		if n&1 != 0 {
			first = multiply(first, power, poly, bits)
		}
		power = multiply(power, power, poly, bits)
	}
	return first ^ second
}

// multiply is the product of two polynomials in reflected form, modulo poly.
func multiply(x, y, poly uint64, bits uint) uint64 {
	var product uint64
	for i := range bits {
		if x&(1<<(bits-1-i)) != 0 {
			product ^= y
		}
		if y&1 != 0 {
			y = y>>1 ^ poly
		} else {
			y >>= 1
		}
	}
	return product
}
