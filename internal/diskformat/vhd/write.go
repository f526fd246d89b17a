package vhd

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/blockwise"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/ims"
)

// What [Convert] writes, from the specification's "Hard Disk Footer Format" and
// "Dynamic Disk Header Format".
const (
	offFeatures  = 8
	offTime      = 24
	offCreatorV  = 32
	offCreatorOS = 36
	offOrigSize  = 40

	writtenBlock  = 2 << 20
	writtenBitmap = writtenBlock / sectorSize / 8
	writtenStride = writtenBitmap + writtenBlock
	tableOff      = footerLen + dynLen
	// writtenCreator makes QEMU take the footer's current size instead of its
	// geometry, which cannot tell all sizes. Hyper-V writes it.
	writtenCreator   = "win "
	writtenCreatorOS = "Wi2k"
)

// ConvertOptions are those of [Convert].
type ConvertOptions struct {
	// Fixed makes a fixed disk: the RAW disk and a footer. Else the disk is dynamic.
	Fixed bool
	// Multiple rounds the disk's size up to a multiple of so many bytes, as Azure
	// wants 1 MiB; 0 leaves it.
	Multiple int64
	sparse.CopyOptions
	// Now is when the file says that it was made; zero is the present.
	Now time.Time
	// UUID goes into the footer; zero draws one.
	UUID [16]byte
}

// Summary is what a conversion made.
type Summary struct {
	blockwise.Summary
	Size int64 // of the disk that the file holds, in bytes
}

// Convert writes the disk src of size bytes to dst as VHD. size is a multiple of
// 512 bytes, and at most 1 TiB. What was written is a file only if the error is
// nil.
func Convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (Summary, error) {
	s, err := convert(ctx, dst, src, size, opts)
	if err != nil {
		return Summary{}, fmt.Errorf("convert a disk to VHD: %w", err)
	}
	return s, nil
}

func convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (s Summary, err error) {
	if size <= 0 || size%sectorSize != 0 || size > ims.MaxDiskSize {
		return s, unsupported("disk size", "it is %d bytes; it must be a multiple of %d up to %d", size, sectorSize, int64(ims.MaxDiskSize))
	}
	if opts.UUID == ([16]byte{}) {
		if opts.UUID, err = uuid.NewRandom(); err != nil {
			return s, fmt.Errorf("draw the file's UUID: %w", err)
		}
	}
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	s.Size = size
	if opts.Multiple > 0 {
		s.Size = (size + opts.Multiple - 1) / opts.Multiple * opts.Multiple
	}
	if opts.Fixed {
		s.FileSize = s.Size + footerLen
		return s, writeFixed(ctx, dst, src, size, s.Size, opts)
	}
	foot := makeFooter(s.Size, typeDynamic, opts)
	out := blockwise.NewOut(dst)
	blocks := (s.Size + writtenBlock - 1) / writtenBlock
	table := (4*blocks + sectorSize - 1) / sectorSize * sectorSize
	head := makeHeader(blocks)
	front := tableOff + table
	bitmap := make([]byte, writtenBitmap)
	for i := range bitmap {
		bitmap[i] = 0xff
	}
	s.Summary, err = blockwise.Write(ctx, out, src, size, opts.CopyOptions, blockwise.Layout{
		BlockSize: writtenBlock,
		FrontSize: front,
		Front: func(w io.Writer, stored *bitset.Set) error {
			bat := make([]byte, table)
			for i := range bat {
				bat[i] = 0xff // unused
			}
			k := int64(0)
			for i := stored.Next(0); i < stored.Len(); i = stored.Next(i + 1) {
				binary.BigEndian.PutUint32(bat[4*i:], uint32((front+k*writtenStride)/sectorSize))
				k++
			}
			for _, p := range [][]byte{foot, head, bat} {
				if _, err := w.Write(p); err != nil {
					return err
				}
			}
			return nil
		},
		Put: func(_ int64, p []byte) error {
			if _, err := out.Write(bitmap); err != nil {
				return err
			}
			_, err := out.Write(p)
			return err
		},
		End: func(*bitset.Set) error {
			_, err := out.Write(foot)
			return err
		},
	})
	s.Blocks = blocks
	return s, err
}

