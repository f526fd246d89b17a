package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/padded"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

const (
	// tableMemory and grainMemory bound what all extents of a disk keep: pages of
	// directories and tables, each of which holds 32 grain tables, which tell of
	// 1 GiB of disk where grains have 64 KiB; and grains that were compressed.
	tableMemory = 2 << 20
	grainMemory = 4 << 20
)

// sparseExtent is a hosted sparse extent: a file of its own, in which a
// directory of tables tells where each grain lies.
type sparseExtent struct {
	r      io.ReaderAt
	size   int64 // of the file
	h      *header
	id     int // in the caches
	tables recent.Pages
	plain  *recent.Cache[grainKey] // grains that were compressed
	// short becomes the size of a file that ends within its last grain.
	short *atomic.Int64
}

// grainKey is a grain of an extent.
type grainKey struct {
	extent int
	number int64
}

// openSparse reads the header of a hosted sparse extent and, where it says so,
// its footer. The descriptor is what the file carries, nil if none.
func openSparse(r io.ReaderAt, size int64) (*sparseExtent, *descriptor, error) {
	b := make([]byte, headerSize)
	if size < headerSize {
		return nil, nil, incomplete("file size", "it is %d, a header alone has %d bytes", size, headerSize)
	}
	if err := diskformat.ReadFull(r, b, 0); err != nil {
		return nil, nil, fmt.Errorf("reading the header: %w", err)
	}
	if err := refuseOthers(b); err != nil {
		return nil, nil, err
	}
	h, err := parseHeader(b, size, "header")
	if err != nil {
		return nil, nil, err
	}
	var d *descriptor
	if h.descOff != 0 {
		text := make([]byte, h.descLen)
		if err := diskformat.ReadFull(r, text, h.descOff); err != nil {
			return nil, nil, fmt.Errorf("reading the descriptor: %w", err)
		}
		if text[0] != 0 { // one of many extents may have room for one
			if d, err = parseDescriptor(text); err == nil {
				err = checkEmbedded(d, h)
			}
			if err != nil {
				return nil, nil, err
			}
		}
	}
	if h.gdAtEnd {
		const n = markerSize + headerSize + markerSize
		if size < headerSize+n {
			return nil, nil, incomplete("footer", "gdOffset says that there is one, the file's %d bytes have no room for it", size)
		}
		b := make([]byte, n)
		if err := diskformat.ReadFull(r, b, size-n); err != nil {
			return nil, nil, fmt.Errorf("reading the footer: %w", err)
		}
		if h, err = parseFooter(b, size, h); err != nil {
			return nil, nil, err
		}
	}
	return &sparseExtent{r: r, size: size, h: h}, d, nil
}

// refuseOthers names the sparse formats that are not read.
func refuseOthers(b []byte) error {
	switch string(b[:4]) {
	case magicESX:
		return unsupported("header.magic", "the file is an ESX sparse extent (COWD); %s", deltaHelp)
	case magicSESparse:
		return unsupported("header.magic", "the file is a space-efficient sparse extent (SESparse); %s", deltaHelp)
	}
	return nil
}

// checkEmbedded checks that a descriptor speaks of the file that it is in. The
// name it gives is not looked at: a file may be renamed.
func checkEmbedded(d *descriptor, h *header) error {
	if len(d.extents) != 1 || d.extents[0].kind != sparseHosted {
		return unsupported("descriptor.extent", "a descriptor within a sparse extent must have that one extent, of type SPARSE")
	}
	// Writers may round the capacity up to whole grains.
	if said := d.extents[0].size; said > h.size || h.size-said >= h.grain {
		return corrupt("header.capacity", "it is %d sectors, the descriptor's extent has %d", h.size/sectorSize, said/sectorSize)
	}
	return nil
}

