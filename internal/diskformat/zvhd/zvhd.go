// Package zvhd reads and writes ZVHD (version 1), the sequential forerunner of
// ZVHD2.
//
// A file is a header block, records of blocks of 2 MiB in ascending order
// without those that are all zeros, and a copy of the header. One zlib stream
// runs through the payloads of all records, so that a block can be read only
// after all that precede it; there is no index. The quick import does not take
// such a file. [Reader] and [Extract] go through one from its front, [File] makes
// a disk of it that can be read anywhere, at a cost.
package zvhd

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/ims"
)

const (
	// BlockSize is that of every block, in bytes.
	BlockSize = 2 << 20
	// MaxRecord is the longest record that is read, in bytes.
	MaxRecord = 4 << 20

	cookie     = "stream\x00\x00"
	windowSize = 32 << 10 // of deflate
)

// Reader reads the blocks of a file in sequence. It holds about 6 MiB at most
// and is for one goroutine.
type Reader struct {
	r         io.Reader
	off       int64
	header    [zdisk.HeaderSize]byte
	front     zdisk.Front
	blockSize int64 // BlockSize but in tests
	blocks    uint32
	next      uint32 // the least block that may come next
	first     bool
	rec       []byte
	plain     []byte
	window    []byte // the end of the block before
	err       error
}

func corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrCorrupt, field, problem, args...)
}

// newReader reads a file with blocks of that many bytes, at least those of the window.
func newReader(r io.Reader, blockSize int64) (*Reader, error) {
	z := &Reader{r: r, blockSize: blockSize, first: true}
	if err := z.readHeader(); err != nil {
		return nil, fmt.Errorf("opening a ZVHD file: %w", err)
	}
	return z, nil
}

func (z *Reader) readHeader() error {
	page := make([]byte, zdisk.PageSize)
	n, err := io.ReadFull(z.r, page)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading the header: %w", err)
	}
	if n < len(cookie) || string(page[:len(cookie)]) != cookie {
		return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrWrongFormat, "", "the file does not begin with %q", cookie)
	}
	if n < len(page) {
		return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrIncomplete, "header", "the file ends after %d of its %d bytes", n, len(page))
	}
	z.off = zdisk.PageSize
	copy(z.header[:], page)
	z.front = zdisk.ParseFront(page)
	h := &z.front
	if sum := zdisk.Checksum(page); sum != h.Checksum {
		return corrupt("header.checksum", "it is %#08x, the header's bytes make %#08x", h.Checksum, sum)
	}
	switch {
	case h.OrigSize == 0:
		return corrupt("header.orig_size", "it is 0")
	case h.OrigSize > ims.MaxDiskSize:
		return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrUnsupported, "header.orig_size",
			"it is %d, at most %d (1 TiB) is read", h.OrigSize, int64(ims.MaxDiskSize))
	case h.OrigSize%zdisk.SectorSize != 0:
		return corrupt("header.orig_size", "it is %d, no multiple of %d", h.OrigSize, zdisk.SectorSize)
	case h.CurrSize < h.OrigSize || h.CurrSize-h.OrigSize >= zdisk.MaxGrowth:
		return corrupt("header.curr_size", "it is %d, right is from orig_size (%d) to less than 1 GiB more", h.CurrSize, h.OrigSize)
	}
	z.blocks = uint32(zdisk.Blocks(h.OrigSize, uint64(z.blockSize)))
	return nil
}

// OrigSize is the size in bytes of the disk that the file was made from.
func (z *Reader) OrigSize() int64 { return int64(z.front.OrigSize) }

// Size is the virtual size in bytes: OrigSize rounded up by a tail of zeros.
func (z *Reader) Size() int64 { return int64(z.front.CurrSize) }

// Next returns the next stored block: where it lies on the disk and its bytes,
// BlockSize of them or as many as are left of OrigSize. They are good until
// the next call. Blocks that are passed over are zero. At the file's sound end
// the error is io.EOF; after any error there is no going on.
func (z *Reader) Next() (off int64, plain []byte, err error) {
	if z.err == nil {
		off, plain, z.err = z.readRecord()
		if z.err != nil && z.err != io.EOF {
			z.err = fmt.Errorf("reading a ZVHD file at byte %d: %w", z.off, z.err)
		}
	}
	if z.err != nil {
		return 0, nil, z.err
	}
	return off, plain, nil
}

// read fills p; behind it another rest bytes must come.
func (z *Reader) read(p []byte, rest int64, what string) error {
	n, err := io.ReadFull(z.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrIncomplete, what,
			"the file ends %d bytes too early: it was cut off; get it whole", int64(len(p)-n)+rest)
	}
	if err != nil {
		return err
	}
	z.off += int64(n)
	return nil
}

func (z *Reader) readRecord() (int64, []byte, error) {
	if z.rec == nil {
		z.rec = make([]byte, zdisk.PageSize)
	}
	page := z.rec[:zdisk.PageSize]
	if err := z.read(page, 0, "record or final copy of the header"); err != nil {
		return 0, nil, err
	}
	if string(page[:len(cookie)]) == cookie {
		return 0, nil, z.finish(page)
	}
	h, err := zdisk.ParseHead(diskformat.ZVHD, page)
	if err != nil {
		return 0, nil, err
	}
	length, err := checkHead(h, z.next, z.blocks)
	if err != nil {
		return 0, nil, err
	}
	rec, err := z.restOf(page, length)
	if err != nil {
		return 0, nil, err
	}
	payload, err := zdisk.Payload(diskformat.ZVHD, rec, h.Block)
	if err != nil {
		return 0, nil, err
	}
	if z.first {
		if err := zdisk.CheckZlibHeader(diskformat.ZVHD, payload); err != nil {
			return 0, nil, err
		}
		payload = payload[zdisk.ZlibHeaderSize:]
		z.first = false
	}
	// A sync flush ends on a whole byte, so each record can be inflated for
	// itself, given the window that the stream had then.
	if z.plain == nil {
		z.plain = make([]byte, z.blockSize)
		z.window = make([]byte, 0, windowSize)
	}
	if err := zdisk.Inflate(diskformat.ZVHD, z.plain, payload, z.window); err != nil {
		return 0, nil, fmt.Errorf("block %d: %w", h.Block, err)
	}
	z.window = append(z.window[:0], z.plain[z.blockSize-windowSize:]...)
	z.next = h.Block + 1
	off := int64(h.Block) * z.blockSize
	return off, z.plain[:min(z.blockSize, z.OrigSize()-off)], nil
}

// restOf reads the rest of a record of so many bytes, of which the first page is
// there. Memory grows with what arrives: the length is only what the page says.
func (z *Reader) restOf(page []byte, length int64) ([]byte, error) {
	z.rec = page
	for have := int64(len(page)); have < length; have = int64(len(z.rec)) {
		n := min(length, max(4*have, int64(cap(z.rec))))
		z.rec = slices.Grow(z.rec, int(n-have))[:n]
		if err := z.read(z.rec[have:], length-n, "record"); err != nil {
			return nil, err
		}
	}
	return z.rec, nil
}

// finish checks the copy of the header and that nothing follows.
func (z *Reader) finish(page []byte) error {
	if string(page[:zdisk.HeaderSize]) != string(z.header[:]) {
		return corrupt("final copy of the header", "it differs from the header")
	}
	var one [1]byte
	switch _, err := io.ReadFull(z.r, one[:]); {
	case err == nil:
		return corrupt("file", "bytes follow the final copy of the header")
	case errors.Is(err, io.EOF):
		return io.EOF
	default:
		return err
	}
}
