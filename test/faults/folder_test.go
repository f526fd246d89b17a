package faults

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/test/harness"
)

// TestReadsFromTheFolder: what was read once is read after kill -9 without a request to the
// store, opening included, also while the store fails; and what an image was deleted with
// goes from the folder.
func TestReadsFromTheFolder(t *testing.T) {
	t.Parallel()
	s := newS3Store(t, "")
	opts, folder := s.Options(), filepath.Join(t.TempDir(), "cache")
	opts.Dir = s.Dir
	opts.Config += fmt.Sprintf("\ncache:\n  dir: %s\n  dir_size: 1GiB\n", folder)
	s.Kill(t)
	s.Server = harness.Start(t, opts)
	var gets atomic.Int64
	seen := func(r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/"+imageBucket+"/") && (strings.HasSuffix(r.URL.Path, "/disk") || strings.HasSuffix(r.URL.Path, "/bitmap")) {
			gets.Add(1)
		}
	}
	s.seen.Store(&seen)
	disk := harness.Disk(8, 12)
	s.upload(t, bucket, "framed.zvhd2", zvhd2Of(t, disk))
	s.upload(t, bucket, "disk.raw", disk)
	s.upload(t, bucket, "disk.mf", mfOf(t, disk))
	images := []string{s.Import(t, harness.Request("framed", bucket+":framed.zvhd2")), s.Import(t, harness.Request("raw", bucket+":disk.raw"))}
	read := func() {
		for _, image := range images {
			s.CheckBytes(t, image, disk)
		}
	}
	// What waited to be written when the process was killed is read from the store again.
	for round := 0; ; round++ {
		gets.Store(0)
		read()
		if gets.Load() == 0 {
			break
		}
		if round == 5 {
			t.Fatalf("after %d rounds there are %d reads of the store", round, gets.Load())
		}
		s.Kill(t)
		s.Restart(t, "")
	}
	s.fail.Store(1 << 40)
	read()
	if m := s.Metrics(t); !strings.Contains(m, "quickims_cache_disk_bad_pages_total 0\n") || !strings.Contains(m, "quickims_cache_disk_errors_total 0\n") || strings.Contains(m, "quickims_cache_disk_hits_total 0\n") {
		t.Errorf("the metrics:\n%s", m)
	}
	s.fail.Store(0)
	if a := s.Do(t, "DELETE", "/v2/images/"+images[0], nil); a.Status != http.StatusNoContent {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	s.Kill(t)
	s.Restart(t, "") // it looks at once
	harness.Eventually(t, "the deleted image's pages go", func() bool {
		files, err := filepath.Glob(filepath.Join(folder, "*.data"))
		return err == nil && len(files) == 2 // disk and bitmap of the other
	})
	read = func() { s.CheckBytes(t, images[1], disk) }
	gets.Store(0)
	if read(); gets.Load() > 0 {
		t.Errorf("%d reads of the store for the image that stays", gets.Load())
	}
}

// TestTakeOverOfTheFolder: the process that takes over gets the cache folder with all that
// is in it, once the process before has ended; a machine reads on without the store.
func TestTakeOverOfTheFolder(t *testing.T) {
	t.Parallel()
	s := newS3Store(t, "")
	opts := s.Options()
	opts.Dir, opts.NBD = s.Dir, true
	opts.Config += fmt.Sprintf("\ncache:\n  dir: %s\n  dir_size: 1GiB\n", filepath.Join(t.TempDir(), "cache"))
	s.Kill(t)
	s.Server = harness.Start(t, opts)
	disk := harness.Disk(10, 8)
	s.upload(t, bucket, "disk.zvhd2", zvhd2Of(t, disk))
	u, err := url.Parse(s.Attach(t, s.Import(t, harness.Request("a", bucket+":disk.zvhd2"))).URI)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nbdtest.Dial(t.Context(), "tcp", u.Host, nbdtest.Config{Export: strings.TrimPrefix(u.Path, "/")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	read := func() {
		t.Helper()
		got := make([]byte, len(disk))
		for off := 0; off < len(disk); off += 1 << 20 {
			if err := c.Read(got[off:off+1<<20], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, disk) {
			t.Fatal("the bytes are wrong")
		}
	}
	// The first process fills the folder, a second one what the disk had no time for.
	for range 3 {
		read()
		if !s.TakeOver(t, "") {
			t.Fatalf("the new process did not take over:\n%s", s.Log())
		}
		harness.Eventually(t, "the new process has the folder", func() bool { return strings.Contains(s.Metrics(t), "quickims_cache_disk_off 0\n") })
	}
	s.fail.Store(1 << 40)
	read()
	if m := s.Metrics(t); !strings.Contains(m, "quickims_cache_disk_bad_pages_total 0\n") || !strings.Contains(m, "quickims_cache_disk_errors_total 0\n") || strings.Contains(m, "quickims_cache_disk_hits_total 0\n") {
		t.Errorf("the metrics:\n%s", m)
	}
	s.fail.Store(0)
}