// meta fills p with the file's bytes at off, of directories and tables. The
// caller has checked that they lie within the file.
func (x *sparseExtent) meta(p []byte, off int64) error {
	for len(p) > 0 {
		page, err := x.tables.At(x.id, x.r, x.size, off)
		if err != nil {
			return err
		}
		n := copy(p, page)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// table returns entries of grain table t, all or those of n grains from the
// first on: where each grain lies in the file, 0 for one that reads as zeros.
// none says that the table is not there and all of them are zeros. at is room
// for them.
func (x *sparseExtent) table(at []int64, t, first int64) (none bool, err error) {
	var gde [entrySize]byte
	if err := x.meta(gde[:], x.h.gdOff+t*entrySize); err != nil {
		return false, fmt.Errorf("reading the grain directory: %w", err)
	}
	sector := int64(binary.LittleEndian.Uint32(gde[:]))
	if sector == 0 {
		return true, nil
	}
	if sector*sectorSize > x.size-tableLen*entrySize {
		return false, incomplete("grain directory", "entry %d says that its table is at sector %d, beyond the file's %d bytes; "+
			"the file was cut off or is damaged", t, sector, x.size)
	}
	var buf [tableLen * entrySize]byte
	b := buf[:len(at)*entrySize]
	if err := x.meta(b, sector*sectorSize+first*entrySize); err != nil {
		return false, fmt.Errorf("reading grain table %d: %w", t, err)
	}
	for i := range at {
		if at[i], err = x.place(t*tableLen+first+int64(i), binary.LittleEndian.Uint32(b[i*entrySize:])); err != nil {
			return false, err
		}
	}
	return false, nil
}

// place checks the entry gte of a grain.
func (x *sparseExtent) place(grain int64, gte uint32) (int64, error) {
	switch {
	case gte == 0 || gte == 1 && x.h.zeroGrain:
		return 0, nil
	case gte == 1:
		return 0, corrupt("grain table", "the entry of grain %d is 1, zeros by the flag that the header lacks", grain)
	}
	off := int64(gte) * sectorSize
	need := x.length(grain)
	if x.h.compressed {
		need = grainHead
	}
	if off < x.size && off > x.size-need && !x.h.compressed {
		x.short.Store(x.size)
		return off, nil
	}
	if off > x.size-need {
		return 0, incomplete("grain table", "the entry of grain %d says sector %d, and the file ends at byte %d; "+
			"it was cut off or is damaged", grain, gte, x.size)
	}
	return off, nil
}

// length of a grain as far as it is of the disk.
func (x *sparseExtent) length(grain int64) int64 { return min(x.h.grain, x.h.size-grain*x.h.grain) }

// readAt fills p from off, all of it within the extent.
func (x *sparseExtent) readAt(p []byte, off int64) error {
	var room [tableLen]int64
	for len(p) > 0 {
		grain, within := off/x.h.grain, off%x.h.grain
		t, first := grain/tableLen, grain%tableLen
		count := min(tableLen-first, (within+int64(len(p))+x.h.grain-1)/x.h.grain)
		n := min(int64(len(p)), count*x.h.grain-within)
		at := room[:count]
		none, err := x.table(at, t, first)
		switch {
		case err != nil:
			return err
		case none:
			clear(p[:n])
		case x.h.compressed:
			err = x.readCompressed(p[:n], at, grain, within)
		default:
			err = x.readPlain(p[:n], at, within)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readPlain fills p from within the first of the grains that lie at at. Grains
// that follow each other in the file are read at once.
func (x *sparseExtent) readPlain(p []byte, at []int64, within int64) error {
	for i := 0; i < len(at); {
		n, next := x.h.grain-within, i+1
		for next < len(at) && (at[i] == 0 && at[next] == 0 ||
			at[i] != 0 && at[next] == at[i]+int64(next-i)*x.h.grain) {
			n, next = n+x.h.grain, next+1
		}
		n = min(n, int64(len(p)))
		if at[i] == 0 {
			clear(p[:n])
		} else if err := diskformat.ReadFull(padded.Reader{R: x.r, Size: x.size}, p[:n], at[i]+within); err != nil {
			return fmt.Errorf("reading grains: %w", err)
		}
		p, i, within = p[n:], next, 0
	}
	return nil
}

// mapped tells add the lengths of data and holes from the extent's beginning
// to its end. It ends early if add says false.
func (x *sparseExtent) mapped(ctx context.Context, add extents.Add) error {
	var room [tableLen]int64
	span := x.h.grain * tableLen
	holes := sparse.NewHoles(ctx, x.r, x.size)
	for t := int64(0); t < x.h.tables(); t++ {
		if t%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		at := room[:min(tableLen, x.h.grains()-t*tableLen)]
		none, err := x.table(at, t, 0)
		if err != nil {
			return err
		}
		if none {
			if !add(min(span, x.h.size-t*span), false) {
				return nil
			}
			continue
		}
		for i, off := range at {
			more, n := true, x.length(t*tableLen+int64(i))
			if off != 0 && !x.h.compressed {
				more, err = holes.Range(off, n, add)
			} else {
				more = add(n, off != 0)
			}
			if err != nil || !more {
				return err
			}
		}
	}
	return nil
}
