package vhdx

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/blockwise"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/ims"
)

// Where the parts of a written file lie. The header section takes the first MiB;
// log, metadata and block allocation table follow, each on whole MiB.
const (
	writtenBlock       = 2 << 20
	writtenLogOff      = 1 * mib
	writtenLogLen      = 1 * mib
	writtenMetadataOff = 2 * mib
	writtenMetadataLen = 1 * mib
	writtenTableOff    = 3 * mib
	writtenItems       = 64 << 10 // where in the metadata the items lie
)

// Convert writes the disk src of size bytes to dst as a dynamic VHDX with sectors
// of 512 bytes. size is a multiple of 512 bytes, and at most 1 TiB. What was
// written is a file only if the error is nil.
func Convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts sparse.CopyOptions) (blockwise.Summary, error) {
	s, err := convert(ctx, dst, src, size, opts)
	if err != nil {
		return blockwise.Summary{}, fmt.Errorf("convert a disk to VHDX: %w", err)
	}
	return s, nil
}

func convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts sparse.CopyOptions) (blockwise.Summary, error) {
	if size <= 0 || size%diskformat.SectorSize != 0 || size > ims.MaxDiskSize {
		return blockwise.Summary{}, unsupported("disk size", "it is %d bytes; it must be a multiple of %d up to %d", size, diskformat.SectorSize, int64(ims.MaxDiskSize))
	}
	m := &metadata{blockSize: writtenBlock, size: size, logicalSector: diskformat.SectorSize, physicalSector: 4096}
	t := table{off: writtenTableOff, blocks: (size + writtenBlock - 1) / writtenBlock, chunk: (1 << 23) * m.logicalSector / m.blockSize}
	tableLen := ((t.entry(t.blocks-1)+1)*entrySize + mib - 1) / mib * mib
	front := t.off + tableLen
	var ids [3]guid // the file's writes, the data's writes, the disk
	for i := range ids {
		if _, err := rand.Read(ids[i][:]); err != nil {
			return blockwise.Summary{}, err
		}
	}
	out := blockwise.NewOut(dst)
	return blockwise.Write(ctx, out, src, size, opts, blockwise.Layout{
		BlockSize: writtenBlock,
		FrontSize: front,
		Front: func(w io.Writer, stored *bitset.Set) error {
			b := make([]byte, front)
			writeHeaders(b, ids[0], ids[1], uint32(tableLen))
			writeMetadata(b[writtenMetadataOff:], m, ids[2])
			at := front
			for i := stored.Next(0); i < stored.Len(); i = stored.Next(i + 1) {
				binary.LittleEndian.PutUint64(b[t.off+t.entry(int64(i))*entrySize:], uint64(at)|statePresent)
				at += writtenBlock
			}
			_, err := w.Write(b)
			return err
		},
		Put: func(_ int64, p []byte) error {
			_, err := out.Write(p)
			return err
		},
	})
}

// writeHeaders fills the header section, [MS-VHDX] 2.2.
func writeHeaders(b []byte, file, data guid, tableLen uint32) {
	le := binary.LittleEndian
	copy(b, identifier)
	for i, u := range utf16.Encode([]rune("quickims")) {
		le.PutUint16(b[len(identifier)+2*i:], u)
	}
	for i, off := range []int{headerOff1, headerOff2} {
		h := b[off : off+headerSize]
		copy(h, "head")
		le.PutUint64(h[8:], uint64(i)) // the second is the one that counts
		copy(h[16:], file[:])
		copy(h[32:], data[:])
		le.PutUint16(h[66:], 1) // version; no log GUID: the log is empty
		le.PutUint32(h[68:], writtenLogLen)
		le.PutUint64(h[72:], writtenLogOff)
		le.PutUint32(h[4:], crc32.Checksum(h, castagnoli))
	}
	for _, off := range []int{regionOff1, regionOff2} {
		r := b[off : off+regionSize]
		copy(r, "regi")
		le.PutUint32(r[8:], 2)
		for i, e := range []struct {
			id  guid
			off uint64
			len uint32
		}{{regionBAT, writtenTableOff, tableLen}, {regionMetadata, writtenMetadataOff, writtenMetadataLen}} {
			p := r[16+32*i:]
			copy(p, e.id[:])
			le.PutUint64(p[16:], e.off)
			le.PutUint32(p[24:], e.len)
			le.PutUint32(p[28:], 1) // required
		}
		le.PutUint32(r[4:], crc32.Checksum(r, castagnoli))
	}
}

// writeMetadata fills the metadata region, [MS-VHDX] 2.6.
func writeMetadata(b []byte, m *metadata, disk guid) {
	const itemVirtualDisk = 1 << 1 // the item is about the disk, not the file
	le := binary.LittleEndian
	value := func(n uint64, size uint32) []byte { return le.AppendUint64(nil, n)[:size] }
	copy(b, "metadata")
	le.PutUint16(b[10:], uint16(len(items)))
	off := uint32(writtenItems)
	for i, item := range items {
		var v []byte
		flags := uint32(itemRequired | itemVirtualDisk)
		switch item.id {
		case itemFileParameters:
			v, flags = value(uint64(m.blockSize), item.size), itemRequired
		case itemDiskSize:
			v = value(uint64(m.size), item.size)
		case itemDiskID:
			v = disk[:]
		case itemLogicalSector:
			v = value(uint64(m.logicalSector), item.size)
		case itemPhysicalSector:
			v = value(uint64(m.physicalSector), item.size)
		}
		e := b[32+32*i:]
		copy(e, item.id[:])
		le.PutUint32(e[16:], off)
		le.PutUint32(e[20:], item.size)
		le.PutUint32(e[24:], flags)
		copy(b[off:], v)
		off += item.size
	}
}
