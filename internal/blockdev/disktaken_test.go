package blockdev

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCacheFolderFromOther: a cache takes the folder of one that uses it; the earlier one
// goes on and, at its end, leaves the folder to the later one.
func TestCacheFolderFromOther(t *testing.T) {
	t.Parallel()
	opts := CacheOptions{Memory: MinMemory, Dir: filepath.Join(t.TempDir(), "cache"), DirSize: MinDir}
	first, err := NewCache(opts)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := NewCache(opts); err == nil {
		c.Close()
		t.Fatal("two caches use one folder")
	}
	opts.DirFromOther = true
	second, err := NewCache(opts)
	if err != nil {
		t.Fatal(err)
	}
	if first.disk == nil || second.disk == nil {
		t.Fatal("one of the two is without its folder")
	}
	opts.DirFromOther = false
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{diskLock, diskBlocks} {
		if _, err := os.Stat(filepath.Join(opts.Dir, name)); err != nil {
			t.Errorf("the first took a file of the second away: %v", err)
		}
	}
	if c, err := NewCache(opts); err == nil {
		c.Close()
		t.Error("the folder of the second is free")
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(opts.Dir); err != nil || len(list) > 0 {
		t.Errorf("%d files are left, %v", len(list), err)
	}
}
