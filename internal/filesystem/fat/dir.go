package fat

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf16"

	"github.com/quickims/quickims/internal/filesystem"
)

// A directory entry and its attributes, DIR_Attr.
const (
	entrySize = 32

	attrVolume    = 0x08
	attrDirectory = 0x10
	attrLong      = 0x0f // read only, hidden, system and volume together
	attrLongMask  = 0x3f
)

// rootPiece is how much of the root directory of FAT12 and FAT16 is read at once.
const rootPiece = 128 * entrySize

// maxDirectory is the longest directory the format allows, 65536 entries.
const maxDirectory = entrySize << 16

// Node implements [filesystem.Volume]. The number is where the entry lies; one
// that was not given by Entries reads as whatever lies there, within bounds.
func (v *Volume) Node(id uint64) (filesystem.Node, error) {
	n, _, err := v.node(id)
	return n, err
}

// node gives the first cluster too, 0 for an empty file.
func (v *Volume) node(id uint64) (filesystem.Node, uint32, error) {
	if id == 0 {
		return filesystem.Node{Kind: filesystem.Directory, Size: v.rootSize}, v.rootCluster, nil
	}
	if id > uint64(v.src.Size()) {
		return filesystem.Node{}, 0, filesystem.Errorf(filesystem.ErrCorrupt, "a directory entry at %d", id)
	}
	e := make([]byte, entrySize)
	if err := v.src.ReadFull(e, int64(id)); err != nil {
		return filesystem.Node{}, 0, fmt.Errorf("the directory entry at %d: %w", id, err)
	}
	cluster := uint32(le.Uint16(e[26:]))
	if v.bits == 32 {
		cluster |= uint32(le.Uint16(e[20:])) << 16
	}
	n := filesystem.Node{ID: id, Kind: filesystem.Regular, Size: int64(le.Uint32(e[28:]))}
	if e[11]&attrDirectory != 0 {
		n.Kind, n.Size = filesystem.Directory, 0
	}
	return n, cluster, nil
}

// Target implements [filesystem.Volume]; FAT has no symbolic links.
func (v *Volume) Target(filesystem.Node) (string, error) {
	return "", filesystem.Errorf(filesystem.ErrUnsupported, "FAT has no symbolic links")
}

