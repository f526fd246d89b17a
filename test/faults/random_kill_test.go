package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// history is what clients were told; it must hold ever after.
type history struct {
	mu      sync.Mutex
	jobs    map[string]string // job id → "" or the end that was seen
	deleted map[string]bool   // image id → DELETE answered 204
	names   int
}

// TestKillAtAnyMoment kills the server at random moments under a load of imports and
// deletions, starts it again, and compares what it says with what clients were told
// before. `make test-long` kills a thousand times.
func TestKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	rounds := 8
	if os.Getenv("QUICKIMS_TEST_LONG") != "" {
		rounds = 500 // on each database
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("QUICKIMS_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("QUICKIMS_TEST_SEED=%d", seed)
	databases(t, func(t *testing.T, database func(t *testing.T) string) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := harness.Start(t, harness.Options{Database: database(t), Config: "limits: {images: 100000, imports: 50}\n"})
		disk := harness.Disk(seed, 2)
		keys := []string{place(t, s, "raw", disk), place(t, s, "zvhd2", disk)}
		s.PutFile(t, bucket, "bad.raw", append([]byte("QFI\xfb"), make([]byte, 4092)...))
		s.PutFile(t, bucket, "bad.mf", []byte("of another tool"))
		keys = append(keys, "bad.raw")
		token := s.Token(t)
		h := &history{jobs: map[string]string{}, deleted: map[string]bool{}}
		for range rounds {
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for c := range 3 {
				pick := rand.New(rand.NewPCG(r.Uint64(), uint64(c)))
				clients.Go(func() { h.load(s, token, pick, keys, stop) })
			}
			// The moment of the kill is what the test is about; nothing is waited for.
			timer := time.NewTimer(time.Duration(r.IntN(250)) * time.Millisecond)
			<-timer.C
			s.Kill(t)
			close(stop)
			clients.Wait()
			s.Restart(t, "")
		}
		h.check(t, s, disk)
	})
}

// load imports and deletes until the server is gone.
func (h *history) load(s *harness.Server, token string, r *rand.Rand, keys []string, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		h.mu.Lock()
		h.names++
		name := fmt.Sprintf("image-%d", h.names)
		h.mu.Unlock()
		body := fmt.Sprintf(`{"name":%q,"os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"%s:%s","min_disk":1}`, name, bucket, keys[r.IntN(len(keys))])
		a, err := s.Send("POST", harness.QuickImportPath, token, []byte(body))
		if err != nil {
			return
		}
		var accepted struct {
			JobID string `json:"job_id"`
		}
		if a.Status != http.StatusOK || json.Unmarshal(a.Body, &accepted) != nil {
			continue // too many at once
		}
		h.saw(accepted.JobID, "")
		for range 20 {
			a, err := s.Send("GET", "/v1/"+harness.ProjectID+"/jobs/"+accepted.JobID, token, nil)
			if err != nil {
				return
			}
			var job harness.Job
			if json.Unmarshal(a.Body, &job) != nil || job.Status != "SUCCESS" && job.Status != "FAIL" {
				continue
			}
			h.saw(job.JobID, job.Status)
			if job.Status == "SUCCESS" && r.IntN(2) == 0 {
				if a, err := s.Send("DELETE", "/v2/images/"+job.Entities.ImageID, token, nil); err == nil && a.Status == http.StatusNoContent {
					h.mu.Lock()
					h.deleted[job.Entities.ImageID] = true
					h.mu.Unlock()
				}
			}
			break
		}
	}
}

func (h *history) saw(job, end string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if end != "" || h.jobs[job] == "" {
		h.jobs[job] = end
	}
}

// check compares the history with the server's last word.
func (h *history) check(t *testing.T, s *harness.Server, disk []byte) {
	ended := 0
	for id, end := range h.jobs {
		job := s.Wait(t, id)
		if end != "" && job.Status != end {
			t.Errorf("job %s was %s and is now %s", id, end, job.Status)
		}
		ended++
	}
	images := s.AllImages(t)
	files := 0
	for i, image := range images {
		if h.deleted[image.ID] {
			t.Errorf("image %s was deleted and is listed as %s", image.ID, image.Status)
		}
		harness.Eventually(t, "image "+image.ID+" is active", func() bool {
			s.Get(t, "/v2/images/"+image.ID, &image)
			return image.Status == "active" || image.Status == "killed"
		})
		if image.Status != "active" {
			continue
		}
		n := len(harness.Files(t, filepath.Join(s.Dir, "images", image.ID)))
		if files += n; n == 0 {
			t.Errorf("image %s is active and has no data", image.ID)
		}
		if i < 10 {
			s.CheckBytes(t, image.ID, disk)
		}
	}
	nothingLeft(t, s, files)
	t.Logf("%d jobs, all ended once; %d images active, %d deleted", ended, len(images), len(h.deleted))
	if ended == 0 {
		t.Error("no job was accepted: the test tested nothing")
	}
}
