// Package checksum knows the checksums that S3 keeps of objects: CRC32, CRC32C,
// CRC64NVME, SHA1 and SHA256, of a whole object and of the parts of one.
package checksum

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"strings"

	"github.com/minio/crc64nvme"
)

// Algorithm is a checksum algorithm by the name that S3 gives it.
type Algorithm string

// The algorithms.
const (
	CRC32     Algorithm = "CRC32"
	CRC32C    Algorithm = "CRC32C"
	CRC64NVME Algorithm = "CRC64NVME"
	SHA1      Algorithm = "SHA1"
	SHA256    Algorithm = "SHA256"
)

// All lists the algorithms.
var All = []Algorithm{CRC32, CRC32C, CRC64NVME, SHA1, SHA256}

// Type says what the checksum of an object made of parts is computed over.
type Type string

// The types.
const (
	// FullObject: over the object's bytes.
	FullObject Type = "FULL_OBJECT"
	// Composite: over the checksums of the parts.
	Composite Type = "COMPOSITE"
)

// Parse returns the algorithm of a name, in any case.
func Parse(name string) (Algorithm, bool) {
	for _, a := range All {
		if strings.EqualFold(name, string(a)) {
			return a, true
		}
	}
	return "", false
}

// Header is the header that carries a checksum of the algorithm, in lower case.
func (a Algorithm) Header() string { return "x-amz-checksum-" + strings.ToLower(string(a)) }

// New returns a hash of the algorithm. Its sum is big-endian, as S3 encodes it.
func (a Algorithm) New() hash.Hash {
	switch a {
	case CRC32:
		return crc32.NewIEEE()
	case CRC32C:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case CRC64NVME:
		return crc64nvme.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	}
	panic("checksum: no such algorithm: " + string(a))
}

// Size is the length of a sum in bytes.
func (a Algorithm) Size() int {
	switch a {
	case CRC32, CRC32C:
		return 4
	case CRC64NVME:
		return crc64.Size
	case SHA1:
		return sha1.Size
	}
	return sha256.Size
}

// Combines reports whether the checksum of a whole follows from those of its parts.
func (a Algorithm) Combines() bool { return a == CRC32 || a == CRC32C || a == CRC64NVME }

// DefaultType is the type of an upload that names none.
func (a Algorithm) DefaultType() Type {
	if a == CRC64NVME {
		return FullObject
	}
	return Composite
}

// Allows reports whether an upload of the algorithm may be of the type.
func (a Algorithm) Allows(t Type) bool {
	switch t {
	case FullObject:
		return a.Combines()
	case Composite:
		return a != CRC64NVME
	}
	return false
}

// Decode returns the sum of its base64 form, false if it is none of this algorithm.
func (a Algorithm) Decode(value string) ([]byte, bool) {
	sum, err := base64.StdEncoding.DecodeString(value)
	return sum, err == nil && len(sum) == a.Size()
}

// Encode is the base64 form of a sum.
func Encode(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

// Part is a part's sum and length in bytes.
type Part struct {
	Sum    []byte
	Length int64
}

// OfParts returns the checksum of an object of its parts, in the form that S3
// gives it: base64, and for Composite "-" and the number of parts behind it.
func (a Algorithm) OfParts(t Type, parts []Part) (string, error) {
	if !a.Allows(t) {
		return "", fmt.Errorf("checksum %s is never %s", a, t)
	}
	if t == Composite {
		h := a.New()
		for _, p := range parts {
			h.Write(p.Sum)
		}
		return fmt.Sprintf("%s-%d", Encode(h.Sum(nil)), len(parts)), nil
	}
	var all uint64
	for i, p := range parts {
		if len(p.Sum) != a.Size() {
			return "", fmt.Errorf("part %d has a sum of %d bytes, %s has %d", i+1, len(p.Sum), a, a.Size())
		}
		if i == 0 {
			all = toInt(p.Sum)
		} else {
			all = a.combine(all, toInt(p.Sum), p.Length)
		}
	}
	if len(parts) == 0 {
		return Encode(a.New().Sum(nil)), nil
	}
	return Encode(fromInt(all, a.Size())), nil
}

func toInt(sum []byte) uint64 {
	if len(sum) == 4 {
		return uint64(binary.BigEndian.Uint32(sum))
	}
	return binary.BigEndian.Uint64(sum)
}

func fromInt(v uint64, size int) []byte {
	if size == 4 {
		return binary.BigEndian.AppendUint32(nil, uint32(v))
	}
	return binary.BigEndian.AppendUint64(nil, v)
}
