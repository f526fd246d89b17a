package vmdk

import (
	"encoding/binary"
	"math/bits"

	"github.com/quickims/quickims/internal/diskformat"
)

// The marks at the front of a file.
const (
	magicHosted   = "KDMV"             // hosted sparse extent, 0x564d444b little-endian
	magicESX      = "COWD"             // ESX sparse extent, of snapshots
	magicSESparse = "\xbe\xba\xfe\xca" // space-efficient sparse extent, of snapshots
)

// Sizes of the format, from VMware's "Virtual Disk Format 1.1". Most of its
// fields count sectors.
const (
	sectorSize = diskformat.SectorSize
	headerSize = 512
	markerSize = 512 // of a marker that is no grain's
	tableLen   = 512 // entries of a grain table
	entrySize  = 4   // of a grain directory and of a grain table
	// gdAtEnd in gdOffset says that the header's copy in the footer counts.
	gdAtEnd = 1<<64 - 1
)

// Limits.
const (
	// MaxSize is the greatest virtual disk that VMware documents (vSphere's
	// configuration maximums): 62 TiB.
	MaxSize = 62 << 40
	// MinGrain and MaxGrain bound the unit of allocation. The format says more
	// than 8 sectors; all known writers use 128. The upper bound is ours.
	MinGrain = 16 * sectorSize
	MaxGrain = 4 << 20
	// maxFile keeps offsets in sectors from overflowing as bytes; 32 bits of
	// sectors in a grain table reach only 2 TiB.
	maxFile = 1 << 62
)

// Bits of the header's flags.
const (
	flagNewlines   = 1 << 0 // the four newline characters are there to be tested
	flagRedundant  = 1 << 1 // there is a redundant grain directory
	flagZeroGrain  = 1 << 2 // an entry of 1 is a grain of zeros
	flagCompressed = 1 << 16
	flagMarkers    = 1 << 17
	flagsKnown     = flagNewlines | flagRedundant | flagZeroGrain | flagCompressed | flagMarkers
)

// Kinds of markers, where the size of compressed data is 0.
const (
	markerEnd    = 0
	markerFooter = 3
)

// header is what counts of the header of a hosted sparse extent. All
// positions and lengths are in bytes.
type header struct {
	size       int64 // of the virtual disk's part
	grain      int64
	descOff    int64 // 0: there is no descriptor
	descLen    int64
	gdOff      int64
	gdAtEnd    bool // gdOff is in the footer
	unclean    bool
	compressed bool
	zeroGrain  bool
}

// grains is the number of grains, the last maybe in part.
func (h *header) grains() int64 { return (h.size + h.grain - 1) / h.grain }

// tables is the number of grain tables.
func (h *header) tables() int64 { return (h.grains() + tableLen - 1) / tableLen }

// parseHeader reads and checks the header b of a file of size bytes. where
// begins the names of fields in errors.
func parseHeader(b []byte, size int64, where string) (*header, error) {
	le := binary.LittleEndian
	if string(b[:4]) != magicHosted {
		return nil, corrupt(where+".magicNumber", "it is % x; right is %q", b[:4], magicHosted)
	}
	version, flags := le.Uint32(b[4:]), le.Uint32(b[8:])
	if version < 1 || version > 3 {
		return nil, unsupported(where+".version", "it is %d; 1 to 3 are read", version)
	}
	if rest := flags &^ flagsKnown; rest != 0 {
		return nil, unsupported(where+".flags", "the bits %#x have no known meaning", rest)
	}
	if nl := string(b[73:77]); flags&flagNewlines != 0 && nl != "\n \r\n" {
		return nil, corrupt(where+".newline characters",
			"they are %q, right is %q: the file was sent as if it were text; send it again as binary", nl, "\n \r\n")
	}
	if err := checkCompression(flags, le.Uint16(b[77:]), where); err != nil {
		return nil, err
	}
	h := &header{
		compressed: flags&flagCompressed != 0,
		zeroGrain:  flags&flagZeroGrain != 0,
		unclean:    b[72] != 0,
	}

	capacity, grain := le.Uint64(b[12:]), le.Uint64(b[20:])
	if capacity == 0 {
		return nil, corrupt(where+".capacity", "it is 0")
	}
	if capacity > MaxSize/sectorSize {
		return nil, unsupported(where+".capacity", "it is %d sectors; at most %d (62 TiB) are read", capacity, int64(MaxSize/sectorSize))
	}
	if bits.OnesCount64(grain) != 1 || grain < MinGrain/sectorSize || grain > MaxGrain/sectorSize {
		return nil, unsupported(where+".grainSize", "it is %d sectors; right is a power of two from %d to %d",
			grain, MinGrain/sectorSize, MaxGrain/sectorSize)
	}
	h.size, h.grain = int64(capacity)*sectorSize, int64(grain)*sectorSize
	if n := le.Uint32(b[44:]); n != tableLen {
		return nil, unsupported(where+".numGTEsPerGT", "it is %d; right is %d", n, tableLen)
	}
	if err := h.parseDescriptor(le.Uint64(b[28:]), le.Uint64(b[36:]), size, where); err != nil {
		return nil, err
	}
	gd := le.Uint64(b[56:])
	if gd == gdAtEnd {
		h.gdAtEnd = true
		return h, nil
	}
	need := h.tables() * entrySize
	switch {
	case gd == 0:
		return nil, corrupt(where+".gdOffset", "it is 0, where the header lies")
	case gd > uint64(size)/sectorSize || int64(gd)*sectorSize > size-need:
		return nil, incomplete(where+".gdOffset", "the grain directory, %d bytes at sector %d, lies beyond the file's %d bytes", need, gd, size)
	}
	h.gdOff = int64(gd) * sectorSize
	return h, nil
}

