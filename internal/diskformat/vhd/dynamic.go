package vhd

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"unicode/utf16"

	"github.com/quickims/quickims/internal/diskformat"
)

// Where the fields of the header of a dynamic disk lie.
const (
	dynCookie = "cxsparse"

	dynOffTable      = 16
	dynOffVersion    = 24
	dynOffEntries    = 28
	dynOffBlockSize  = 32
	dynOffChecksum   = 36
	dynOffParentName = 64

	dynLen        = 1024
	parentNameLen = 512
)

// unused is the BAT's entry for a block that is not stored.
const unused = 0xffffffff

// openDynamic reads and checks the header and the BAT.
func (f *File) openDynamic(ft *footer) error {
	off := int64(ft.dataOffset)
	if off > f.end-dynLen {
		return incomplete("footer.data_offset", "the header, %d bytes at %d, does not end within the file's %d bytes", dynLen, off, f.end)
	}
	b := make([]byte, dynLen)
	if err := diskformat.ReadFull(f.r, b, off); err != nil {
		return fmt.Errorf("reading the header: %w", err)
	}
	be := binary.BigEndian
	if string(b[:len(dynCookie)]) != dynCookie {
		return corrupt("header.cookie", "it is % x, right is %q", b[:len(dynCookie)], dynCookie)
	}
	if sum, want := checksum(b, dynOffChecksum), be.Uint32(b[dynOffChecksum:]); sum != want {
		return corrupt("header.checksum", "it is %#08x, the bytes make %#08x", want, sum)
	}
	if v := be.Uint32(b[dynOffVersion:]); v>>16 != 1 {
		return unsupported("header.header_version", "it is %d.%d, 1.0 is read", v>>16, v&0xffff)
	}
	if ft.diskType == typeDiff {
		return unsupported("footer.disk_type", "it is %d: the disk holds only what differs from its parent%s; merge them first", ft.diskType, parentName(b))
	}
	blockSize := be.Uint32(b[dynOffBlockSize:])
	if blockSize < MinBlockSize || blockSize > MaxBlockSize || bits.OnesCount32(blockSize) != 1 {
		return unsupported("header.block_size", "it is %d, powers of two from %d to %d are read", blockSize, MinBlockSize, MaxBlockSize)
	}
	f.info.BlockSize = int64(blockSize)
	// One bit a sector, in whole sectors.
	f.bitmapLen = ((f.info.BlockSize/sectorSize+7)/8 + sectorSize - 1) &^ (sectorSize - 1)
	blocks := (f.info.Size + f.info.BlockSize - 1) / f.info.BlockSize
	if blocks > MaxBlocks {
		return unsupported("footer.current_size", "it is %d, %d blocks of %d bytes; at most %d blocks are read", f.info.Size, blocks, blockSize, MaxBlocks)
	}
	if entries := be.Uint32(b[dynOffEntries:]); int64(entries) < blocks {
		return corrupt("header.max_table_entries", "it is %d, a disk of %d bytes in blocks of %d takes %d", entries, f.info.Size, blockSize, blocks)
	}
	f.info.Blocks = int(blocks)
	table := be.Uint64(b[dynOffTable:])
	switch {
	case table < footerLen || table%sectorSize != 0 || table < uint64(off)+dynLen && uint64(off) < table+4*uint64(blocks):
		return corrupt("header.table_offset", "it is %d, right is a multiple of %d beside the header at %d", table, sectorSize, off)
	case table > uint64(f.end) || 4*blocks > f.end-int64(table):
		return incomplete("header.table_offset", "the BAT, %d bytes at %d, does not end within the file's %d bytes", 4*blocks, table, f.end)
	}
	return f.readTable(int64(table), off)
}

// readTable reads the BAT at off and checks every entry; the header lies at
// header.
func (f *File) readTable(off, header int64) error {
	const piece = 256 << 10
	blocks := f.info.Blocks
	f.table = make([]uint32, 0, blocks)
	buf := make([]byte, min(piece, 4*blocks))
	for len(f.table) < blocks {
		p := buf[:min(len(buf), 4*(blocks-len(f.table)))]
		if err := diskformat.ReadFull(f.r, p, off+4*int64(len(f.table))); err != nil {
			return fmt.Errorf("reading the BAT: %w", err)
		}
		for ; len(p) > 0; p = p[4:] {
			e := binary.BigEndian.Uint32(p)
			if e != unused {
				f.info.DataBlocks++
				if err := f.checkEntry(len(f.table), e, off, header); err != nil {
					return err
				}
			}
			f.table = append(f.table, e)
		}
	}
	return nil
}

