// Package vdi reads VDI, the disk format of VirtualBox, version 1.1: dynamic
// and static images.
//
// The format has no description by its makers; what is known of it is written
// down in public ones, which this follows, and it is verified against files
// that qemu-img and qemu-io make, which qemu-img then reads too.
//
// A file is a header, a block map and the blocks, 1 MiB each as a rule. An entry
// of the map, 32 bits, says which stored block holds a block of the disk, or
// that none does: such a block is zero. All integers are little-endian.
//
// [Open] reads and checks the header and the whole map, which it holds: 4 bytes
// for each block, at most 8 MiB. Afterwards a random read is one read of the
// file, and [File.Extents] does no I/O.
//
// Images that depend on another one (differencing, undo) are refused.
package vdi

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/padded"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Bounds of what is read.
const (
	// MaxBlocks is the largest number of blocks: with the usual size of 1 MiB,
	// a disk of 2 TiB.
	MaxBlocks = 2 << 20
	// MinBlockSize and MaxBlockSize bound the powers of two that a block may
	// have. VirtualBox and QEMU make blocks of 1 MiB only.
	MinBlockSize = 4 << 10
	MaxBlockSize = 64 << 20

	sectorSize = diskformat.SectorSize
	// Keeps offsets within what can be added without overflow: a block number
	// has 32 bits, a block size at most 26.
	maxFileSize = 1 << 60
)

// Where the fields of the header lie.
const (
	signature = "\x7f\x10\xda\xbe"

	offSignature   = 64
	offVersion     = 68
	offHeaderSize  = 72 // counted from this field
	offImageType   = 76
	offMap         = 340
	offData        = 344
	offSectorSize  = 360
	offDiskSize    = 368
	offBlockSize   = 376
	offBlockExtra  = 380
	offBlocks      = 384
	offBlocksInUse = 388
	offUUID        = 392
	offLinkUUID    = 424
	offParentUUID  = 440
	headerLen      = 456 // up to the end of the parent's UUID

	version = 1<<16 | 1
	// minHeaderSize is what a header of version 1.1 says of itself at least.
	minHeaderSize = headerLen - offHeaderSize
)

// Kinds of images, header.image_type.
const (
	typeDynamic = 1
	typeStatic  = 2
	typeUndo    = 3
	typeDiff    = 4
)

// Entries of the block map with a meaning of their own; both read as zeros.
const (
	blockFree = 0xffffffff // never written
	blockZero = 0xfffffffe // given back
)

// File is an open VDI file. It may be used by many goroutines at once. It
// holds no resources besides memory and need not be closed.
type File struct {
	r        io.ReaderAt
	fileSize int64
	info     Info
	data     int64 // where stored block 0 lies
	blocks   []uint32
	short    bool // the file ends within its last block
}

// Info is what the header says.
type Info struct {
	Size      int64 // of the disk, in bytes
	BlockSize int64 // in bytes, a power of two
	// Static: the image was made with all its blocks.
	Static bool
	// Blocks and DataBlocks are how many blocks the disk has and how many of
	// them are stored, as the map says.
	Blocks, DataBlocks int
	// UUID is the image's own, in the file's byte order.
	UUID [16]byte
}

var _ diskformat.Image = (*File)(nil)

// Open reads and checks the header and the block map of the file r of size
// bytes. Every stored block must lie within the file, as much of it as the disk
// needs; the last one may lack its end, which then reads as zeros, as QEMU has it.
//
// Errors are those of package diskformat: ErrWrongFormat when it is no VDI;
// ErrUnsupported for another version, an image that depends on another one, or
// one beyond the bounds; ErrIncomplete when it was cut off; ErrCorrupt for any
// other contradiction; or what r returned. r must stay readable for as long as
// the File is used, and must be safe for concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, fmt.Errorf("opening a VDI file: %w", err)
	}
	return f, nil
}

func open(r io.ReaderAt, size int64) (*File, error) {
	if size < 0 || size > maxFileSize {
		return nil, unsupported("file size", "it is %d, at most %d is read", size, int64(maxFileSize))
	}
	b := make([]byte, min(size, headerLen))
	if err := diskformat.ReadFull(r, b, 0); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	f := &File{r: r, fileSize: size}
	blockMap, err := f.parseHeader(b)
	if err != nil {
		return nil, err
	}
	if err := f.readMap(blockMap); err != nil {
		return nil, err
	}
	return f, nil
}

