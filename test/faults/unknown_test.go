package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/quickims/quickims/test/harness"
)

// metric is the value of a metric without labels, "" if there is none.
func metric(t *testing.T, s *harness.Server, name string) string {
	t.Helper()
	for line := range strings.Lines(s.Metrics(t)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestUnknownBytesStay: the service removes what its own rows name and nothing else,
// however much what lies beside that looks like it.
func TestUnknownBytesStay(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{})
	disk := harness.Disk(5, 3)
	kept := s.Import(t, harness.Request("kept", bucket+":"+place(t, s, "raw", disk)))
	gone := s.Import(t, harness.Request("gone", bucket+":"+place(t, s, "raw", disk)))
	images := filepath.Join(s.Dir, "images")
	unknown := []string{
		kept + "/2/disk", kept + "/1/other/disk", gone + "/2/disk", gone + "/7/bitmap", // of no attempt that was made, or no key of one
		uuid.NewString() + "/1/disk", uuid.NewString() + "/1/disk", // another installation's
		"notes.txt", "x/1/disk",
	}
	for _, key := range unknown {
		if err := os.MkdirAll(filepath.Join(images, filepath.Dir(key)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(images, key), []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if a := s.Do(t, "DELETE", "/v2/images/"+gone, nil); a.Status != 204 {
		t.Fatalf("delete: %d: %s", a.Status, a.Body)
	}
	s.Stop(t)
	s.Restart(t, "")
	nothingLeft(t, s, len(unknown)+2)
	for _, key := range unknown {
		if _, err := os.Stat(filepath.Join(images, key)); err != nil {
			t.Error(err)
		}
	}
	s.CheckBytes(t, kept, disk)
	want := len(unknown)
	harness.Eventually(t, "the survey has counted them", func() bool {
		return metric(t, s, "quickims_area_unknown_objects") == fmt.Sprint(want)
	})
	if got := metric(t, s, "quickims_area_unknown_bytes"); got != fmt.Sprint(5*want) {
		t.Errorf("unknown bytes are %s, want %d", got, 5*want)
	}
	if !strings.Contains(s.Log(), "unknown objects in the image area") {
		t.Error("the log says nothing of them")
	}
}
