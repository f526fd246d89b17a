package serve

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/test/harness"
)

// saving is a server on which an import stands still while its image is saving.
type saving struct {
	*harness.Server
	hold       string
	job, image string
}

// startSaving imports a disk as far as the fault point.
func startSaving(t *testing.T, key string, disk []byte, point string) *saving {
	t.Helper()
	hold := filepath.Join(t.TempDir(), "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &saving{hold: hold, Server: harness.Start(t, harness.Options{
		NBD: true, Faults: point + "=hold", Env: []string{"QUICKIMS_FAULTPOINT_HOLD=" + hold},
	})}
	put(t, s.Server, key, disk)
	s.job = s.Accept(t, harness.Request("held", "disks:"+key))
	harness.Eventually(t, "the image is saving", func() bool {
		for _, img := range s.Images(t, "?status=saving") {
			s.image = img.ID
		}
		return s.image != ""
	})
	return s
}

// release lets the import go on.
func (s *saving) release(t *testing.T) {
	t.Helper()
	if err := os.Remove(s.hold); err != nil {
		t.Fatal(err)
	}
}

// remove takes the source away.
func (s *saving) remove(t *testing.T, key string) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.Dir, "buckets", "disks", key)); err != nil {
		t.Fatal(err)
	}
}

// block reads the MiB of that number and compares it with the disk's.
func (r reader) block(t *testing.T, disk []byte, n int) {
	t.Helper()
	got, want := make([]byte, 1<<20), disk[n<<20:(n+1)<<20]
	if err := r.Read(got, int64(n)<<20); err != nil {
		t.Fatalf("read MiB %d: %v", n, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("MiB %d has other bytes than its source", n)
	}
}

// TestSavingImageIsReadable from its source, over NBD and HTTP; open connections go on
// after the publication, when the source is gone.
func TestSavingImageIsReadable(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"a.raw", "a.zvhd2"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			disk := harness.Disk(21, 40)
			s := startSaving(t, key, disk, "adopt.begun")
			a := s.Attach(t, s.image)
			r := open(t, a.URI)
			r.block(t, disk, 0)
			fresh := open(t, a.URI)
			s.CheckBytes(t, s.image, disk)
			if files := harness.Files(t, filepath.Join(s.Dir, "images"), imagearea.MarkKey); len(files) != 0 {
				t.Fatalf("the image area holds %v: this is not the moment to test", files)
			}
			shown := string(s.Do(t, "GET", "/v2/images/"+s.image, nil).Body)
			if !strings.Contains(shown, `"disk_format":null`) || !strings.Contains(shown, `"status":"saving"`) {
				t.Errorf("a saving image shows %s", shown)
			}

			s.release(t)
			if job := s.Wait(t, s.job); job.Status != "SUCCESS" {
				t.Fatalf("the import ended as %+v", job)
			}
			s.remove(t, key)
			for n := range 40 {
				r.block(t, disk, n)
				fresh.block(t, disk, 39-n)
			}
			s.CheckBytes(t, s.image, disk)
			run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.URI, diskFile(t, disk))
		})
	}
}

// TestSourceOfASavingImage changes or goes: reads fail, the import fails, and readers are
// cut off. Nobody gets other bytes.
func TestSourceOfASavingImage(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, *saving){
		"changes": func(t *testing.T, s *saving) { put(t, s.Server, "a.raw", harness.Disk(99, 40)) },
		"goes":    func(t *testing.T, s *saving) { s.remove(t, "a.raw") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := harness.Disk(22, 40)
			s := startSaving(t, "a.raw", disk, "adopt.begun")
			a := s.Attach(t, s.image)
			r := open(t, a.URI)
			r.block(t, disk, 0)
			spoil(t, s)
			refused := 0
			for n := range 40 {
				got := make([]byte, 1<<20)
				if err := r.Read(got, int64(n)<<20); err != nil {
					refused++
				} else if !bytes.Equal(got, disk[n<<20:(n+1)<<20]) {
					t.Fatalf("MiB %d has other bytes than the source had", n)
				}
			}
			if refused == 0 {
				t.Error("every read went well: the source was not asked")
			}
			answer, err := s.Send("GET", "/v2/images/"+s.image+"/file", s.Token(t), nil)
			if err == nil && (answer.Status == http.StatusOK && len(answer.Body) == len(disk)) {
				t.Error("the whole disk was delivered")
			}
			s.release(t)
			if job := s.Wait(t, s.job); job.Status != "FAIL" || *job.ErrorCode != "IMG.0057" {
				t.Errorf("the import ended as %+v", job)
			}
			r.isCut(t)
			fails(t, "nbdinfo", a.URI)
			gone := s.Do(t, "GET", "/v2/images/"+s.image+"/file", nil)
			if code, _, _ := gone.Error(); code != "IMG.0046" {
				t.Errorf("/file of a killed image: %d %s", gone.Status, gone.Body)
			}
		})
	}
}

// TestSavingAcrossAKill: the next attempt makes the image readable again, and what was
// attached stays.
func TestSavingAcrossAKill(t *testing.T) {
	t.Parallel()
	disk := harness.Disk(23, 16)
	s := startSaving(t, "a.zvhd2", disk, "adopt.done")
	a := s.Attach(t, s.image)
	open(t, a.URI).block(t, disk, 3)
	s.Kill(t)
	s.Restart(t, "adopt.done=hold")
	r := open(t, a.URI)
	for n := range 16 {
		r.block(t, disk, n)
	}
	s.release(t)
	if job := s.Wait(t, s.job); job.Status != "SUCCESS" {
		t.Fatalf("the import ended as %+v", job)
	}
	r.block(t, disk, 0)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.URI, diskFile(t, disk))
}
