package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/quickims/quickims/internal/diskformat"
)

// Where the fields of the header lie.
const (
	magic = "QFI\xfb"

	offVersion          = 4
	offBackingOffset    = 8
	offBackingSize      = 16
	offClusterBits      = 20
	offSize             = 24
	offCryptMethod      = 32
	offL1Size           = 36
	offL1Offset         = 40
	offRefcounts        = 48
	offRefcountClusters = 56
	offSnapshots        = 60
	headerLen2          = 72 // version 2 ends here
	offIncompatible     = 72
	offRefcountOrder    = 96
	offHeaderLength     = 100
	headerLen3          = 104 // version 3 has at least this
	offCompression      = 104 // one byte, if header_length goes beyond it
)

// Incompatible features: a reader that does not know one must not read.
const (
	featureDirty       = 1 << 0 // refcounts may be wrong; reading does not use them
	featureCorrupt     = 1 << 1
	featureDataFile    = 1 << 2
	featureCompression = 1 << 3 // compression_type is not 0
	featureExtendedL2  = 1 << 4
	featuresKnown      = 1<<5 - 1
)

// Header extensions that tell something here.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extDataFile      = 0x44415441
)

// Encryption methods of header.crypt_method.
const (
	cryptNone = 0
	cryptAES  = 1
	cryptLUKS = 2
)

// Compression types of header.compression_type.
const (
	compressionZlib = 0
	compressionZstd = 1
)

const (
	// maxExtensions is how much of the first cluster is looked through for
	// header extensions. What QEMU writes there takes less than 1 KiB.
	maxExtensions = 64 << 10
	// maxBackingName is the format's bound in bytes.
	maxBackingName = 1023
)

// Info is what a header says of a file. Names are a stranger's bytes: they are
// to be shown quoted, and to be opened only if somebody allows it.
type Info struct {
	Version     int   // 2 or 3
	Size        int64 // of the disk, in bytes
	ClusterSize int64 // in bytes, a power of two
	// Compression is how compressed clusters are compressed, if there are
	// any: "zlib" (deflate) or "zstd".
	Compression string
	// ExtendedL2: clusters consist of 32 subclusters each.
	ExtendedL2 bool
	// Dirty: the file was not closed properly. Its refcounts may be wrong,
	// which matters to writers only.
	Dirty bool
	// Damaged: QEMU found the file's structure damaged and marked it so.
	Damaged bool
	// Encryption is "", "aes" or "luks".
	Encryption string
	// BackingFile names the disk that unallocated clusters are read from, as
	// the header gives it; empty: there is none. BackingFormat is its format
	// in QEMU's spelling; may be empty.
	BackingFile, BackingFormat string
	// DataFile: the clusters lie in another file, which DataFileName names; it
	// may be empty.
	DataFile     bool
	DataFileName string
	// Snapshots is the number of internal snapshots, which are not read.
	Snapshots uint32
}

