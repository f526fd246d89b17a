// Package zdisk is what ZVHD and ZVHD2 share: the front of the header block,
// the frame around a stored block, and inflating one block.
package zdisk

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
)

const (
	// PageSize is what everything in either format is aligned to.
	PageSize = 4096
	// HeaderSize is how much of a header block counts; the rest of its page
	// is unspecified.
	HeaderSize = 512
	// MaxGrowth bounds the zero tail: the virtual size is the source's size
	// rounded up to 1 GiB.
	MaxGrowth = 1 << 30
	// SectorSize is what a disk's size must be a multiple of.
	SectorSize = diskformat.SectorSize
)

// Where the fields of the common front lie in the header block.
const (
	offCookie         = 0
	offFeatures       = 8
	offFormatVersion  = 12
	offDataOffset     = 16
	offTimestamp      = 24
	offCreatorApp     = 28
	offCreatorVersion = 32
	offCreatorOS      = 36
	offOrigSize       = 40
	offCurrSize       = 48
	offGeometry       = 56
	offType           = 60
	offChecksum       = 64
	offUUID           = 68
	// FrontSize is the length of what both formats have in common.
	FrontSize = 87
)

// Field is a field of the header block: its name in the format's description, and where
// it begins. It ends where the next one does.
type Field struct {
	Name string
	Off  int
}

// FrontFields are those of the front, in their order.
var FrontFields = []Field{
	{"cookie", offCookie},
	{"features", offFeatures},
	{"format_version", offFormatVersion},
	{"data_offset", offDataOffset},
	{"timestamp", offTimestamp},
	{"creator_app", offCreatorApp},
	{"creator_version", offCreatorVersion},
	{"creator_os", offCreatorOS},
	{"orig_size", offOrigSize},
	{"curr_size", offCurrSize},
	{"geometry", offGeometry},
	{"type", offType},
	{"checksum", offChecksum},
	{"uuid", offUUID},
	{"saved", offUUID + 16},
	{"hidden", offUUID + 17},
	{"align_64", offUUID + 18},
}

// Front is what both formats' headers begin with. Sizes are in bytes.
type Front struct {
	Cookie    [8]byte
	Timestamp uint32 // seconds since 2000-01-01 UTC
	OrigSize  uint64 // of the source disk
	CurrSize  uint64 // of the virtual disk, with its zero tail
	Checksum  uint32
	UUID      [16]byte
}

// ParseFront reads the front of a header block of at least HeaderSize bytes.
// It checks nothing.
func ParseFront(b []byte) Front {
	le := binary.LittleEndian
	return Front{
		Cookie:    [8]byte(b[offCookie:]),
		Timestamp: le.Uint32(b[offTimestamp:]),
		OrigSize:  le.Uint64(b[offOrigSize:]),
		CurrSize:  le.Uint64(b[offCurrSize:]),
		Checksum:  le.Uint32(b[offChecksum:]),
		UUID:      [16]byte(b[offUUID:]),
	}
}

// Put writes the front into a zeroed header block, with the constants that the
// published writer puts there. The checksum is left for [Seal].
func (f Front) Put(b []byte) {
	le := binary.LittleEndian
	copy(b[offCookie:], f.Cookie[:])
	le.PutUint32(b[offFeatures:], 2)
	le.PutUint32(b[offFormatVersion:], 0x00010000)
	le.PutUint64(b[offDataOffset:], ^uint64(0))
	le.PutUint32(b[offTimestamp:], f.Timestamp)
	copy(b[offCreatorApp:], "tap\x00")
	le.PutUint32(b[offCreatorVersion:], 0x00010004)
	le.PutUint32(b[offCreatorOS:], 0)
	le.PutUint64(b[offOrigSize:], f.OrigSize)
	le.PutUint64(b[offCurrSize:], f.CurrSize)
	le.PutUint32(b[offGeometry:], Geometry(f.OrigSize))
	le.PutUint32(b[offType:], 4)
	copy(b[offUUID:], f.UUID[:])
}

// Checksum is the ones' complement of the sum of the header's bytes, its own
// field taken as zero. b has at least HeaderSize bytes.
func Checksum(b []byte) uint32 {
	var sum uint32
	for i, c := range b[:HeaderSize] {
		if i < offChecksum || i >= offChecksum+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// Seal writes the checksum of the header block b into it.
func Seal(b []byte) {
	binary.LittleEndian.PutUint32(b[offChecksum:], Checksum(b))
}

// Timestamp is t in seconds since 2000-01-01 UTC, held within its 32 bits.
func Timestamp(t time.Time) uint32 {
	s := t.Unix() - time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	return uint32(min(max(s, 0), 1<<32-1))
}

// VirtualSize is a disk's size rounded up to 1 GiB.
func VirtualSize(orig uint64) uint64 { return (orig + MaxGrowth - 1) / MaxGrowth * MaxGrowth }

// Blocks is the number of blocks of blockSize bytes that size bytes fill.
// blockSize is a power of two.
func Blocks(size, blockSize uint64) uint64 {
	return size>>bits.TrailingZeros64(blockSize) + b2u(size&(blockSize-1) != 0)
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// Geometry is the cylinders, heads and sectors that the VHD specification
// (Microsoft, 2006, appendix "CHS calculation") gives a disk of size bytes, as
// cylinders<<16 | heads<<8 | sectors.
func Geometry(size uint64) uint32 {
	total := min(size/SectorSize, 65535*16*255)
	var heads, sectors, cylHeads uint64
	if total >= 65535*16*63 {
		sectors, heads = 255, 16
		cylHeads = total / sectors
	} else {
		sectors = 17
		cylHeads = total / sectors
		heads = max((cylHeads+1023)/1024, 4)
		if cylHeads >= heads*1024 || heads > 16 {
			sectors, heads = 31, 16
			cylHeads = total / sectors
		}
		if cylHeads >= heads*1024 {
			sectors, heads = 63, 16
			cylHeads = total / sectors
		}
	}
	return uint32(cylHeads/heads<<16 | heads<<8 | sectors)
}
