// Package filesystem reads files out of file systems that lie in a disk, without
// mounting them and without writing a byte.
//
// Terms. A [Source] is the disk or a part of it, read through a budget. A
// [Volume] is one file system in a Source: the packages ext4, xfs and fat below
// this one implement it, and package probe finds out which one fits. A node is
// what other texts call an inode: a file, directory or symbolic link, named by a
// number that has a meaning to its volume alone. A [Tree] puts volumes together
// at mount points and resolves paths in them.
//
// The bytes come from strangers. A symbolic link never leaves the Tree, whatever
// it names. Every loop here ends: by the size of the thing read, by a limit of
// this package, or by the Source's budget, which counts bytes that were served
// from memory too. A length is checked before memory is taken for it. Checksums
// of metadata are not verified, because whoever makes a hostile disk makes the
// checksums too; every value is checked against what the file system can hold.
//
// A journal is not replayed: of a file system that was not unmounted the last
// seconds may be missing ([Info].Dirty).
package filesystem

import (
	"errors"
	"fmt"
	"iter"
)

// The kinds of faults; test for them with [errors.Is]. What does not exist is
// [io/fs.ErrNotExist]. Other errors came from the disk or the context.
var (
	// ErrCorrupt: the bytes contradict the file system's format or each other.
	ErrCorrupt = errors.New("corrupt")
	// ErrTooLarge: the file system is larger than what it lies in. It is ErrCorrupt, too.
	ErrTooLarge = fmt.Errorf("%w, larger than its partition", ErrCorrupt)
	// ErrUnsupported: well formed, but with a feature that is not read here.
	ErrUnsupported = errors.New("unsupported")
	// ErrLimit: reading on would exceed a limit of this package or the budget.
	ErrLimit = errors.New("limit exceeded")
)

// Errorf makes an error of one of the kinds above.
func Errorf(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}

// Limits that all volumes keep.
const (
	// MaxDirectory is how many bytes of one directory are read.
	MaxDirectory = 32 << 20
	// MaxEntries is how many entries of one directory [Tree.ReadDir] returns.
	MaxEntries = 1 << 16
	// MaxTarget is the longest target of a symbolic link, Linux's PATH_MAX.
	MaxTarget = 4096
)

// Kind is what a node is.
type Kind uint8

// The kinds of nodes. Devices, sockets and pipes are Other.
const (
	Other Kind = iota
	Regular
	Directory
	Symlink
)

func (k Kind) String() string {
	switch k {
	case Regular:
		return "file"
	case Directory:
		return "directory"
	case Symlink:
		return "symbolic link"
	}
	return "special file"
}

// Node is a file, directory or symbolic link.
type Node struct {
	ID   uint64
	Kind Kind
	Size int64 // bytes, never negative
}

// Entry is a name in a directory.
type Entry struct {
	Name string
	ID   uint64 // of the node it names
}

// Info is what a volume says of itself.
type Info struct {
	Type  string // ext2, ext3, ext4, xfs or vfat, as blkid names them
	UUID  string // as blkid prints it; for vfat the serial number, as 1234-ABCD
	Label string
	// Dirty: it was not unmounted, and its journal holds changes that were not
	// written yet. Known for ext3 and ext4 alone.
	Dirty bool
}

// Volume is one file system. It is used by one goroutine at a time.
type Volume interface {
	Info() Info
	// Root is the number of the root directory.
	Root() uint64
	// Node looks up what a number names.
	Node(id uint64) (Node, error)
	// Entries gives the entries of a directory, without . and .., as they lie on
	// the disk. An error ends them. Names are what the disk says: they may hold
	// any byte.
	Entries(dir Node) iter.Seq2[Entry, error]
	// SameName reports whether the name asked for means the entry.
	SameName(asked, entry string) bool
	// Target reads a symbolic link, at most MaxTarget bytes.
	Target(link Node) (string, error)
	// ReadAt reads a regular file as [io.ReaderAt] does. Holes are zeros.
	ReadAt(file Node, p []byte, off int64) (int, error)
}
