package vmdk

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"

	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/blockwise"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/ims"
)

// What [Convert] writes: grains of 64 KiB, as all known writers do.
const (
	writtenGrain      = 64 << 10
	writtenDescriptor = 20 // sectors
	descriptorOff     = 1  // sector
	// streamOverhead is where the grains of a stream-optimised file begin, in
	// sectors: header and descriptor, up to a whole grain.
	streamOverhead = 128

	markerTable     = 1
	markerDirectory = 2
)

// Subformat is how a file stores a disk.
type Subformat string

// The subformats that [Convert] writes.
const (
	// StreamOptimized compresses the grains. It is what OVF and OVA carry and what
	// vSphere imports. It can be written to a stream.
	StreamOptimized Subformat = "streamOptimized"
	// MonolithicSparse stores the grains as they are: VMware Workstation's and
	// VirtualBox's growing disk.
	MonolithicSparse Subformat = "monolithicSparse"
)

// ConvertOptions are those of [Convert].
type ConvertOptions struct {
	// Subformat is StreamOptimized if empty.
	Subformat Subformat
	// Level is zlib's, 1 (fastest) to 9, for StreamOptimized; 0 is 1.
	Level int
	// Name is the file's own name, which the descriptor repeats; "disk.vmdk" if
	// empty. Readers go by the file that they were given.
	Name string
	sparse.CopyOptions
}

// Convert writes the disk src of size bytes to dst as VMDK. size is a multiple of
// 512 bytes, and at most 1 TiB. What was written is a file only if the error is
// nil.
func Convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (blockwise.Summary, error) {
	s, err := convert(ctx, dst, src, size, opts)
	if err != nil {
		return blockwise.Summary{}, fmt.Errorf("convert a disk to VMDK: %w", err)
	}
	return s, nil
}

func convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (blockwise.Summary, error) {
	if size <= 0 || size%sectorSize != 0 || size > ims.MaxDiskSize {
		return blockwise.Summary{}, unsupported("disk size", "it is %d bytes; it must be a multiple of %d up to %d", size, sectorSize, int64(ims.MaxDiskSize))
	}
	if opts.Name == "" {
		opts.Name = "disk.vmdk"
	}
	w := &writer{out: blockwise.NewOut(dst), h: header{size: size, grain: writtenGrain}}
	switch opts.Subformat {
	case "", StreamOptimized:
		w.h.compressed = true
		return w.stream(ctx, src, opts)
	case MonolithicSparse:
		return w.sparse(ctx, src, opts)
	}
	return blockwise.Summary{}, fmt.Errorf("subformat is %q; it must be %s or %s", opts.Subformat, StreamOptimized, MonolithicSparse)
}

// writer writes one sparse extent with its descriptor inside.
type writer struct {
	out *blockwise.Out
	h   header

	// Of a stream-optimised file:
	directory []uint32 // where each grain table lies, in sectors
	table     [tableLen]uint32
	number    int64 // of the table that is being filled, if inUse
	inUse     bool
	spare     []byte
}

// makeHeader makes a header. gd and rgd are where the directories lie, in sectors,
// overhead what lies before the first grain.
func (w *writer) makeHeader(version uint32, flags uint32, rgd, gd, overhead uint64) []byte {
	b := make([]byte, headerSize)
	le := binary.LittleEndian
	copy(b, magicHosted)
	le.PutUint32(b[4:], version)
	le.PutUint32(b[8:], flags)
	le.PutUint64(b[12:], uint64(w.h.size/sectorSize))
	le.PutUint64(b[20:], writtenGrain/sectorSize)
	le.PutUint64(b[28:], descriptorOff)
	le.PutUint64(b[36:], writtenDescriptor)
	le.PutUint32(b[44:], tableLen)
	le.PutUint64(b[48:], rgd)
	le.PutUint64(b[56:], gd)
	le.PutUint64(b[64:], overhead)
	copy(b[73:], "\n \r\n")
	if flags&flagCompressed != 0 {
		le.PutUint16(b[77:], 1) // deflate
	}
	return b
}

