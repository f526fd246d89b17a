package faults

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/test/harness"
)

// TestSavingInS3: in an outside store, too, an image is read from its pinned source while
// it is copied, and from its copy when the source is gone.
func TestSavingInS3(t *testing.T) {
	hold := filepath.Join(t.TempDir(), "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("QUICKIMS_FAULTPOINT_HOLD", hold) // so this test has its time for itself
	s := newS3Store(t, "adopt.begun=hold")
	disk := harness.Disk(61, 12)
	s.upload(t, bucket, "a.raw", disk)
	s.upload(t, bucket, "a.mf", []byte("somebody's own bitmap"))
	job := s.Accept(t, harness.Request("a", bucket+":a.raw"))
	image := ""
	harness.Eventually(t, "the image is saving", func() bool {
		for _, img := range s.Images(t, "?status=saving") {
			image = img.ID
		}
		return image != ""
	})
	s.CheckBytes(t, image, disk)
	if stored := s.stored(t); len(stored) != 0 {
		t.Fatalf("the image bucket holds %v: this is not the moment to test", stored)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if done := s.Wait(t, job); done.Status != "SUCCESS" {
		t.Fatalf("the import ended as %+v", done)
	}
	if err := s.client.RemoveObject(t.Context(), bucket, "a.raw", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	s.CheckBytes(t, image, disk)
}
