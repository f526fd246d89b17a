package faults

import (
	"net/http"
	"sync"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// inParts are settings with which a small disk is copied in parts.
var inParts = []string{"copy_parts_above: 1MiB", "copy_part_size: 5MiB"}

// TestKillWhileACopyIsInParts: a killed copy leaves no upload in the store, whether its
// job goes on or its image is gone.
func TestKillWhileACopyIsInParts(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]string{"begun": "upload.begun=kill", "at a part": ""} {
		for _, ends := range []string{"SUCCESS", "FAIL"} {
			t.Run(name+"/"+ends, func(t *testing.T) {
				t.Parallel()
				s := newS3Store(t, faults, inParts...)
				disk := harness.Disk(17, 8)
				s.upload(t, bucket, "disk.raw", disk)
				s.upload(t, bucket, "disk.mf", mfOf(t, disk))
				if faults == "" {
					var once sync.Once
					kill := func(r *http.Request) {
						if r.Method == http.MethodPut && r.URL.Query().Has("partNumber") {
							once.Do(func() { s.Kill(t) })
						}
					}
					s.seen.Store(&kill)
				}
				s.Accept(t, harness.Request("killed", bucket+":disk.raw"))
				s.Ended(t)
				if left := s.uploads(t); len(left) != 1 {
					t.Fatalf("the store has the uploads %q: this is not the moment to test", left)
				}
				want := 2
				if ends == "FAIL" {
					want = 0
					s.upload(t, bucket, "disk.raw", disk[:len(disk)/2]) // the source changes
				}
				s.Restart(t, "")
				harness.Eventually(t, "the import has ended, and nothing is left of the first attempt", func() bool {
					images := s.Images(t, "?status=active")
					if ends == "FAIL" {
						images = s.Images(t, "?status=killed")
					}
					return len(images) == 1 && len(s.uploads(t)) == 0 && len(s.stored(t)) == want
				})
			})
		}
	}
}
