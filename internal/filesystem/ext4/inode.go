package ext4

import (
	"errors"
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/filesystem"
)

// Flags of an inode, i_flags.
const (
	flagCompressed = 0x4
	flagEncrypted  = 0x800
	flagExtents    = 0x80000
	flagInlineData = 0x10000000
)

// maxFileSize is far above what any block size allows and keeps sums of an
// offset and a length from overflowing.
const maxFileSize = 1 << 60

// inode is an inode as it lies in the table.
type inode struct {
	filesystem.Node
	raw   []byte // s_inode_size bytes
	flags uint32
}

// block is i_block: the block map, the extent tree's root, or the data itself.
func (i *inode) block() []byte { return i.raw[0x28:0x64] }

func (v *Volume) inode(id uint64) (*inode, error) {
	n, err := v.readInode(id)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", id, err)
	}
	return n, nil
}

func (v *Volume) readInode(id uint64) (*inode, error) {
	if id == 0 || id > v.inodes {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "inodes have numbers from 1 to %d", v.inodes)
	}
	table, err := v.inodeTable((id - 1) / v.inodesPerGroup)
	if err != nil {
		return nil, err
	}
	in := (id - 1) % v.inodesPerGroup * uint64(v.inodeSize) // bytes into the table
	if table >= v.blocks || in/uint64(v.blockSize) >= v.blocks-table {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "its table begins at block %d of %d", table, v.blocks)
	}
	n := &inode{raw: make([]byte, v.inodeSize)}
	if err := v.src.ReadFull(n.raw, int64(table)*v.blockSize+int64(in)); err != nil {
		return nil, err
	}
	n.ID, n.flags = id, le.Uint32(n.raw[0x20:])
	size := uint64(le.Uint32(n.raw[0x4:]))
	switch le.Uint16(n.raw) & 0xf000 { // i_mode
	case 0x8000:
		n.Kind = filesystem.Regular
		size |= uint64(le.Uint32(n.raw[0x6c:])) << 32
	case 0x4000:
		n.Kind = filesystem.Directory
		if v.incompat&incompatLargeDir != 0 {
			size |= uint64(le.Uint32(n.raw[0x6c:])) << 32
		}
	case 0xa000:
		n.Kind = filesystem.Symlink
	case 0:
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "it is not in use")
	}
	if size > maxFileSize {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "i_size is %d", size)
	}
	n.Size = int64(size)
	return n, nil
}

// Node implements [filesystem.Volume].
func (v *Volume) Node(id uint64) (filesystem.Node, error) {
	n, err := v.inode(id)
	if err != nil {
		return filesystem.Node{}, err
	}
	return n.Node, nil
}

// Target implements [filesystem.Volume].
func (v *Volume) Target(link filesystem.Node) (string, error) {
	n, err := v.inode(link.ID)
	if err != nil {
		return "", err
	}
	if n.Kind != filesystem.Symlink || n.Size == 0 || n.Size > filesystem.MaxTarget {
		return "", filesystem.Errorf(filesystem.ErrCorrupt, "inode %d is no symbolic link of 1 to %d bytes", n.ID, filesystem.MaxTarget)
	}
	b := make([]byte, n.Size)
	// A short target lies in place of the block map.
	if n.flags&(flagExtents|flagInlineData|flagEncrypted) == 0 && n.Size < 60 {
		copy(b, n.block())
		return string(b), nil
	}
	if err := v.readFull(n, b, 0); err != nil {
		return "", fmt.Errorf("inode %d: %w", n.ID, err)
	}
	return string(b), nil
}

// ReadAt implements [filesystem.Volume].
func (v *Volume) ReadAt(file filesystem.Node, p []byte, off int64) (int, error) {
	n, err := v.inode(file.ID)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("inode %d: reading at %d", n.ID, off)
	}
	if off >= n.Size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), n.Size-off)
	if err := v.readFull(n, p[:want], off); err != nil {
		return 0, fmt.Errorf("inode %d: %w", n.ID, err)
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// readFull reads what lies within the node's size.
func (v *Volume) readFull(n *inode, p []byte, off int64) error {
	switch {
	case n.flags&flagEncrypted != 0:
		return filesystem.Errorf(filesystem.ErrUnsupported, "it is encrypted")
	case n.flags&flagCompressed != 0 && v.incompat&incompatExtents == 0:
		return filesystem.Errorf(filesystem.ErrUnsupported, "it may be compressed")
	case n.flags&flagInlineData != 0:
		data, err := v.inline(n)
		if err != nil {
			return err
		}
		if int64(len(data)) < off+int64(len(p)) {
			return filesystem.Errorf(filesystem.ErrCorrupt, "it has %d bytes of inline data and i_size %d", len(data), n.Size)
		}
		copy(p, data[off:])
		return nil
	}
	for len(p) > 0 {
		r, err := v.run(n, uint64(off/v.blockSize))
		if err != nil {
			return err
		}
		skip := off % v.blockSize
		// r.count is at most what one mapping can hold, 2³² blocks of 64 KiB.
		part := p[:min(int64(len(p)), int64(r.count)*v.blockSize-skip)]
		if r.data {
			if r.start == 0 || r.start >= v.blocks || r.count > v.blocks-r.start {
				return filesystem.Errorf(filesystem.ErrCorrupt, "%d blocks at %d reach beyond the %d there are", r.count, r.start, v.blocks)
			}
			err = v.src.ReadFull(part, int64(r.start)*v.blockSize+skip)
		} else {
			clear(part)
			err = v.src.Spend(int64(len(part)))
		}
		if err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// inline gives the data of an inode that keeps it in itself: the 60 bytes of
// i_block, and what does not fit there in the extended attribute system.data.
func (v *Volume) inline(n *inode) ([]byte, error) {
	data := append([]byte(nil), n.block()...)
	rest, err := inlineAttribute(n.raw)
	if errors.Is(err, errNoAttribute) {
		return data, nil
	}
	return append(data, rest...), err
}

var errNoAttribute = errors.New("no attribute")

// inlineAttribute finds the value of system.data among the attributes that
// follow the inode's fields.
func inlineAttribute(raw []byte) ([]byte, error) {
	const (
		magic       = 0xea020000
		entrySize   = 16
		indexSystem = 7
	)
	if len(raw) < 128+4 {
		return nil, errNoAttribute
	}
	at := 128 + int(le.Uint16(raw[0x80:])) // i_extra_isize
	if at+4 > len(raw) || le.Uint32(raw[at:]) != magic {
		return nil, errNoAttribute
	}
	list := raw[at+4:] // e_value_offs counts from here
	for e := list; len(e) >= entrySize && le.Uint32(e) != 0; {
		nameLen, index, off, size := int(e[0]), e[1], int(le.Uint16(e[2:])), le.Uint32(e[8:])
		if entrySize+nameLen > len(e) {
			return nil, filesystem.Errorf(filesystem.ErrCorrupt, "an extended attribute's name of %d bytes leaves the inode", nameLen)
		}
		if index == indexSystem && string(e[entrySize:entrySize+nameLen]) == "data" {
			if inode := le.Uint32(e[4:]); inode != 0 {
				return nil, filesystem.Errorf(filesystem.ErrUnsupported, "its inline data lies in inode %d", inode)
			}
			if off > len(list) || uint64(size) > uint64(len(list)-off) {
				return nil, filesystem.Errorf(filesystem.ErrCorrupt, "inline data of %d bytes at %d leaves the inode", size, off)
			}
			return list[off : off+int(size)], nil
		}
		e = e[min(len(e), entrySize+(nameLen+3)&^3):]
	}
	return nil, errNoAttribute
}