// parseHeader checks the header b and returns where the block map lies.
func (f *File) parseHeader(b []byte) (blockMap int64, err error) {
	le := binary.LittleEndian
	if len(b) < offVersion || string(b[offSignature:offVersion]) != signature {
		return 0, diskformat.Errorf(diskformat.VDI, diskformat.ErrWrongFormat, "header.signature", "bytes %d to %d are not % x", offSignature, offVersion, signature)
	}
	if len(b) < headerLen {
		return 0, incomplete("header", "the file has %d bytes, the header %d", len(b), headerLen)
	}
	if v := le.Uint32(b[offVersion:]); v != version {
		return 0, unsupported("header.version", "it is %d.%d, 1.1 is read", v>>16, v&0xffff)
	}
	if n := le.Uint32(b[offHeaderSize:]); n < minHeaderSize {
		return 0, corrupt("header.header_size", "it is %d, right is at least %d", n, minHeaderSize)
	}
	switch kind := le.Uint32(b[offImageType:]); kind {
	case typeDynamic:
	case typeStatic:
		f.info.Static = true
	case typeUndo, typeDiff:
		return 0, unsupported("header.image_type",
			"it is %d: the image holds only what differs from its parent, %s; merge them first, with VBoxManage clonemedium", kind, uuid(b[offParentUUID:]))
	default:
		return 0, unsupported("header.image_type", "it is %d, 1 (dynamic) and 2 (static) are read", kind)
	}
	for _, parent := range []struct {
		field string
		off   int
	}{{"header.uuid_parent", offParentUUID}, {"header.uuid_link", offLinkUUID}} {
		if p := [16]byte(b[parent.off:]); p != [16]byte{} {
			return 0, unsupported(parent.field, "the image depends on another one, %s; merge them first, with VBoxManage clonemedium", uuid(p[:]))
		}
	}
	copy(f.info.UUID[:], b[offUUID:])

	if n := le.Uint32(b[offSectorSize:]); n != sectorSize {
		return 0, unsupported("header.sector_size", "it is %d, %d is read", n, sectorSize)
	}
	blockSize := le.Uint32(b[offBlockSize:])
	if blockSize < MinBlockSize || blockSize > MaxBlockSize || bits.OnesCount32(blockSize) != 1 {
		return 0, unsupported("header.block_size", "it is %d, powers of two from %d to %d are read", blockSize, MinBlockSize, MaxBlockSize)
	}
	if n := le.Uint32(b[offBlockExtra:]); n != 0 {
		return 0, unsupported("header.block_extra", "it is %d: there is something before each block, which is not known here", n)
	}
	blocks := le.Uint32(b[offBlocks:])
	if blocks > MaxBlocks {
		return 0, unsupported("header.blocks_in_image", "it is %d, at most %d is read", blocks, MaxBlocks)
	}
	// At most 2^21 blocks of 2^26 bytes.
	diskSize, most := le.Uint64(b[offDiskSize:]), uint64(blocks)*uint64(blockSize)
	switch {
	case diskSize > most:
		return 0, corrupt("header.disk_size", "it is %d, %d blocks of %d bytes make %d", diskSize, blocks, blockSize, most)
	case diskSize%sectorSize != 0:
		return 0, corrupt("header.disk_size", "it is %d, no multiple of %d", diskSize, sectorSize)
	}
	f.info.Size, f.info.BlockSize = int64(diskSize), int64(blockSize)
	f.info.Blocks = int((diskSize + uint64(blockSize) - 1) / uint64(blockSize))

	blockMap, f.data = int64(le.Uint32(b[offMap:])), int64(le.Uint32(b[offData:]))
	mapLen := 4 * int64(blocks)
	switch {
	case blockMap < headerLen:
		return 0, corrupt("header.offset_bmap", "it is %d, where the header is", blockMap)
	case mapLen > f.fileSize-blockMap:
		return 0, incomplete("header.offset_bmap", "the block map, %d bytes at %d, does not end within the file's %d bytes", mapLen, blockMap, f.fileSize)
	case f.data < blockMap+mapLen:
		return 0, corrupt("header.offset_data", "it is %d, the block map ends at %d", f.data, blockMap+mapLen)
	}
	return blockMap, nil
}