// makeDescriptor makes the text that describes the disk.
func (w *writer) makeDescriptor(createType Subformat, name string) ([]byte, error) {
	var cid [4]byte
	if _, err := rand.Read(cid[:]); err != nil {
		return nil, err
	}
	cid[3] &= 0x7f // not noParent
	sectors := w.h.size / sectorSize
	const heads, perTrack = 255, 63 // of SCSI disks
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="%s"

# Extent description
RW %d SPARSE %q

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.adapterType = "lsilogic"
`, binary.LittleEndian.Uint32(cid[:]), createType, sectors, name, max(1, sectors/(heads*perTrack)), heads, perTrack)
	b := make([]byte, writtenDescriptor*sectorSize)
	if len(text) >= len(b) {
		return nil, fmt.Errorf("the file's name has %d bytes and does not fit the descriptor's %d", len(name), len(b))
	}
	copy(b, text)
	return b, nil
}

// sparse writes header, descriptor, both copies of directory and tables, and the
// grains.
func (w *writer) sparse(ctx context.Context, src io.ReaderAt, opts ConvertOptions) (blockwise.Summary, error) {
	text, err := w.makeDescriptor(MonolithicSparse, opts.Name)
	if err != nil {
		return blockwise.Summary{}, err
	}
	tables := w.h.tables()
	dirLen := sectorsOf(tables * entrySize)
	const tableSectors = tableLen * entrySize / sectorSize
	rgd := int64(descriptorOff + writtenDescriptor)
	gd := rgd + dirLen + tables*tableSectors
	overhead := (gd + dirLen + tables*tableSectors + streamOverhead - 1) / streamOverhead * streamOverhead
	return blockwise.Write(ctx, w.out, src, w.h.size, opts.CopyOptions, blockwise.Layout{
		BlockSize: writtenGrain,
		FrontSize: overhead * sectorSize,
		Front: func(dst io.Writer, stored *bitset.Set) error {
			b := w.makeHeader(1, flagNewlines|flagRedundant, uint64(rgd), uint64(gd), uint64(overhead))
			if _, err := dst.Write(append(b, text...)); err != nil {
				return err
			}
			for _, at := range []int64{rgd, gd} {
				if err := writeTables(dst, at, tables, overhead, stored); err != nil {
					return err
				}
			}
			_, err := dst.Write(make([]byte, (overhead-gd-dirLen-tables*tableSectors)*sectorSize))
			return err
		},
		Put: func(_ int64, p []byte) error {
			_, err := w.out.Write(p)
			return err
		},
	})
}

// writeTables writes a grain directory that lies at sector at, and its tables
// behind it. The first stored grain lies at sector grains.
func writeTables(dst io.Writer, at, tables, grains int64, stored *bitset.Set) error {
	le := binary.LittleEndian
	dirLen := sectorsOf(tables * entrySize)
	b := make([]byte, dirLen*sectorSize)
	const tableBytes = tableLen * entrySize
	for i := range tables {
		le.PutUint32(b[i*entrySize:], uint32(at+dirLen+i*tableBytes/sectorSize))
	}
	if _, err := dst.Write(b); err != nil {
		return err
	}
	b = make([]byte, tableBytes)
	for i := range tables {
		clear(b)
		to := min(uint32(i+1)*tableLen, stored.Len())
		for g := stored.Next(uint32(i) * tableLen); g < to; g = stored.Next(g + 1) {
			le.PutUint32(b[g%tableLen*entrySize:], uint32(grains+int64(stored.Rank(g))*(writtenGrain/sectorSize)))
		}
		if _, err := dst.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func sectorsOf(n int64) int64 { return (n + sectorSize - 1) / sectorSize }

// stream writes a stream-optimised file: header and descriptor, the grains with
// the table of each 32 MiB of disk behind them, the directory, and the header
// again, which says where that is.
func (w *writer) stream(ctx context.Context, src io.ReaderAt, opts ConvertOptions) (blockwise.Summary, error) {
	text, err := w.makeDescriptor(StreamOptimized, opts.Name)
	if err != nil {
		return blockwise.Summary{}, err
	}
	const flags = flagNewlines | flagCompressed | flagMarkers
	if _, err := w.out.Write(append(w.makeHeader(3, flags, 0, gdAtEnd, streamOverhead), text...)); err != nil {
		return blockwise.Summary{}, err
	}
	if err := w.out.Align(streamOverhead * sectorSize); err != nil {
		return blockwise.Summary{}, err
	}
	w.directory = make([]uint32, w.h.tables())
	s := blockwise.Summary{Blocks: w.h.grains()}
	err = blockwise.Each(ctx, src, w.h.size, writtenGrain, opts.CopyOptions, false, func() (blockwise.Encoder, error) {
		return newDeflater(max(1, opts.Level))
	}, func(index int64, p []byte) error {
		s.DataBlocks++
		return w.put(index, p)
	})
	if err == nil {
		err = w.finish(flags)
	}
	s.FileSize = w.out.Offset()
	return s, err
}

// put appends a compressed grain behind its marker.
func (w *writer) put(index int64, packed []byte) error {
	if number := index / tableLen; !w.inUse || number != w.number {
		if err := w.endTable(); err != nil {
			return err
		}
		w.number, w.inUse = number, true
	}
	w.table[index%tableLen] = uint32(w.out.Offset() / sectorSize)
	le := binary.LittleEndian
	w.spare = le.AppendUint64(w.spare[:0], uint64(index*(writtenGrain/sectorSize)))
	w.spare = le.AppendUint32(w.spare, uint32(len(packed)))
	w.spare = append(w.spare, packed...)
	if _, err := w.out.Write(w.spare); err != nil {
		return err
	}
	return w.out.Align(sectorSize)
}

// mark appends a marker of a kind that is followed by n bytes.
func (w *writer) mark(kind uint32, n int64) error {
	b := make([]byte, markerSize)
	binary.LittleEndian.PutUint64(b, uint64(sectorsOf(n)))
	binary.LittleEndian.PutUint32(b[12:], kind)
	_, err := w.out.Write(b)
	return err
}

// entries appends a table or directory behind its marker and says at which sector
// it lies.
func (w *writer) entries(kind uint32, all []uint32) (at int64, err error) {
	if err := w.mark(kind, int64(len(all))*entrySize); err != nil {
		return 0, err
	}
	at = w.out.Offset() / sectorSize
	if err := binary.Write(w.out, binary.LittleEndian, all); err != nil {
		return 0, err
	}
	return at, w.out.Align(sectorSize)
}

func (w *writer) endTable() error {
	if !w.inUse {
		return nil
	}
	at, err := w.entries(markerTable, w.table[:])
	w.directory[w.number] = uint32(at)
	clear(w.table[:])
	w.inUse = false
	return err
}

// finish appends the last table, the directory, the footer and the stream's end.
func (w *writer) finish(flags uint32) error {
	if err := w.endTable(); err != nil {
		return err
	}
	gd, err := w.entries(markerDirectory, w.directory)
	if err != nil {
		return err
	}
	if err := w.mark(markerFooter, headerSize); err != nil {
		return err
	}
	if _, err := w.out.Write(w.makeHeader(3, flags, 0, uint64(gd), streamOverhead)); err != nil {
		return err
	}
	if err := w.mark(markerEnd, 0); err != nil {
		return err
	}
	return w.out.Flush()
}

// deflater makes one zlib stream (RFC 1950) of each grain.
type deflater struct {
	z   *zlib.Writer
	buf bytes.Buffer
}

func newDeflater(level int) (blockwise.Encoder, error) {
	d := new(deflater)
	var err error
	if d.z, err = zlib.NewWriterLevel(&d.buf, level); err != nil {
		return nil, fmt.Errorf("zlib level is %d; it must be 1 to 9: %w", level, err)
	}
	return d, nil
}

// Encode implements [blockwise.Encoder].
func (d *deflater) Encode(dst, plain []byte) ([]byte, error) {
	d.buf.Reset()
	d.z.Reset(&d.buf)
	if _, err := d.z.Write(plain); err != nil {
		return dst, err
	}
	err := d.z.Close()
	return append(dst, d.buf.Bytes()...), err
}
