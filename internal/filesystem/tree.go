package filesystem

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Limits of one path.
const (
	maxLinks = 40       // symbolic links followed in one path, Linux's MAXSYMLINKS
	maxSteps = 4 * 1024 // names looked up for one path, links included
)

// Tree is volumes put together at mount points: what a machine would see that
// mounted them. Paths begin at its root, with or without a slash; a symbolic
// link is followed inside the Tree, and .. above the root is the root.
type Tree struct {
	root   place
	mounts []mount
}

type place struct {
	vol  Volume
	node Node
	up   *place // the directory that holds it; nil at the root
}

type mount struct {
	on   Volume
	id   uint64
	vol  Volume
	node Node
}

// NewTree makes a Tree of one volume.
func NewTree(root Volume) (*Tree, error) {
	n, err := rootNode(root)
	if err != nil {
		return nil, err
	}
	return &Tree{root: place{vol: root, node: n}}, nil
}

func rootNode(v Volume) (Node, error) {
	n, err := v.Node(v.Root())
	if err == nil && n.Kind != Directory {
		err = Errorf(ErrCorrupt, "it is a %s", n.Kind)
	}
	if err != nil {
		return Node{}, fmt.Errorf("the root directory: %w", err)
	}
	return n, nil
}

// Mount lays a volume over the directory at a path; what the directory holds is
// no longer seen.
func (t *Tree) Mount(at string, v Volume) error {
	root, err := rootNode(v)
	if err != nil {
		return fmt.Errorf("mounting at %s: %w", at, err)
	}
	p, err := t.walk(at, true)
	if err != nil {
		return err
	}
	if p.node.Kind != Directory {
		return Errorf(ErrCorrupt, "mounting at %s: it is a %s", at, p.node.Kind)
	}
	t.mounts = append(t.mounts, mount{on: p.vol, id: p.node.ID, vol: v, node: root})
	return nil
}

// Stat looks a path up and follows a symbolic link at its end.
func (t *Tree) Stat(name string) (Node, error) {
	p, err := t.walk(name, true)
	return p.node, err
}

// Lstat looks a path up and does not follow a symbolic link at its end.
func (t *Tree) Lstat(name string) (Node, error) {
	p, err := t.walk(name, false)
	return p.node, err
}

// Readlink gives the target of the symbolic link at the end of a path. A path that
// ends at something else is [io/fs.ErrInvalid].
func (t *Tree) Readlink(name string) (string, error) {
	p, err := t.walk(name, false)
	if err != nil {
		return "", err
	}
	if p.node.Kind != Symlink {
		return "", fmt.Errorf("reading the link %s: it is a %s: %w", name, p.node.Kind, fs.ErrInvalid)
	}
	return p.target(name)
}

// ReadDir lists a directory, sorted by name. A name with a slash or a zero byte,
// which no path can mean, is left out.
func (t *Tree) ReadDir(name string) ([]Entry, error) {
	p, err := t.walk(name, true)
	if err != nil {
		return nil, err
	}
	if p.node.Kind != Directory {
		return nil, fmt.Errorf("listing %s: it is a %s, not a directory: %w", name, p.node.Kind, fs.ErrInvalid)
	}
	var list []Entry
	for e, err := range p.vol.Entries(p.node) {
		if err == nil && len(list) == MaxEntries {
			err = Errorf(ErrLimit, "it has more than %d entries", MaxEntries)
		}
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", name, err)
		}
		if e.Name != "" && !strings.ContainsAny(e.Name, "/\x00") {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (p place) target(name string) (string, error) {
	s, err := p.vol.Target(p.node)
	if err != nil {
		return "", fmt.Errorf("reading the link %s: %w", name, err)
	}
	return s, nil
}

// ReadFile reads a regular file of at most limit bytes; a longer one is ErrLimit.
func (t *Tree) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := t.Open(name)
	if err != nil {
		return nil, err
	}
	if f.Size() > limit {
		return nil, fmt.Errorf("reading %s: %w", name, Errorf(ErrLimit, "it has %d bytes, at most %d are read", f.Size(), limit))
	}
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b, nil
}

// Open opens a regular file.
func (t *Tree) Open(name string) (*File, error) {
	p, err := t.walk(name, true)
	if err != nil {
		return nil, err
	}
	if p.node.Kind != Regular {
		return nil, fmt.Errorf("opening %s: it is a %s, not a file: %w", name, p.node.Kind, fs.ErrInvalid)
	}
	return &File{vol: p.vol, node: p.node}, nil
}

// File is an open regular file. It needs no closing.
type File struct {
	vol  Volume
	node Node
}

// Size in bytes.
func (f *File) Size() int64 { return f.node.Size }

// ReadAt implements [io.ReaderAt], but for one goroutine at a time.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.vol.ReadAt(f.node, p, off) }

// Reader reads the file from its beginning, in pieces of 256 KiB.
func (f *File) Reader() io.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(f, 0, f.node.Size), int(min(f.node.Size, 256<<10)))
}

// walk resolves a path. The names still to look up are kept in one list, into
// which the target of a link is put, so that no recursion is needed.
func (t *Tree) walk(name string, follow bool) (place, error) {
	if len(name) > MaxTarget {
		return place{}, Errorf(ErrLimit, "a path of %d bytes, at most %d are allowed", len(name), MaxTarget)
	}
	at := t.root
	todo := strings.Split(name, "/")
	links := 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps == maxSteps {
			return place{}, fmt.Errorf("%s: %w", name, Errorf(ErrLimit, "its symbolic links lead through more than %d names", maxSteps))
		}
		next := todo[0]
		todo = todo[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			if at.up != nil {
				at = *at.up
			}
			continue
		}
		if at.node.Kind != Directory {
			return place{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		n, err := lookup(at, next)
		if err != nil {
			return place{}, fmt.Errorf("%s: %w", name, err)
		}
		here := at
		child := t.over(place{vol: at.vol, node: n, up: &here})
		if n.Kind != Symlink || len(todo) == 0 && !follow {
			at = child
			continue
		}
		if links++; links > maxLinks {
			return place{}, fmt.Errorf("%s: %w", name, Errorf(ErrLimit, "more than %d symbolic links", maxLinks))
		}
		target, err := child.target(name)
		if err != nil {
			return place{}, err
		}
		if strings.HasPrefix(target, "/") {
			at = t.root
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, nil
}

// over gives the volume that is mounted on a place, or the place.
func (t *Tree) over(p place) place {
	for i := len(t.mounts) - 1; i >= 0; i-- {
		if m := t.mounts[i]; m.on == p.vol && m.id == p.node.ID {
			return place{vol: m.vol, node: m.node, up: p.up}
		}
	}
	return p
}

func lookup(dir place, name string) (Node, error) {
	for e, err := range dir.vol.Entries(dir.node) {
		if err != nil {
			return Node{}, err
		}
		if dir.vol.SameName(name, e.Name) {
			return dir.vol.Node(e.ID)
		}
	}
	return Node{}, fs.ErrNotExist
}