// checkEntry checks that block i with its bitmap lies in the file, in nothing
// else's place. Of the disk's last block only what belongs to the disk must.
func (f *File) checkEntry(i int, e uint32, table, header int64) error {
	at := int64(e) * sectorSize
	n := f.bitmapLen + min(f.info.BlockSize, f.info.Size-int64(i)*f.info.BlockSize)
	overlaps := func(off, length int64) bool { return at < off+length && off < at+n }
	switch {
	case at > f.end || n > f.end-at:
		return incomplete("BAT", "block %d, %d bytes at %d, does not end within the file's %d bytes: the file was cut off", i, n, at, f.end)
	case overlaps(0, footerLen), overlaps(header, dynLen), overlaps(table, 4*int64(f.info.Blocks)):
		return corrupt("BAT", "block %d, %d bytes at %d, lies where the file's own structures are", i, n, at)
	}
	return nil
}

// parentName says the parent's file name, which the header b has in UTF-16.
func parentName(b []byte) string {
	u := make([]uint16, 0, parentNameLen/2)
	for p := b[dynOffParentName : dynOffParentName+parentNameLen]; len(p) > 0; p = p[2:] {
		u = append(u, binary.BigEndian.Uint16(p))
	}
	name, _, _ := strings.Cut(string(utf16.Decode(u)), "\x00")
	if name == "" {
		return ", which the file does not name"
	}
	return fmt.Sprintf(" %q", name)
}

// readBlock reads p from off, all within one block.
func (f *File) readBlock(p []byte, off int64) error {
	i := off / f.info.BlockSize
	if f.table[i] == unused {
		clear(p)
		return nil
	}
	bitmap, err := f.bitmap(i)
	if err != nil {
		return err
	}
	within := off % f.info.BlockSize
	data := int64(f.table[i])*sectorSize + f.bitmapLen
	for len(p) > 0 {
		n, stored := sectorRun(bitmap, within, int64(len(p)))
		if !stored {
			clear(p[:n])
		} else if err := diskformat.ReadFull(f.r, p[:n], data+within); err != nil {
			return err
		}
		p, within = p[n:], within+n
	}
	return nil
}

// sectorRun is how many bytes from off on, at most most, lie in sectors whose
// bits are alike, and whether they are set. A nil bitmap has all bits set.
func sectorRun(bitmap []byte, off, most int64) (n int64, stored bool) {
	if bitmap == nil {
		return most, true
	}
	bit := func(s int64) bool { return bitmap[s/8]&(0x80>>(s%8)) != 0 }
	s := off / sectorSize
	stored = bit(s)
	for n = sectorSize - off%sectorSize; n < most; n += sectorSize {
		if s++; bit(s) != stored {
			break
		}
	}
	return min(n, most), stored
}

// bitmaps keeps some of the bitmaps that were read last: at most 256, or
// 4 MiB with the largest blocks.
type bitmaps struct {
	mu    sync.Mutex
	slots [256]struct {
		next   int64 // block number + 1; 0: empty
		bitmap []byte
	}
}

// bitmap returns the bitmap of the stored block i; nil: all bits are set.
func (f *File) bitmap(i int64) ([]byte, error) {
	slot := &f.bitmaps.slots[i%int64(len(f.bitmaps.slots))]
	f.bitmaps.mu.Lock()
	b, ok := slot.bitmap, slot.next == i+1
	f.bitmaps.mu.Unlock()
	if ok {
		return b, nil
	}
	b = make([]byte, f.bitmapLen)
	if err := diskformat.ReadFull(f.r, b, int64(f.table[i])*sectorSize); err != nil {
		return nil, fmt.Errorf("reading the bitmap of block %d: %w", i, err)
	}
	if n, stored := sectorRun(b, 0, f.info.BlockSize); stored && n == f.info.BlockSize {
		b = nil
	}
	f.bitmaps.mu.Lock()
	slot.next, slot.bitmap = i+1, b
	f.bitmaps.mu.Unlock()
	return b, nil
}
