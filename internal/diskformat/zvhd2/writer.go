package zvhd2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/zstd"
)

// Options are those of writing a file. The zero value makes a framed file.
type Options struct {
	// WholeBlocks makes the published form: each block is one zstd frame, and there is
	// no frame table.
	WholeBlocks bool
	// Level is zstd's compression level, 1 to 22; 0 is its default, 3.
	Level int
	// Concurrency is the number of blocks that are worked on at once; 0 is one
	// for each core. Each takes about 12 MiB of memory to compress and 4 MiB
	// to decompress.
	Concurrency int
	// Now is when the file says it was made; zero is the present.
	Now time.Time
	// UUID goes into the header; zero draws one.
	UUID [16]byte
	// Progress, if set, is told in one goroutine at a time how many of the
	// disk's bytes are done, holes included. done never decreases.
	Progress func(done, total int64)
}

func (o Options) concurrency() int {
	if o.Concurrency > 0 {
		return o.Concurrency
	}
	return runtime.GOMAXPROCS(0)
}

// checkLevel gives the level with its default.
func (o Options) checkLevel() (int, error) {
	switch {
	case o.Level == 0:
		return defaultLevel, nil
	case o.Level < 1 || o.Level > 22:
		return 0, unsupported("level", "it is %d, right is 1 to 22", o.Level)
	}
	return o.Level, nil
}

// defaultLevel is zstd's.
const defaultLevel = 3

// frameSize is how many bytes of the disk a frame holds.
func (o Options) frameSize() int {
	if o.WholeBlocks {
		return DefaultBlockSize
	}
	return UnitSize
}

// newEncoder makes an encoder of frames that hold up to size bytes.
func (o Options) newEncoder(size int) (zstd.Encoder, error) {
	level, err := o.checkLevel()
	if err != nil {
		return nil, err
	}
	return zstd.New(level, o.concurrency(), size)
}

// checkDiskSize tells whether a disk of size bytes can be stored.
func checkDiskSize(size int64) error {
	switch {
	case size <= 0:
		return unsupported("disk size", "it is %d; a disk has at least %d bytes", size, zdisk.SectorSize)
	case size%zdisk.SectorSize != 0:
		return unsupported("disk size", "it is %d, no multiple of %d; pad the RAW file to whole sectors", size, zdisk.SectorSize)
	case size > ims.MaxDiskSize:
		return unsupported("disk size", "it is %d, at most %d (1 TiB) is written", size, int64(ims.MaxDiskSize))
	}
	return nil
}

// Writer writes a file in sequence: blocks of 2 MiB, a dense index, zstd with
// content checksums, and the footer's extension. It holds 6 bytes for each stored block,
// and of a framed file 256 more: 131 MiB for a full TiB. It is for one goroutine.
// Until [Writer.Finish] has returned nil, what was written is a file that
// every reader takes for cut off; to give up, write no more and throw it away.
type Writer struct {
	w       io.Writer
	h       header
	enc     zstd.Encoder
	off     int64
	bitmap  []byte
	offsets []uint32 // of the records, in pages
	lengths []uint16
	frame   int         // how many bytes of the disk a frame holds
	table   [][]byte    // of a framed file, the entries of tableStep blocks each
	err     error       // what ended the writing
	failed  func(error) // if set, is told when a record can't be written
}

// errFinished is what a finished Writer answers.
var errFinished = errors.New("the file is finished")