// header is what reading takes.
type header struct {
	clusterBits  uint // 9 to 21
	l1           int64
	l1Entries    int64
	compression  uint8
	extended     bool // extended L2 entries
	version      uint32
	encryption   uint32
	incompatible uint64
	featureNames map[int]string // of unknown incompatible features, if the file tells them
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// entrySize is the length of an L2 entry in bytes.
func (h *header) entrySize() int64 {
	if h.extended {
		return 16
	}
	return 8
}

// l1Span is how many bytes of the disk an L1 entry stands for: at most 512 GiB.
func (h *header) l1Span() int64 {
	return h.clusterSize() / h.entrySize() * h.clusterSize()
}

// ReadInfo reads what the header of the file r of size bytes says, also of a
// file that [Open] refuses because it is encrypted, marked as damaged, or needs
// another file. Errors are those of Open else.
func ReadInfo(r io.ReaderAt, size int64) (Info, error) {
	_, info, err := readHeader(r, size)
	if err != nil {
		return Info{}, fmt.Errorf("reading the header of a qcow2 file: %w", err)
	}
	return info, nil
}

// readHeader reads the header and its extensions, with one read of at most
// 64 KiB, and one more for a backing file's name that lies far away.
func readHeader(r io.ReaderAt, size int64) (*header, Info, error) {
	if size < 0 || size > maxFileSize {
		return nil, Info{}, unsupported("file size", "it is %d, at most %d is read", size, int64(maxFileSize))
	}
	b := make([]byte, min(size, maxExtensions))
	if err := diskformat.ReadFull(r, b, 0); err != nil {
		return nil, Info{}, fmt.Errorf("reading the header: %w", err)
	}
	h, info, length, err := parseHeader(b)
	if err != nil {
		return nil, Info{}, err
	}
	if err := h.checkL1(info.Size, size); err != nil {
		return nil, Info{}, err
	}
	backing := binary.BigEndian.Uint64(b[offBackingOffset:])
	end := int64(len(b))
	end = min(end, h.clusterSize())
	if backing != 0 {
		if info.BackingFile, err = readBackingName(r, size, h, b, backing); err != nil {
			return nil, Info{}, err
		}
		end = min(end, int64(backing))
	}
	if err := h.parseExtensions(b, length, end, &info); err != nil {
		return nil, Info{}, err
	}
	return h, info, nil
}

// parseHeader checks the fields one by one; length is the header's own.
func parseHeader(b []byte) (h *header, info Info, length int64, err error) {
	fail := func(err error) (*header, Info, int64, error) { return nil, Info{}, 0, err }
	be := binary.BigEndian
	if len(b) < offBackingOffset || string(b[:len(magic)]) != magic {
		return fail(diskformat.Errorf(diskformat.QCOW2, diskformat.ErrWrongFormat, "header.magic", "the file does not begin with %q", magic))
	}
	h = &header{version: be.Uint32(b[offVersion:])}
	switch {
	case h.version == 1:
		return fail(unsupported("header.version", "it is 1 (qcow, the format before qcow2), 2 and 3 are read; convert it with qemu-img convert -f qcow -O qcow2"))
	case h.version != 2 && h.version != 3:
		return fail(unsupported("header.version", "it is %d, 2 and 3 are read", h.version))
	}
	length = headerLen2
	if h.version >= 3 {
		length = headerLen3
	}
	if int64(len(b)) < length {
		return fail(incomplete("header", "the file has %d bytes, the header %d", len(b), length))
	}

	clusterBits := be.Uint32(b[offClusterBits:])
	if clusterBits < minClusterBits || clusterBits > maxClusterBits {
		return fail(unsupported("header.cluster_bits", "it is %d, %d to %d (512 bytes to 2 MiB) are read", clusterBits, minClusterBits, maxClusterBits))
	}
	h.clusterBits = uint(clusterBits)
	diskSize := be.Uint64(b[offSize:])
	switch {
	case diskSize > MaxDiskSize:
		return fail(unsupported("header.size", "it is %d, at most %d (64 TiB) is read", diskSize, int64(MaxDiskSize)))
	case diskSize%sectorSize != 0:
		return fail(corrupt("header.size", "it is %d, no multiple of %d", diskSize, sectorSize))
	}
	h.encryption = be.Uint32(b[offCryptMethod:])
	if h.encryption > cryptLUKS {
		return fail(unsupported("header.crypt_method", "it is %d, which is not known", h.encryption))
	}
	h.l1Entries = int64(be.Uint32(b[offL1Size:]))
	l1 := be.Uint64(b[offL1Offset:])
	if l1 > maxFileSize || l1%uint64(h.clusterSize()) != 0 {
		return fail(corrupt("header.l1_table_offset", "it is %d, right is a multiple of the cluster size %d within the file", l1, h.clusterSize()))
	}
	h.l1 = int64(l1)

	if h.version >= 3 {
		h.incompatible = be.Uint64(b[offIncompatible:])
		if order := be.Uint32(b[offRefcountOrder:]); order > 6 {
			return fail(corrupt("header.refcount_order", "it is %d, right is at most 6", order))
		}
		own := be.Uint32(b[offHeaderLength:])
		if own < headerLen3 || own%8 != 0 || int64(own) > h.clusterSize() {
			return fail(corrupt("header.header_length", "it is %d, right is a multiple of 8 from %d to the cluster size %d", own, headerLen3, h.clusterSize()))
		}
		length = int64(own)
		if int64(len(b)) < min(length, maxExtensions) {
			return fail(incomplete("header.header_length", "it is %d, the file has %d bytes", length, len(b)))
		}
		if length > offCompression {
			h.compression = b[offCompression]
		}
	}
	if err := h.checkFeatures(); err != nil {
		return fail(err)
	}
	info = Info{
		Version:     int(h.version),
		Size:        int64(diskSize),
		ClusterSize: h.clusterSize(),
		Compression: [...]string{compressionZlib: "zlib", compressionZstd: "zstd"}[h.compression],
		ExtendedL2:  h.extended,
		Dirty:       h.incompatible&featureDirty != 0,
		Damaged:     h.incompatible&featureCorrupt != 0,
		Encryption:  [...]string{cryptNone: "", cryptAES: "aes", cryptLUKS: "luks"}[h.encryption],
		DataFile:    h.incompatible&featureDataFile != 0,
		Snapshots:   be.Uint32(b[offSnapshots:]),
	}
	return h, info, length, nil
}

// checkFeatures checks the known features against the other fields. Unknown
// ones come later, since the file may tell what they are called.
func (h *header) checkFeatures() error {
	if marked := h.incompatible&featureCompression != 0; marked != (h.compression != compressionZlib) {
		return corrupt("header.compression_type", "it is %d, bit 3 of incompatible_features must be set exactly if it is not 0", h.compression)
	}
	if h.compression > compressionZstd {
		return unsupported("header.compression_type", "it is %d, 0 (zlib) and 1 (zstd) are read", h.compression)
	}
	h.extended = h.incompatible&featureExtendedL2 != 0
	if h.extended && h.clusterBits < minExtendedBits {
		return corrupt("header.cluster_bits", "it is %d, with extended L2 entries it is at least %d", h.clusterBits, minExtendedBits)
	}
	return nil
}

// checkL1 checks that the L1 table is long enough for the disk and lies in the
// file. Nothing overflows: an L1 entry stands for at least 32 KiB and the disk
// has at most 64 TiB.
func (h *header) checkL1(diskSize, fileSize int64) error {
	if h.l1Entries > maxL1Entries {
		return unsupported("header.l1_size", "it is %d, at most %d is read", h.l1Entries, maxL1Entries)
	}
	if need := (diskSize + h.l1Span() - 1) / h.l1Span(); h.l1Entries < need {
		return corrupt("header.l1_size", "it is %d, a disk of %d bytes in clusters of %d takes %d", h.l1Entries, diskSize, h.clusterSize(), need)
	}
	if h.l1Entries > 0 {
		if h.l1 < h.clusterSize() {
			return corrupt("header.l1_table_offset", "it is %d, where the header is", h.l1)
		}
		if h.l1 > fileSize || h.l1Entries*8 > fileSize-h.l1 {
			return incomplete("header.l1_table_offset", "the L1 table, %d entries at %d, does not end within the file's %d bytes", h.l1Entries, h.l1, fileSize)
		}
	}
	return nil
}

// readBackingName reads the name at off, which lies in the first cluster, of
// which b is the beginning.
func readBackingName(r io.ReaderAt, size int64, h *header, b []byte, off uint64) (string, error) {
	n := binary.BigEndian.Uint32(b[offBackingSize:])
	if off < headerLen2 || off > uint64(h.clusterSize()) {
		return "", corrupt("header.backing_file_offset", "it is %d, right is from %d to the cluster size %d", off, headerLen2, h.clusterSize())
	}
	if n == 0 || n > maxBackingName || int64(n) > h.clusterSize()-int64(off) {
		return "", corrupt("header.backing_file_size", "it is %d, right is from 1 to %d, within the first cluster", n, maxBackingName)
	}
	if int64(n) > size-int64(off) {
		return "", incomplete("header.backing_file_size", "the name, %d bytes at %d, does not end within the file's %d bytes", n, off, size)
	}
	name := make([]byte, n)
	if int64(off)+int64(n) <= int64(len(b)) {
		copy(name, b[off:])
	} else if err := diskformat.ReadFull(r, name, int64(off)); err != nil {
		return "", fmt.Errorf("reading the backing file's name: %w", err)
	}
	return string(name), nil
}

// parseExtensions goes through the header extensions, which lie in b between
// the header and end.
func (h *header) parseExtensions(b []byte, at, end int64, info *Info) error {
	be := binary.BigEndian
	for end-at >= 8 {
		kind, n := be.Uint32(b[at:]), int64(be.Uint32(b[at+4:]))
		at += 8
		if kind == extEnd {
			return nil
		}
		if n > end-at {
			if end == maxExtensions && end < h.clusterSize() {
				return unsupported("header extension", "the one of type %#08x, %d bytes at %d, lies beyond the %d bytes that are looked through", kind, n, at, maxExtensions)
			}
			return corrupt("header extension", "the one of type %#08x, %d bytes at %d, does not end before %d", kind, n, at, end)
		}
		data := b[at : at+n]
		switch kind {
		case extBackingFormat:
			info.BackingFormat = string(data)
		case extDataFile:
			info.DataFileName = string(data)
		case extFeatureNames:
			h.parseFeatureNames(data)
		}
		at += (n + 7) &^ 7
	}
	return nil
}

// parseFeatureNames notes the names of incompatible features: entries of 48
// bytes, which are the kind of feature, the bit, and the name.
func (h *header) parseFeatureNames(b []byte) {
	const size, incompatible = 48, 0
	for ; len(b) >= size; b = b[size:] {
		bit := int(b[1])
		if b[0] != incompatible || bit > 63 || h.incompatible&^featuresKnown&(1<<bit) == 0 {
			continue
		}
		name := b[2:size]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if h.featureNames == nil {
			h.featureNames = make(map[int]string) // at most 64
		}
		h.featureNames[bit] = string(name)
	}
}

// refuse refuses a well-formed file that can't or must not be read.
func (h *header) refuse(info *Info) error {
	const features = "header.incompatible_features"
	if unknown := h.incompatible &^ featuresKnown; unknown != 0 {
		bit := bits.TrailingZeros64(unknown)
		if name := h.featureNames[bit]; name != "" {
			return unsupported(features, "bit %d (%q) is set, which is not known here", bit, name)
		}
		return unsupported(features, "bit %d is set, which is not known here", bit)
	}
	if info.Damaged {
		return unsupported(features, "bit 1 is set: QEMU found the file's structure damaged; repair it with qemu-img check -r all")
	}
	if info.Encryption != "" {
		return unsupported("header.crypt_method", "it is %d: the disk is encrypted (%s); decrypt it with qemu-img convert", h.encryption, info.Encryption)
	}
	return nil
}
