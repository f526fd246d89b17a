package zvhd2

import (
	"bytes"
	"context"
	"fmt"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// Verify compares the header and its copies with the footer, then reads and decodes every
// record, on all cores, and compares it with its entry of the frame table if there is
// one. It returns what it finds wrong first: an ErrCorrupt that names
// the part, or what the source or ctx said. With what [Open] checked that is all of the
// file but what no reader uses: the rest of a header block's page, reserved bytes and
// padding of records, what lies between the parts, and, where the footer has no
// extension, the index's unused entries.
func (f *File) Verify(ctx context.Context, opts Options) error {
	err := f.verifyHeaders()
	if err == nil {
		err = f.eachBlock(ctx, opts, f.OrigSize(), f.verifyFrames)
	}
	if err != nil {
		return fmt.Errorf("verifying a ZVHD2 file: %w", err)
	}
	return nil
}

// verifyFrames checks that the frame table says of a block what its record says.
func (f *File) verifyFrames(block uint32, rec, plain []byte) error {
	if !f.Framed() {
		return nil
	}
	var got, want [FrameEntrySize]byte
	payload, err := zdisk.Payload(diskformat.ZVHD2, rec, block)
	if err == nil {
		_, err = appendFrameEntry(want[:0], payload, plain)
	}
	if err != nil {
		return fmt.Errorf("block %d: %w", block, err)
	}
	if err := f.readFrameEntry(got[:], f.FrameEntry(block)); err != nil {
		return err
	}
	for u := range UnitsInBlock {
		got, want := got[u*unitEntrySize:][:unitEntrySize], want[u*unitEntrySize:][:unitEntrySize]
		if !bytes.Equal(got, want) {
			return corrupt("frame table", "unit %d of block %d: it has % x, the record makes % x", u, block, got, want)
		}
	}
	return nil
}

// verifyHeaders checks the header and its copy, which opening does without. Where index
// and bitmap will lie, how long they will be and how many blocks are stored is not known
// yet when the header is written, the last of it is when the copy is.
func (f *File) verifyHeaders() error {
	if err := f.verifyHeader("header", 0, offIndexByBlk, true); err != nil {
		return err
	}
	// The published writer leaves the copy's checksum stale; this package's is valid.
	if err := f.verifyHeader("copy", f.x.end, offDataBlocks, f.extended); err != nil || !f.Framed() {
		return err
	}
	return f.verifyHeader("second copy", f.h.recordsEnd(), offDataBlocks, true)
}

// verifyHeader checks that the header block at off has the fields of the footer. Those
// from offIndex to lateEnd may also be 0. sealed: the checksum must be valid.
func (f *File) verifyHeader(name string, off int64, lateEnd int, sealed bool) error {
	b := make([]byte, zdisk.HeaderSize)
	if err := diskformat.ReadFull(f.r, b, off); err != nil {
		return fmt.Errorf("reading the %s: %w", name, err)
	}
	if !hasCookie(b) {
		return corrupt(name+".cookie", "it is % x, right is %q", b[:cookieUsed], cookie[:cookieUsed])
	}
	if got, sum := zdisk.ParseFront(b).Checksum, zdisk.Checksum(b); sealed && got != sum {
		return corrupt(name+".checksum", "it is %#08x, the bytes of the block at %d make %#08x", got, off, sum)
	}
	for i, field := range headerFields {
		end := zdisk.HeaderSize
		if i+1 < len(headerFields) {
			end = headerFields[i+1].Off
		}
		got, want := b[field.Off:end], f.footer[field.Off:end]
		late := field.Off >= offIndex && field.Off < lateEnd
		if field.Name == "checksum" || bytes.Equal(got, want) || late && bytes.Equal(got, make([]byte, len(got))) {
			continue
		}
		k := 0
		for got[k] == want[k] {
			k++
		}
		return corrupt(name+"."+field.Name, "byte %d of the file is %#02x, the footer says %#02x", off+int64(field.Off+k), got[k], want[k])
	}
	return nil
}
