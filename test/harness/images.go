package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Job is the answer of a job query.
type Job struct {
	JobID      string  `json:"job_id"`
	JobType    string  `json:"job_type"`
	Status     string  `json:"status"`
	BeginTime  string  `json:"begin_time"`
	EndTime    *string `json:"end_time"`
	ErrorCode  *string `json:"error_code"`
	FailReason *string `json:"fail_reason"`
	Entities   struct {
		ImageID   string `json:"image_id"`
		ImageName string `json:"image_name"`
	} `json:"entities"`
}

// Image is the part of an image's answer that most tests look at.
type Image struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
}

// Bucket makes a bucket of the first project, as an operator does: the folder and its
// owner. It returns the folder. A folder that is there is given to the first project.
func (s *Server) Bucket(tb testing.TB, bucket string) string {
	tb.Helper()
	args := []string{"account", "bucket", bucket, "--data", s.Dir, "--project", ProjectID}
	if s.opts.Database != "" {
		args = append(args, "--database", s.opts.Database)
	}
	if out, err := exec.Command(Binary(tb), args...).CombinedOutput(); err != nil {
		tb.Fatalf("account bucket: %v: %s", err, out)
	}
	return filepath.Join(s.Dir, "buckets", bucket)
}

// PutFile places a file in a bucket's folder, as an operator does with cp. A bucket that
// is not there becomes the first project's.
func (s *Server) PutFile(tb testing.TB, bucket, key string, data []byte) {
	tb.Helper()
	folder := filepath.Join(s.Dir, "buckets", bucket)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		s.Bucket(tb, bucket)
	}
	path := filepath.Join(folder, filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	aside := path + ".part"
	if err := os.WriteFile(aside, data, 0o644); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(aside, path); err != nil {
		tb.Fatal(err)
	}
}

// Request is the body of a quick import of a system disk image.
func Request(name, imageURL string) map[string]any {
	return map[string]any{"name": name, "os_version": "Debian GNU/Linux 12.0.0 64bit", "image_url": imageURL, "min_disk": 1}
}

// QuickImportPath is the route of the quick import.
const QuickImportPath = "/v2/cloudimages/quickimport/action"

// Accept sends a quick import that must be accepted and returns its job id.
func (s *Server) Accept(tb testing.TB, request any) string {
	tb.Helper()
	a := s.Do(tb, "POST", QuickImportPath, request)
	var body struct {
		JobID string `json:"job_id"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil || a.Status != http.StatusOK || body.JobID == "" {
		tb.Fatalf("quick import: status %d: %s", a.Status, a.Body)
	}
	return body.JobID
}

// Wait waits until the job has ended.
func (s *Server) Wait(tb testing.TB, jobID string) Job {
	tb.Helper()
	var job Job
	Eventually(tb, "job "+jobID+" has ended", func() bool {
		s.Get(tb, "/v1/"+ProjectID+"/jobs/"+jobID, &job)
		return job.Status == "SUCCESS" || job.Status == "FAIL"
	})
	return job
}

// Import imports and waits; the job must succeed. It returns the image's id.
func (s *Server) Import(tb testing.TB, request any) string {
	tb.Helper()
	job := s.Wait(tb, s.Accept(tb, request))
	if job.Status != "SUCCESS" {
		tb.Fatalf("the import failed: %s", deref(job.FailReason))
	}
	return job.Entities.ImageID
}

// Images lists all images of the first project.
func (s *Server) Images(tb testing.TB, query string) []Image {
	tb.Helper()
	var list struct{ Images []Image }
	s.Get(tb, "/v2/cloudimages"+query, &list)
	return list.Images
}

// AllImages lists the first project's images page by page, as clients do.
func (s *Server) AllImages(tb testing.TB) []Image {
	tb.Helper()
	var all []Image
	for query := "?limit=200"; ; query = "?limit=200&marker=" + all[len(all)-1].ID {
		page := s.Images(tb, query)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

// CheckBytes reads an image back and compares it with the disk it was made of; what
// lies beyond the disk's end must be zero.
func (s *Server) CheckBytes(tb testing.TB, imageID string, disk []byte) {
	tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), "GET", s.API+"/v2/images/"+imageID+"/file", nil)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", s.Token(tb))
	res, err := client.Do(req)
	if err != nil {
		tb.Fatalf("read image %s: %v", imageID, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ContentLength < int64(len(disk)) {
		tb.Fatalf("read image %s: status %d, %d bytes", imageID, res.StatusCode, res.ContentLength)
	}
	got, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := 0; at < int(res.ContentLength); at += len(got) {
		got = got[:min(len(got), int(res.ContentLength)-at)]
		if _, err := io.ReadFull(res.Body, got); err != nil {
			tb.Fatalf("read image %s at %d: %v", imageID, at, err)
		}
		inside := max(0, min(len(got), len(disk)-at))
		if inside > 0 && !bytes.Equal(got[:inside], disk[at:at+inside]) || !bytes.Equal(got[inside:], zeros[:len(got)-inside]) {
			tb.Fatalf("image %s has other bytes than its source near %d", imageID, at)
		}
	}
}

// Disk is a small disk: random blocks, text and holes, the same for the same seed.
func Disk(seed uint64, mib int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	disk := make([]byte, mib<<20)
	for off := 0; off < len(disk); off += 1 << 20 {
		switch r.IntN(3) {
		case 0:
			for i := off; i < off+1<<20; i += 8 {
				v := r.Uint64()
				for k := range 8 {
					disk[i+k] = byte(v >> (8 * k))
				}
			}
		case 1:
			for i, c := 0, fmt.Sprintf("block at %d of disk %d\n", off, seed); i < 1<<20; i++ {
				disk[off+i] = c[i%len(c)]
			}
		}
	}
	return disk
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
