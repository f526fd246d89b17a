package app

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"268435456": "256MiB", "256MiB": "256MiB", `"1 GiB"`: "1GiB", "17825793": "17825793", "1TiB": "1TiB",
		"15MiB": "", "256MB": "", "-1": "", "1.5GiB": "", "9000000TiB": "", "many": "", "MiB": "",
	} {
		file := filepath.Join(t.TempDir(), "quickims.yaml")
		if err := os.WriteFile(file, []byte("data: "+t.TempDir()+"\ncache:\n  memory: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(file)
		if err == nil {
			err = c.Validate()
		}
		switch {
		case want == "" && err == nil:
			t.Errorf("cache.memory: %s was taken for %s", text, c.Cache.Memory)
		case want != "" && (err != nil || c.Cache.Memory.String() != want):
			t.Errorf("cache.memory: %s is %s (%v), want %s", text, c.Cache.Memory, err, want)
		}
	}
}

func TestCacheFolderConfig(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		"{dir: cache, dir_size: 1GiB}": true, "{dir: /var/cache/quickims}": true, "{dir_size: 63MiB}": false, "{folder: x}": false,
	} {
		file := filepath.Join(t.TempDir(), "quickims.yaml")
		if err := os.WriteFile(file, []byte("data: "+t.TempDir()+"\ncache: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(file)
		if err == nil {
			err = c.Validate()
		}
		if (err == nil) != good || good && !filepath.IsAbs(c.Cache.Dir) {
			t.Errorf("cache: %s: dir %q, error %v", text, c.Cache.Dir, err)
		}
	}
}
