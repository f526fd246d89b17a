package ext4

import (
	"fmt"
	"iter"

	"github.com/quickims/quickims/internal/filesystem"
)

// Entries implements [filesystem.Volume]. The nodes of a hashed directory's tree
// look like blocks with one unused entry, so that reading from front to back
// finds every name.
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
	case n.flags&flagEncrypted != 0:
		return filesystem.Errorf(filesystem.ErrUnsupported, "it is encrypted")
	case n.Size > filesystem.MaxDirectory:
		return filesystem.Errorf(filesystem.ErrLimit, "it has %d bytes, at most %d are read", n.Size, filesystem.MaxDirectory)
	case n.flags&flagInlineData != 0:
		return v.inlineEntries(n, yield)
	}
	block := v.room.Take(v.blockSize)
	defer v.room.Give(block)
	for off := int64(0); off < n.Size; off += v.blockSize {
		r, err := v.run(n, uint64(off/v.blockSize))
		if err != nil {
			return err
		}
		if !r.data {
			if err := v.src.Spend(1); err != nil {
				return err
			}
			off += int64(r.count-1) * v.blockSize // Size bounds it before it can overflow
			continue
		}
		if err := v.readFull(n, block, off); err != nil {
			return err
		}
		if more, err := v.blockEntries(block, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// blockEntries walks the entries of a block: inode, rec_len, name_len,
// file_type, name.
func (v *Volume) blockEntries(b []byte, yield func(filesystem.Entry) bool) (more bool, err error) {
	const head = 8
	for len(b) >= head {
		id, size, nameLen := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6])
		if v.incompat&incompatFiletype == 0 && b[7] != 0 {
			return false, filesystem.Errorf(filesystem.ErrCorrupt, "an entry has a name of %d bytes", nameLen+int(b[7])<<8)
		}
		if size == 0 || size == 0xffff { // how 64 KiB are written in 16 bits
			size = 1 << 16
		}
		if size < head || size%4 != 0 || size > len(b) || nameLen > size-head {
			return false, filesystem.Errorf(filesystem.ErrCorrupt, "an entry of %d bytes with a name of %d, %d bytes before the end of its block",
				size, nameLen, len(b))
		}
		name := string(b[head : head+nameLen])
		if id != 0 && name != "." && name != ".." && nameLen > 0 {
			if !yield(filesystem.Entry{Name: name, ID: uint64(id)}) {
				return false, nil
			}
		}
		b = b[size:]
	}
	return true, nil
}

// inlineEntries: i_block holds the parent's number and then entries, the
// attribute further ones.
func (v *Volume) inlineEntries(n *inode, yield func(filesystem.Entry) bool) error {
	data, err := v.inline(n)
	if err != nil {
		return err
	}
	if n.Size > int64(len(data)) || n.Size < 60 {
		return filesystem.Errorf(filesystem.ErrCorrupt, "it has %d bytes of inline data and i_size %d", len(data), n.Size)
	}
	more, err := v.blockEntries(data[4:60], yield)
	if err == nil && more {
		_, err = v.blockEntries(data[60:n.Size], yield)
	}
	return err
}
