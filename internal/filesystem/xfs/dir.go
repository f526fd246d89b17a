package xfs

import (
	"fmt"
	"iter"

	"github.com/quickims/quickims/internal/filesystem"
)

// leafOffset is where in a directory's address space the hash index begins
// (XFS_DIR2_LEAF_OFFSET); the names lie before it.
const leafOffset = 32 << 30

// Entries implements [filesystem.Volume].
func (v *Volume) Entries(dir filesystem.Node) iter.Seq2[filesystem.Entry, error] {
	return func(yield func(filesystem.Entry, error) bool) {
		more := true
		err := v.eachEntry(dir.ID, func(e filesystem.Entry) bool {
			more = yield(e, nil)
			return more
		})
		if err != nil && more {
			yield(filesystem.Entry{}, fmt.Errorf("directory inode %d: %w", dir.ID, err))
		}
	}
}

func (v *Volume) eachEntry(id uint64, yield func(filesystem.Entry) bool) error {
	n, err := v.readInode(id)
	switch {
	case err != nil:
		return err
	case n.Kind != filesystem.Directory:
		return filesystem.Errorf(filesystem.ErrCorrupt, "it is a %s", n.Kind)
	case n.form == formLocal:
		return v.shortEntries(n, yield)
	case n.Size > filesystem.MaxDirectory:
		return filesystem.Errorf(filesystem.ErrLimit, "it has %d bytes, at most %d are read", n.Size, filesystem.MaxDirectory)
	}
	// A directory of one block holds its index in it, a larger one behind
	// leafOffset; di_size counts the blocks of names alone, so the limit above
	// keeps off below leafOffset.
	block := make([]byte, v.dirBlockSize)
	for off := int64(0); off < n.Size; {
		r, err := v.run(n, uint64(off>>v.blockLog))
		if err != nil {
			return err
		}
		if !r.data {
			if err := v.src.Spend(1); err != nil {
				return err
			}
			if r.count >= leafOffset>>v.blockLog {
				return nil
			}
			off = (off + int64(r.count)<<v.blockLog + v.dirBlockSize - 1) &^ (v.dirBlockSize - 1)
			continue
		}
		if err := v.readFull(n, block, off); err != nil {
			return err
		}
		if more, err := v.blockEntries(block, yield); err != nil || !more {
			return err
		}
		off += v.dirBlockSize
	}
	return nil
}

// shortEntries reads a directory that lies in its inode: the number of entries,
// of those that need 64 bits, the parent, then names and numbers.
func (v *Volume) shortEntries(n *inode, yield func(filesystem.Entry) bool) error {
	b := n.fork
	if n.Size < 6 || n.Size > int64(len(b)) {
		return filesystem.Errorf(filesystem.ErrCorrupt, "di_size is %d with %d bytes in the inode", n.Size, len(b))
	}
	b = b[:n.Size]
	count, idSize := int(b[0]), 4
	if b[1] != 0 {
		idSize = 8
	}
	if len(b) < 2+idSize {
		return filesystem.Errorf(filesystem.ErrCorrupt, "di_size is %d", n.Size)
	}
	b = b[2+idSize:]
	kind := 0
	if v.ftype {
		kind = 1
	}
	for range count {
		if len(b) < 3 || len(b) < 3+int(b[0])+kind+idSize {
			return filesystem.Errorf(filesystem.ErrCorrupt, "%d entries do not fit in %d bytes", count, n.Size)
		}
		name := string(b[3 : 3+int(b[0])])
		b = b[3+len(name)+kind:]
		id := uint64(be.Uint32(b))
		if idSize == 8 {
			id = be.Uint64(b)
		}
		b = b[idSize:]
		if name != "" && !yield(filesystem.Entry{Name: name, ID: id}) {
			return nil
		}
	}
	return nil
}

// blockEntries walks a block of names. Each entry is a number, a name, its kind
// and its own position, in multiples of 8 bytes; unused space begins with FFFF
// and its length.
func (v *Volume) blockEntries(b []byte, yield func(filesystem.Entry) bool) (more bool, err error) {
	head := 16
	if v.v5 {
		head = 64
	}
	end := len(b)
	switch magic := string(b[:4]); magic {
	case "XD2D", "XDD3":
	case "XD2B", "XDB3": // the index and its length lie at the end
		index := uint64(be.Uint32(b[len(b)-8:]))
		if index > uint64(len(b)-head-8)/8 {
			return false, filesystem.Errorf(filesystem.ErrCorrupt, "a block of %d bytes has an index of %d entries", len(b), index)
		}
		end -= 8 + int(index)*8
	default:
		return false, filesystem.Errorf(filesystem.ErrCorrupt, "a block begins with %q", magic)
	}
	for b = b[head:end]; len(b) >= 8; {
		size := 0
		if be.Uint16(b) == 0xffff {
			size = int(be.Uint16(b[2:]))
			if size == 0 || size%8 != 0 || size > len(b) {
				return false, filesystem.Errorf(filesystem.ErrCorrupt, "%d unused bytes, %d before the end of the names", size, len(b))
			}
			b = b[size:]
			continue
		}
		if len(b) < 9 {
			break
		}
		nameLen := int(b[8])
		size = 8 + 1 + nameLen + 2
		if v.ftype {
			size++
		}
		size = (size + 7) &^ 7
		if nameLen == 0 || size > len(b) {
			return false, filesystem.Errorf(filesystem.ErrCorrupt, "a name of %d bytes, %d before the end of the names", nameLen, len(b))
		}
		name, id := string(b[9:9+nameLen]), be.Uint64(b)
		if name != "." && name != ".." && !yield(filesystem.Entry{Name: name, ID: id}) {
			return false, nil
		}
		b = b[size:]
	}
	return true, nil
}