// newWriter writes the header of a file for a disk of origSize bytes, which is
// a multiple of 512 and at most 1 TiB. An ErrUnsupported tells what is not.
func newWriter(w io.Writer, origSize int64, opts Options) (*Writer, error) {
	if err := checkDiskSize(origSize); err != nil {
		return nil, err
	}
	enc, err := opts.newEncoder(opts.frameSize())
	if err != nil {
		return nil, err
	}
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	if opts.UUID == ([16]byte{}) {
		id, err := uuid.NewRandom()
		if err != nil {
			return nil, fmt.Errorf("drawing the file's UUID: %w", err)
		}
		opts.UUID = id
	}
	z := &Writer{w: w, enc: enc, frame: opts.frameSize(), h: header{
		Front: zdisk.Front{
			Timestamp: zdisk.Timestamp(opts.Now),
			OrigSize:  uint64(origSize),
			CurrSize:  zdisk.VirtualSize(uint64(origSize)),
			UUID:      opts.UUID,
		},
		version:     1,
		blockSize:   DefaultBlockSize,
		maxBlocks:   uint32(zdisk.Blocks(uint64(origSize), DefaultBlockSize)),
		compression: methodZstd,
	}}
	copy(z.h.Cookie[:], cookie)
	z.bitmap = make([]byte, z.h.bitmapSegments()*bitmapSegmentSize)
	if err := z.write(z.h.block()); err != nil {
		return nil, err
	}
	return z, nil
}

// shrink makes the disk as small as it turned out to be, and writes the header
// anew at the front of dst.
func (z *Writer) shrink(origSize int64, dst io.WriterAt) error {
	if z.err != nil {
		return z.err
	}
	if err := checkDiskSize(origSize); err != nil {
		return err
	}
	z.h.OrigSize, z.h.CurrSize = uint64(origSize), zdisk.VirtualSize(uint64(origSize))
	z.h.maxBlocks = uint32(zdisk.Blocks(uint64(origSize), DefaultBlockSize))
	z.bitmap = z.bitmap[:z.h.bitmapSegments()*bitmapSegmentSize]
	// The header knows of no block yet, as when it was written first.
	first := z.h
	first.dataBlocks = 0
	if _, err := dst.WriteAt(first.block(), 0); err != nil {
		z.err = fmt.Errorf("writing the header of a ZVHD2 file anew: %w", err)
	}
	return z.err
}

// BlockSize is the size in bytes of the blocks that WriteBlock takes.
func (z *Writer) BlockSize() int64 { return int64(z.h.blockSize) }

func (z *Writer) write(p []byte) error {
	if z.err != nil {
		return z.err
	}
	if _, err := z.w.Write(p); err != nil {
		z.err = fmt.Errorf("writing a ZVHD2 file at byte %d: %w", z.off, err)
		return z.err
	}
	z.off += int64(len(p))
	return nil
}

// encodeRecord compresses a whole block into a record of frames of frameSize bytes
// each, in buf if that is large enough. Encoders can be used by many goroutines.
func encodeRecord(enc zstd.Encoder, frameSize int, buf []byte, block uint32, plain []byte) ([]byte, error) {
	if int64(cap(buf)) < maxRecord(int64(len(plain))) {
		buf = make([]byte, 0, maxRecord(int64(len(plain))))
	}
	rec := buf[:zdisk.RecordHeadSize]
	for len(plain) > 0 {
		var err error
		if rec, err = enc.Encode(rec, plain[:frameSize]); err != nil {
			return nil, fmt.Errorf("compressing block %d: %w", block, err)
		}
		plain = plain[frameSize:]
	}
	return zdisk.FinishRecord(rec, block), nil
}

// framed tells whether the file has a frame table.
func (z *Writer) framed() bool { return z.frame == UnitSize }

// tableStep is how many entries of the frame table are allocated at a time.
const tableStep = 4096

// writeRecord stores a record that encodeRecord made. In a framed file entry is what the
// frame table says of it.
func (z *Writer) writeRecord(block uint32, rec, entry []byte) error {
	at := z.off
	if err := z.write(rec); err != nil {
		return err
	}
	z.bitmap[block/8] |= 1 << (block % 8)
	z.offsets = append(z.offsets, uint32(at/pageSize))
	z.lengths = append(z.lengths, uint16(len(rec)/pageSize))
	if z.framed() {
		if z.h.dataBlocks%tableStep == 0 {
			z.table = append(z.table, make([]byte, 0, tableStep*FrameEntrySize))
		}
		last := &z.table[len(z.table)-1]
		*last = append(*last, entry...)
	}
	z.h.dataBlocks++
	return nil
}

