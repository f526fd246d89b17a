package faults

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

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