// ReadAt implements [filesystem.Volume].
func (v *Volume) ReadAt(file filesystem.Node, p []byte, off int64) (int, error) {
	n, cluster, err := v.node(file.ID)
	switch {
	case err != nil:
		return 0, err
	case n.Kind != filesystem.Regular || off < 0:
		return 0, fmt.Errorf("the entry at %d: reading a %s at %d", n.ID, n.Kind, off)
	case off >= n.Size:
		return 0, io.EOF
	}
	want := min(int64(len(p)), n.Size-off)
	if err := v.readChain(cluster, p[:want], off); err != nil {
		return 0, fmt.Errorf("the file of the entry at %d: %w", n.ID, err)
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// Entries implements [filesystem.Volume].
func (v *Volume) Entries(dir filesystem.Node) iter.Seq2[filesystem.Entry, error] {
	return func(yield func(filesystem.Entry, error) bool) {
		more := true
		err := v.eachEntry(dir.ID, func(e filesystem.Entry) bool {
			more = yield(e, nil)
			return more
		})
		if err != nil && more {
			yield(filesystem.Entry{}, fmt.Errorf("the directory of the entry at %d: %w", dir.ID, err))
		}
	}
}

func (v *Volume) eachEntry(id uint64, yield func(filesystem.Entry) bool) error {
	n, cluster, err := v.node(id)
	if err != nil {
		return err
	}
	if n.Kind != filesystem.Directory {
		return filesystem.Errorf(filesystem.ErrCorrupt, "it is a %s", n.Kind)
	}
	var long longName
	if id == 0 && v.bits != 32 {
		room := v.room.Take(rootPiece)
		defer v.room.Give(room)
		for off := int64(0); off < v.rootSize; off += rootPiece {
			b := room[:min(rootPiece, v.rootSize-off)]
			if err := v.src.ReadFull(b, v.rootAt+off); err != nil {
				return err
			}
			if !long.entries(b, v.rootAt+off, yield) {
				return nil
			}
		}
		return nil
	}
	if err := v.valid(cluster); err != nil {
		return err
	}
	b := v.room.Take(v.clusterSize)
	defer v.room.Give(b)
	for read := int64(0); read < maxDirectory; read += v.clusterSize {
		at := v.data + int64(cluster-2)*v.clusterSize
		if err := v.src.ReadFull(b, at); err != nil {
			return err
		}
		if !long.entries(b, at, yield) {
			return nil
		}
		next, more, err := v.next(cluster)
		if err != nil || !more {
			return err
		}
		cluster = next
	}
	return filesystem.Errorf(filesystem.ErrCorrupt, "it has more than the %d bytes that FAT allows", maxDirectory)
}

// longName gathers the pieces of a long name, which come before the entry they
// name, the last piece first.
type longName struct {
	units [20 * 13]uint16 // 20 pieces of 13 UTF-16 units
	next  int             // the number of the piece that must come next
	pairs int             // how many pieces the name has; 0: none
	sum   byte            // LDIR_Chksum, of the short name
}

// entries walks a part of a directory that lies at byte at, and is false when
// the directory or the caller's interest ended.
func (l *longName) entries(b []byte, at int64, yield func(filesystem.Entry) bool) bool {
	for off := 0; off+entrySize <= len(b); off += entrySize {
		e := b[off:][:entrySize]
		switch attr := e[11]; {
		case e[0] == 0:
			return false
		case e[0] == 0xe5: // deleted
			l.pairs = 0
		case attr&attrLongMask == attrLong:
			l.piece(e)
		case attr&attrVolume != 0: // the label
			l.pairs = 0
		default:
			name := l.name(e)
			l.pairs = 0
			if name != "." && name != ".." && !yield(filesystem.Entry{Name: name, ID: uint64(at) + uint64(off)}) {
				return false
			}
		}
	}
	return true
}

func (l *longName) piece(e []byte) {
	no := int(e[0] & 0x3f)
	if e[0]&0x40 != 0 { // the last piece, which comes first
		l.pairs, l.next, l.sum = no, no, e[13]
	}
	if no == 0 || no > len(l.units)/13 || l.pairs == 0 || no != l.next || e[13] != l.sum {
		l.pairs = 0
		return
	}
	l.next--
	units := l.units[(no-1)*13:][:13]
	for i, at := range [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		units[i] = le.Uint16(e[at:])
	}
}

// name is the long name, if a whole one came before the entry, or the short one.
func (l *longName) name(e []byte) string {
	if l.pairs > 0 && l.next == 0 && shortSum(e[:11]) == l.sum {
		units := l.units[:l.pairs*13]
		for i, u := range units {
			if u == 0 {
				units = units[:i]
				break
			}
		}
		return string(utf16.Decode(units))
	}
	base, ext := bytes.TrimRight(e[:8], " "), bytes.TrimRight(e[8:11], " ")
	s := ascii(base, e[12]&0x08 != 0)
	if len(base) > 0 && base[0] == 0x05 { // stands for E5, which marks the deleted
		s = "\ufffd" + s[1:]
	}
	if len(ext) > 0 {
		s += "." + ascii(ext, e[12]&0x10 != 0)
	}
	return s
}

// ascii spells a part of a short name; what is not ASCII depends on a code page
// that the disk does not name. Windows and Linux keep in DIR_NTRes whether the
// part was lower case.
func ascii(b []byte, lower bool) string {
	s := strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return '\ufffd'
		}
		return r
	}, string(b))
	if lower {
		s = strings.ToLower(s)
	}
	return s
}

// shortSum is the checksum of a short name that its long name's pieces carry.
func shortSum(name []byte) byte {
	var sum byte
	for _, c := range name {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}