// writeFixed writes the disk, zeros up to its size, and the footer.
func writeFixed(ctx context.Context, dst io.Writer, src io.ReaderAt, size, whole int64, opts ConvertOptions) error {
	foot := makeFooter(whole, typeFixed, opts)
	if f, ok := dst.(interface {
		io.WriterAt
		Truncate(int64) error
	}); ok {
		if err := sparse.Copy(ctx, f, src, size, opts.CopyOptions); err != nil {
			return err
		}
		if _, err := f.WriteAt(foot, whole); err != nil {
			return fmt.Errorf("write the footer at byte %d: %w", whole, err)
		}
		return nil
	}
	if err := sparse.Stream(ctx, dst, src, size, opts.CopyOptions); err != nil {
		return err
	}
	_, err := dst.Write(append(make([]byte, whole-size), foot...))
	return err
}

// makeFooter makes the footer of a disk of size bytes.
func makeFooter(size int64, diskType uint32, opts ConvertOptions) []byte {
	b := make([]byte, footerLen)
	be := binary.BigEndian
	copy(b, cookie)
	be.PutUint32(b[offFeatures:], 2) // reserved, always set
	be.PutUint32(b[offVersion:], 1<<16)
	be.PutUint64(b[offDataOffset:], footerLen)
	if diskType == typeFixed {
		be.PutUint64(b[offDataOffset:], 1<<64-1)
	}
	since := opts.Now.Unix() - time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	be.PutUint32(b[offTime:], uint32(max(0, since)))
	copy(b[offCreator:], writtenCreator)
	be.PutUint32(b[offCreatorV:], 0x000a0000)
	copy(b[offCreatorOS:], writtenCreatorOS)
	be.PutUint64(b[offOrigSize:], uint64(size))
	be.PutUint64(b[offSize:], uint64(size))
	c, h, s := chs(size)
	be.PutUint16(b[offCylinders:], c)
	b[offHeads], b[offSectors] = h, s
	be.PutUint32(b[offDiskType:], diskType)
	copy(b[offUUID:], opts.UUID[:])
	be.PutUint32(b[offChecksum:], checksum(b, offChecksum))
	return b
}

// makeHeader makes the header of a dynamic disk of so many blocks.
func makeHeader(blocks int64) []byte {
	b := make([]byte, dynLen)
	be := binary.BigEndian
	copy(b, dynCookie)
	be.PutUint64(b[8:], 1<<64-1) // no further structures
	be.PutUint64(b[dynOffTable:], tableOff)
	be.PutUint32(b[dynOffVersion:], 1<<16)
	be.PutUint32(b[dynOffEntries:], uint32(blocks))
	be.PutUint32(b[dynOffBlockSize:], writtenBlock)
	be.PutUint32(b[dynOffChecksum:], checksum(b, dynOffChecksum))
	return b
}

// chs is the geometry of a disk of size bytes, as the specification's appendix
// "CHS Calculation" has it.
func chs(size int64) (cylinders uint16, heads, sectors uint8) {
	total := min(size/sectorSize, 65535*16*255)
	var spt, h, ch int64
	if total >= 65535*16*63 {
		spt, h = 255, 16
		ch = total / spt
	} else {
		spt = 17
		ch = total / spt
		h = max(4, (ch+1023)/1024)
		if ch >= h*1024 || h > 16 {
			spt, h = 31, 16
			ch = total / spt
		}
		if ch >= h*1024 {
			spt, h = 63, 16
			ch = total / spt
		}
	}
	return uint16(ch / h), uint8(h), uint8(spt)
}