// checkCompression checks that the three fields that speak of it agree.
func checkCompression(flags uint32, algorithm uint16, where string) error {
	compressed := flags&flagCompressed != 0
	switch {
	case algorithm > 1:
		return unsupported(where+".compressAlgorithm", "it is %d; 0 (none) and 1 (deflate) are read", algorithm)
	case compressed != (algorithm == 1):
		return corrupt(where+".compressAlgorithm", "it is %d, flags are %#x: one says compressed, the other not", algorithm, flags)
	case compressed != (flags&flagMarkers != 0):
		return unsupported(where+".flags", "they are %#x; compressed grains and markers are read together or not at all", flags)
	}
	return nil
}

func (h *header) parseDescriptor(off, n uint64, size int64, where string) error {
	if off == 0 {
		return nil
	}
	if n == 0 || n > maxDescriptor/sectorSize {
		return unsupported(where+".descriptorSize", "it is %d sectors; right is 1 to %d", n, maxDescriptor/sectorSize)
	}
	if off > uint64(size)/sectorSize || int64(off)*sectorSize > size-int64(n)*sectorSize {
		return incomplete(where+".descriptorOffset", "the descriptor, %d sectors at sector %d, lies beyond the file's %d bytes", n, off, size)
	}
	h.descOff, h.descLen = int64(off)*sectorSize, int64(n)*sectorSize
	return nil
}

// parseFooter reads the footer of a stream-optimised file: in its last three
// sectors a marker, the header's copy that has the place of the grain
// directory, and the marker that ends the stream. front is the header.
func parseFooter(b []byte, size int64, front *header) (*header, error) {
	le := binary.LittleEndian
	marker := func(b []byte, kind uint32) bool {
		return le.Uint32(b[8:]) == 0 && le.Uint32(b[12:]) == kind
	}
	end := b[markerSize+headerSize:]
	if !marker(end, markerEnd) || le.Uint64(end) != 0 || !marker(b, markerFooter) {
		return nil, incomplete("footer", "gdOffset says that the grain directory's place is in the footer, "+
			"but the file's last 1536 bytes are none: the file was cut off")
	}
	h, err := parseHeader(b[markerSize:][:headerSize], size, "footer")
	if err != nil {
		return nil, err
	}
	if h.gdAtEnd {
		return nil, corrupt("footer.gdOffset", "it says that it is in the footer, which this is")
	}
	if h.size != front.size || h.grain != front.grain || h.compressed != front.compressed || h.zeroGrain != front.zeroGrain {
		return nil, corrupt("footer", "it says another capacity, grainSize or flags than the header")
	}
	return h, nil
}

func corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VMDK, diskformat.ErrCorrupt, field, problem, args...)
}

func unsupported(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VMDK, diskformat.ErrUnsupported, field, problem, args...)
}

func incomplete(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VMDK, diskformat.ErrIncomplete, field, problem, args...)
}