// readMap reads the block map at off and checks every entry.
func (f *File) readMap(off int64) error {
	const piece = 256 << 10
	f.blocks = make([]uint32, 0, f.info.Blocks)
	buf := make([]byte, min(piece, 4*f.info.Blocks))
	for len(f.blocks) < f.info.Blocks {
		p := buf[:min(len(buf), 4*(f.info.Blocks-len(f.blocks)))]
		if err := diskformat.ReadFull(f.r, p, off+4*int64(len(f.blocks))); err != nil {
			return fmt.Errorf("reading the block map: %w", err)
		}
		for ; len(p) > 0; p = p[4:] {
			e := binary.LittleEndian.Uint32(p)
			if err := f.checkEntry(int64(len(f.blocks)), e); err != nil {
				return err
			}
			f.blocks = append(f.blocks, e)
		}
	}
	return nil
}

// checkEntry checks that what entry i of the map points to lies in the file. Of
// the disk's last block only what belongs to the disk must.
func (f *File) checkEntry(i int64, e uint32) error {
	if e == blockFree || e == blockZero {
		return nil
	}
	f.info.DataBlocks++
	n := min(f.info.BlockSize, f.info.Size-i*f.info.BlockSize)
	at := f.at(e)
	if at < f.fileSize && at > f.fileSize-n {
		f.short = true
		return nil
	}
	if at > f.fileSize-n {
		return incomplete("block map", "block %d, which is stored as block %d at %d, does not end within the file's %d bytes: the file was cut off", i, e, at, f.fileSize)
	}
	return nil
}

// at is where stored block e lies.
func (f *File) at(e uint32) int64 { return f.data + int64(e)*f.info.BlockSize }

// Notes implements [diskformat.Noted].
func (f *File) Notes() []diskformat.Note {
	if !f.short {
		return nil
	}
	return []diskformat.Note{padded.Note("block", f.fileSize)}
}

// Info is what the header says.
func (f *File) Info() Info { return f.info }

// Size is the virtual size in bytes.
func (f *File) Size() int64 { return f.info.Size }

// ReadAt reads the disk; see [diskformat.Image].
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a VDI disk: the offset %d is negative", off)
	}
	if off >= f.Size() {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), f.Size()-off)]
	for done := 0; done < len(p); {
		at := off + int64(done)
		n, stored, pos := f.run(at, int64(len(p)-done))
		q := p[done : done+int(n)]
		if !stored {
			clear(q)
		} else if err := diskformat.ReadFull(padded.Reader{R: f.r, Size: f.fileSize}, q, pos); err != nil {
			return done, fmt.Errorf("reading a VDI disk at byte %d: %w", at, err)
		}
		done += len(q)
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// run is how many bytes of the disk from off on, at most most, follow one
// another in the file too, at pos, or are not stored.
func (f *File) run(off, most int64) (n int64, stored bool, pos int64) {
	size := f.info.BlockSize
	i := off / size
	first := f.blocks[i]
	stored = first < blockZero
	for n = size - off%size; n < most; n += size {
		i++
		if e := f.blocks[i]; (e < blockZero) != stored || stored && int64(e) != int64(first)+i-off/size {
			break
		}
	}
	if stored {
		pos = f.at(first) + off%size
	}
	return min(n, most), stored, pos
}

// Map yields what Extents does, and asks the file system, if the file is an
// [*os.File], for the holes of stored blocks: static disks have many.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		holes := sparse.NewHoles(ctx, f.r, f.fileSize)
		for off := int64(0); off < f.Size(); {
			n, stored, pos := f.run(off, f.Size()-off)
			more, err := true, ctx.Err()
			switch {
			case err != nil:
			case stored:
				more, err = holes.Range(pos, n, add)
			default:
				more = add(n, false)
			}
			if err != nil || !more {
				return err
			}
			off += n
		}
		return nil
	})
}

// Extents yields the extents of the disk; see [diskformat.Image]. It does no
// I/O.
func (f *File) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		var e diskformat.Extent
		for i, x := range f.blocks {
			if data := x < blockZero; e.Length > 0 && data != e.Data {
				if !yield(e) {
					return
				}
				e = diskformat.Extent{Offset: e.End(), Data: data}
			} else {
				e.Data = data
			}
			e.Length = min(int64(i+1)*f.info.BlockSize, f.Size()) - e.Offset
		}
		if e.Length > 0 {
			yield(e)
		}
	}
}

// uuid writes a UUID of the file: the first three parts are little-endian.
func uuid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VDI, diskformat.ErrCorrupt, field, problem, args...)
}

func unsupported(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VDI, diskformat.ErrUnsupported, field, problem, args...)
}

func incomplete(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VDI, diskformat.ErrIncomplete, field, problem, args...)
}
