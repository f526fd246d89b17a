package vhd

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/quickims/quickims/internal/diskformat"
)

// Where the fields of the footer lie.
const (
	cookie = "conectix"

	offVersion    = 12
	offDataOffset = 16
	offCreator    = 28
	offSize       = 48 // current size
	offCylinders  = 56
	offHeads      = 58
	offSectors    = 59
	offDiskType   = 60
	offChecksum   = 64
	offUUID       = 68

	footerLen = 512
	// oldFooterLen is that of files made before Virtual PC 2004; the byte that
	// is missing counts as zero.
	oldFooterLen = 511
)

// Kinds of disks, footer.disk_type.
const (
	typeFixed   = 2
	typeDynamic = 3
	typeDiff    = 4
)

// footer is what reading takes of the footer.
type footer struct {
	dataOffset uint64
	size       int64
	geometry   int64
	diskType   uint32
	creator    string
	uuid       [16]byte
	// otherUUID: the copy at the front has another one.
	otherUUID bool
}

// findFooter reads the file's end and its front and returns the footer, and
// where it begins; if only the copy at the front is sound, the file's size.
//
// The end is looked at first: it is the footer, and a fixed disk begins with
// what its guest wrote, which might look like the copy of a footer.
func findFooter(r io.ReaderAt, size int64) (*footer, int64, error) {
	tail := make([]byte, min(size, footerLen))
	if err := diskformat.ReadFull(r, tail, size-int64(len(tail))); err != nil {
		return nil, 0, fmt.Errorf("reading the file's end: %w", err)
	}
	front := make([]byte, min(size, footerLen))
	if err := diskformat.ReadFull(r, front, 0); err != nil {
		return nil, 0, fmt.Errorf("reading the file's front: %w", err)
	}
	hasCopy := hasCookie(front) && size >= 2*footerLen

	var last *footer
	var end int64
	var lastErr error
	for _, n := range []int{footerLen, oldFooterLen} {
		if len(tail) < n || !hasCookie(tail[len(tail)-n:]) {
			continue
		}
		b := append(tail[len(tail)-n:], 0)[:footerLen:footerLen]
		end = size - int64(n)
		last, lastErr = parseFooter(b, "footer")
		break
	}
	// Too short for more than the copy. What is whole in that is a fixed disk.
	cut := hasCookie(front) && !hasCopy && (last == nil || last.diskType != typeFixed)
	switch {
	case last == nil && !hasCopy && lastErr != nil:
		return nil, 0, lastErr
	case cut:
		return nil, 0, incomplete("footer copy", "the file begins with %q and has %d bytes, not even the footer's copy and the header: it was cut off; get it whole", cookie, size)
	case last == nil && !hasCopy:
		return nil, 0, diskformat.Errorf(diskformat.VHD, diskformat.ErrWrongFormat, "footer.cookie", "neither the end nor the front of the file carries %q", cookie)
	case last != nil && !hasCopy && last.diskType == typeFixed:
		return last, end, nil
	case last != nil && !hasCopy:
		return nil, 0, corrupt("footer copy", "the file does not begin with %q, as one that is not a fixed disk must", cookie)
	}

	first, err := parseFooter(front, "footer copy")
	switch {
	case last != nil && last.diskType == typeFixed:
		return nil, 0, diskformat.Errorf(diskformat.VHD, diskformat.ErrAmbiguous, "footer copy",
			"the file ends as a fixed disk but also begins with %q: readers may see two different disks in it", cookie)
	case last != nil && err != nil:
		return nil, 0, err
	case last != nil && !first.same(last):
		return nil, 0, diskformat.Errorf(diskformat.VHD, diskformat.ErrAmbiguous, "footer copy",
			"the footer and its copy at the front differ: readers may see two different disks in the file")
	case last != nil:
		last.otherUUID = first.uuid != last.uuid
		return last, end, nil
	case err != nil:
		return nil, 0, err
	case first.diskType == typeFixed:
		return nil, 0, incomplete("footer", "the file begins with the footer of a fixed disk, which belongs at its end")
	}
	return first, size, nil
}

func hasCookie(b []byte) bool {
	return len(b) >= len(cookie) && string(b[:len(cookie)]) == cookie
}

// same tells whether both describe the same disk. Tools that give a copy of a file a
// UUID of its own may change it in one of the two alone.
func (f *footer) same(g *footer) bool {
	return f.dataOffset == g.dataOffset && f.size == g.size && f.diskType == g.diskType
}

// checksum is the complement of the sum of all bytes but the checksum itself,
// which lies at off.
func checksum(b []byte, off int) uint32 {
	sum := uint32(0)
	for i, x := range b {
		if i < off || i >= off+4 {
			sum += uint32(x)
		}
	}
	return ^sum
}

// parseFooter checks the 512 bytes of a footer. name says which one.
func parseFooter(b []byte, name string) (*footer, error) {
	be := binary.BigEndian
	field := func(s string) string { return name + "." + s }
	if sum, want := checksum(b, offChecksum), be.Uint32(b[offChecksum:]); sum != want {
		return nil, corrupt(field("checksum"), "it is %#08x, the bytes make %#08x", want, sum)
	}
	if v := be.Uint32(b[offVersion:]); v>>16 != 1 {
		return nil, unsupported(field("file_format_version"), "it is %d.%d, 1.0 is read", v>>16, v&0xffff)
	}
	f := &footer{
		dataOffset: be.Uint64(b[offDataOffset:]),
		geometry:   int64(be.Uint16(b[offCylinders:])) * int64(b[offHeads]) * int64(b[offSectors]) * sectorSize,
		diskType:   be.Uint32(b[offDiskType:]),
		creator:    string(b[offCreator : offCreator+4]),
		uuid:       [16]byte(b[offUUID:]),
	}
	most := uint64(MaxDynamicSize)
	switch f.diskType {
	case typeFixed:
		most = MaxDiskSize
	case typeDynamic, typeDiff:
	default:
		return nil, unsupported(field("disk_type"), "it is %d, 2 (fixed) and 3 (dynamic) are read", f.diskType)
	}
	switch size := be.Uint64(b[offSize:]); {
	case size > most:
		return nil, unsupported(field("current_size"), "it is %d, at most %d is read", size, most)
	case size%sectorSize != 0:
		return nil, corrupt(field("current_size"), "it is %d, no multiple of %d", size, sectorSize)
	default:
		f.size = int64(size)
	}
	if f.diskType != typeFixed && (f.dataOffset < footerLen || f.dataOffset > math.MaxInt64/2 || f.dataOffset%sectorSize != 0) {
		return nil, corrupt(field("data_offset"), "it is %d, right is a multiple of %d after the footer's copy", f.dataOffset, sectorSize)
	}
	return f, nil
}
