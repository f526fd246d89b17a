package faults

import (
	"encoding/json"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestCopyAndExport: over the API of a running service, a copy and an export, imported
// again, have the bytes of their image, also after a kill and when the image is gone.
func TestCopyAndExport(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	image := s.Import(t, harness.Request("one", bucket+":disk.raw"))
	job := func(path string, body any) harness.Job {
		t.Helper()
		var accepted struct {
			JobID string `json:"job_id"`
		}
		if a := s.Do(t, "POST", path, body); a.Status != 200 || json.Unmarshal(a.Body, &accepted) != nil {
			t.Fatalf("%s: %d %s", path, a.Status, a.Body)
		}
		j := s.Wait(t, accepted.JobID)
		if j.Status != "SUCCESS" {
			t.Fatalf("%s: %s", path, deref(j.FailReason))
		}
		return j
	}
	copied := job("/v1/cloudimages/"+image+"/copy", map[string]any{"name": "two"}).Entities.ImageID
	job("/v1/cloudimages/"+image+"/file", map[string]any{"bucket_url": bucket + ":out/three.raw", "is_quick_export": true})
	again := s.Import(t, harness.Request("three", bucket+":out/three.raw"))
	s.Kill(t)
	s.Restart(t, "")
	for _, id := range []string{image, copied, again} {
		s.CheckBytes(t, id, disk)
	}
	if a := s.Do(t, "DELETE", "/v2/images/"+image, nil); a.Status != 204 {
		t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	for _, id := range []string{copied, again} {
		s.CheckBytes(t, id, disk)
	}
}