// Finish writes what follows the records, the footer last. Only then
// the file is one. It does not close or sync what lies below.
func (z *Writer) Finish() error {
	if z.err != nil {
		return z.err
	}
	defer z.enc.Close()
	// In the copy, as in the published writer's, the count of records alone
	// differs from the header's.
	if err := z.write(z.h.block()); err != nil {
		return err
	}
	var frames *frameParts
	var frameSums []byte
	if z.framed() {
		var err error
		if frames, frameSums, err = z.writeTable(); err != nil {
			return err
		}
	}
	z.h.index = uint64(z.off)
	indexCRC, err := z.writeIndex()
	if err != nil {
		return err
	}
	z.h.bitmap = uint64(z.off)
	if err := z.write(z.bitmap); err != nil {
		return err
	}
	if frames != nil {
		frames.sums = uint64(z.off)
		if err := z.writePadded(frameSums); err != nil {
			return err
		}
	}
	z.h.indexSeg, z.h.indexSegs = indexSegmentSize, uint32(segments(z.h.dataBlocks))
	z.h.indexSize = z.h.indexSeg * z.h.indexSegs
	z.h.bitmapSeg, z.h.bitmapSize = bitmapSegmentSize, uint32(len(z.bitmap))
	z.h.bitmapSegs = z.h.bitmapSize / bitmapSegmentSize
	footer := z.h.block()
	extension{
		fileSize:  uint64(z.off) + pageSize,
		indexCRC:  indexCRC,
		bitmapCRC: crc32.Checksum(z.bitmap, castagnoli),
		frames:    frames,
	}.put(footer)
	if err := z.write(footer); err != nil {
		return err
	}
	z.err = errFinished
	return nil
}

// writeTable writes the frame table and the copy of the header behind it. It returns
// the frame sums, which are written later.
func (z *Writer) writeTable() (*frameParts, []byte, error) {
	p := &frameParts{table: uint64(z.off), tableLen: uint64(z.h.dataBlocks) * FrameEntrySize, sumsLen: uint64(z.h.dataBlocks) * 4}
	sums := make([]byte, 0, p.sumsLen)
	for _, part := range z.table {
		for e := part; len(e) > 0; e = e[FrameEntrySize:] {
			sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(e[:FrameEntrySize], castagnoli))
		}
		if err := z.writePadded(part); err != nil { // all but the last are whole pages
			return nil, nil, err
		}
	}
	p.sumsCRC = crc32.Checksum(sums, castagnoli)
	return p, sums, z.write(z.h.block())
}

// writePadded writes p and zeros to the end of its last page.
func (z *Writer) writePadded(p []byte) error {
	if err := z.write(p); err != nil {
		return err
	}
	return z.write(make([]byte, wholePages(uint64(len(p)))-uint64(len(p))))
}

// writeIndex writes the index segment by segment and returns its CRC-32C.
func (z *Writer) writeIndex() (uint32, error) {
	const each = indexSegmentSize / indexEntrySize
	var crc uint32
	var seg []byte
	block := uint32(0)
	for k := 0; k < len(z.offsets); k += each {
		if seg == nil {
			seg = make([]byte, indexSegmentSize)
		}
		clear(seg)
		for i := k; i < min(k+each, len(z.offsets)); i++ {
			for z.bitmap[block/8]&(1<<(block%8)) == 0 {
				block++
			}
			e := seg[(i-k)*indexEntrySize:]
			binary.LittleEndian.PutUint64(e, uint64(z.offsets[i])*pageSize)
			binary.LittleEndian.PutUint32(e[8:], block)
			binary.LittleEndian.PutUint32(e[12:], uint32(z.lengths[i])*pageSize)
			block++
		}
		crc = crc32.Update(crc, castagnoli, seg)
		if err := z.write(seg); err != nil {
			return 0, err
		}
	}
	return crc, nil
}
