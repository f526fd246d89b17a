package xfs

import (
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/filesystem"
)

// Forms of a fork, di_format.
const (
	formLocal   = 1
	formExtents = 2
	formTree    = 3
)

// Sizes of the fields before the data fork: versions 1 and 2, and 3.
const (
	coreSize2 = 100
	coreSize3 = 176
)

const (
	flagRealtime   = 0x1  // di_flags
	flag2BigExtent = 0x10 // di_flags2, XFS_DIFLAG2_NREXT64
)

// maxFileSize is far above what any machine uses and keeps sums of an offset
// and a length from overflowing.
const maxFileSize = 1 << 60

// inode is a node with its data fork.
type inode struct {
	filesystem.Node
	form     byte
	fork     []byte // the data fork
	extents  uint64 // di_nextents, of the form formExtents
	realtime bool
}

func (v *Volume) inode(id uint64) (*inode, error) {
	n, err := v.readInode(id)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", id, err)
	}
	return n, nil
}

func (v *Volume) readInode(id uint64) (*inode, error) {
	at, err := v.position(id>>v.inopLog, 1)
	if err != nil {
		return nil, err
	}
	b := make([]byte, v.inodeSize)
	if err := v.src.ReadFull(b, at+int64(id&(1<<v.inopLog-1))*v.inodeSize); err != nil {
		return nil, err
	}
	corrupt := func(format string, args ...any) (*inode, error) {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, format, args...)
	}
	if string(b[:2]) != "IN" {
		return corrupt("di_magic is %q, it must be %q", b[:2], "IN")
	}
	core := coreSize2
	switch version := b[4]; {
	case version == 3 && v.v5:
		core = coreSize3
		if be.Uint64(b[152:]) != id {
			return corrupt("di_ino is %d", be.Uint64(b[152:]))
		}
	case v.v5 || version < 1 || version > 2:
		return corrupt("di_version is %d", version)
	}
	n := &inode{form: b[5], fork: b[core:], extents: uint64(be.Uint32(b[76:])), realtime: be.Uint16(b[90:])&flagRealtime != 0}
	if core == coreSize3 && v.nrext64 && be.Uint64(b[120:])&flag2BigExtent != 0 {
		n.extents = be.Uint64(b[24:])
	}
	if off := int(b[82]) * 8; off != 0 { // di_forkoff: where the attributes begin
		if off > len(n.fork) {
			return corrupt("di_forkoff is %d bytes of %d", off, len(n.fork))
		}
		n.fork = n.fork[:off]
	}
	switch be.Uint16(b[2:]) & 0xf000 { // di_mode
	case 0x8000:
		n.Kind = filesystem.Regular
	case 0x4000:
		n.Kind = filesystem.Directory
	case 0xa000:
		n.Kind = filesystem.Symlink
	case 0:
		return corrupt("it is not in use")
	}
	size := be.Uint64(b[56:])
	if size > maxFileSize {
		return corrupt("di_size is %d", size)
	}
	n.ID, n.Size = id, int64(size)
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

// readFull reads from the blocks of a fork, holes as zeros.
func (v *Volume) readFull(n *inode, p []byte, off int64) error {
	if n.realtime {
		return filesystem.Errorf(filesystem.ErrUnsupported, "its data lies in the realtime section")
	}
	for len(p) > 0 {
		r, err := v.run(n, uint64(off>>v.blockLog))
		if err != nil {
			return err
		}
		skip := off & (v.blockSize - 1)
		part := p
		if blocks := uint64(len(p))>>v.blockLog + 2; r.count < blocks {
			part = p[:min(int64(len(p)), int64(r.count)<<v.blockLog-skip)]
		}
		if r.data {
			at, err := v.position(r.start, r.count)
			if err != nil {
				return err
			}
			if err := v.src.ReadFull(part, at+skip); err != nil {
				return err
			}
		} else {
			clear(part)
			if err := v.src.Spend(int64(len(part))); err != nil {
				return err
			}
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// Target implements [filesystem.Volume]. A target that does not fit into the
// inode lies in blocks; in version 5 each piece of them has a header.
func (v *Volume) Target(link filesystem.Node) (string, error) {
	n, err := v.inode(link.ID)
	if err != nil {
		return "", err
	}
	s, err := v.target(n)
	if err != nil {
		return "", fmt.Errorf("inode %d: %w", n.ID, err)
	}
	return s, nil
}

func (v *Volume) target(n *inode) (string, error) {
	if n.Kind != filesystem.Symlink || n.Size == 0 || n.Size > filesystem.MaxTarget {
		return "", filesystem.Errorf(filesystem.ErrCorrupt, "it is no symbolic link of 1 to %d bytes", filesystem.MaxTarget)
	}
	if n.form == formLocal {
		if n.Size > int64(len(n.fork)) {
			return "", filesystem.Errorf(filesystem.ErrCorrupt, "a target of %d bytes in %d", n.Size, len(n.fork))
		}
		return string(n.fork[:n.Size]), nil
	}
	const headSize, headMagic = 56, "XSLM"
	var target []byte
	for block := uint64(0); int64(len(target)) < n.Size; {
		r, err := v.run(n, block)
		if err != nil {
			return "", err
		}
		if !r.data {
			return "", filesystem.Errorf(filesystem.ErrCorrupt, "there is a hole in its target")
		}
		// The whole target and its header fit in few blocks, whatever the run.
		piece := make([]byte, min(int64(min(r.count, 16))<<v.blockLog, n.Size-int64(len(target))+headSize))
		at, err := v.position(r.start, r.count)
		if err != nil {
			return "", err
		}
		if err := v.src.ReadFull(piece, at); err != nil {
			return "", err
		}
		if v.v5 {
			if string(piece[:4]) != headMagic {
				return "", filesystem.Errorf(filesystem.ErrCorrupt, "sl_magic is %q, it must be %q", piece[:4], headMagic)
			}
			piece = piece[headSize:]
		}
		target = append(target, piece[:min(int64(len(piece)), n.Size-int64(len(target)))]...)
		block += r.count
	}
	return string(target), nil
}
