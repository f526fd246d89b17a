package diskcheck

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
)

// tree is a Tree that notes what could not be read, so that no check has to tell
// it from what is not there. A check that found nothing says so with absent.
type tree struct {
	*filesystem.Tree
	c *checker
}

// maxProblems is how many unreadable things are listed.
const maxProblems = 10

func (c *checker) note(err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return
	}
	c.trouble++
	if text := shown(err.Error()); len(c.problems) < maxProblems && !slices.Contains(c.problems, text) {
		c.problems = append(c.problems, text)
	}
}

// absent makes a finding of something that is not there. If anything could not be
// read during the check, that is not certain, and the finding is Unknown.
func (c *checker) absent(id ID, s Severity, fix, found string) {
	if c.trouble > c.before {
		c.add(id, Unknown, "", "%s, as far as could be read", found)
		return
	}
	c.add(id, s, fix, "%s", found)
}

// unread says what was noted.
func (c *checker) unread() {
	if len(c.problems) > 0 {
		c.add(Storage, Unknown, "Check the file system on the machine it came from (fsck, xfs_repair), then make the image again.",
			"could not be read: %s", strings.Join(c.problems, "; "))
	}
}

func (t *tree) Stat(name string) (filesystem.Node, error) {
	n, err := t.Tree.Stat(name)
	t.c.note(err)
	return n, err
}

func (t *tree) Lstat(name string) (filesystem.Node, error) {
	n, err := t.Tree.Lstat(name)
	t.c.note(err)
	return n, err
}

func (t *tree) Readlink(name string) (string, error) {
	target, err := t.Tree.Readlink(name)
	t.c.note(err)
	return target, err
}

// any reports whether one of the paths exists.
func (t *tree) any(names ...string) bool { return slices.ContainsFunc(names, t.Exists) }

func (t *tree) Exists(name string) bool {
	_, err := t.Stat(name)
	return err == nil
}

func (t *tree) ReadDir(name string) ([]filesystem.Entry, error) {
	list, err := t.Tree.ReadDir(name)
	t.c.note(err)
	return list, err
}

func (t *tree) ReadFile(name string, limit int64) ([]byte, error) {
	b, err := t.Tree.ReadFile(name, limit)
	t.c.note(err)
	return b, err
}

func (t *tree) Open(name string) (*filesystem.File, error) {
	f, err := t.Tree.Open(name)
	t.c.note(err)
	return f, err
}

// alone is a volume as a tree of its own; nil if it can't be read.
func (c *checker) alone(v volume) *tree {
	if v.Volume == nil {
		return nil
	}
	t, err := filesystem.NewTree(v.Volume)
	if err != nil {
		c.note(err)
		return nil
	}
	return &tree{t, c}
}
