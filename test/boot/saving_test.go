//go:build amd64

package boot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/test/harness"
)

// TestBootWhileSaving: a machine starts from an image whose import is not done. Its
// data is still the caller's, in the bucket.
func TestBootWhileSaving(t *testing.T) {
	t.Parallel()
	d := theDisk(t)
	hold := filepath.Join(t.TempDir(), "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, harness.Options{
		S3: true, NBD: true,
		Faults: faultpoint.AdoptBegun + "=hold", Env: []string{"QUICKIMS_FAULTPOINT_HOLD=" + hold},
	})
	job := s.Accept(t, harness.Request("saving", bucket+":"+d.upload(t, s, "zvhd2")))
	image := ""
	status := func() string {
		t.Helper()
		images := s.Images(t, "?name=saving")
		if len(images) != 1 {
			t.Fatalf("the images are %+v, want the one of the import", images)
		}
		image = images[0].ID
		return images[0].Status
	}
	harness.Eventually(t, "the image is saving", func() bool { return status() == "saving" })
	uri := s.Attach(t, image).URI
	before, began := fetched(t, s), time.Now()
	g := start(t, "uefi", "-drive", "if=virtio,file="+overlay(t, uri))
	g.expect(t, d.line("uefi"))
	d.share(t, "zvhd2 in saving", "uefi", fetched(t, s)-before, time.Since(began))
	if now := status(); now != "saving" {
		t.Errorf("the image is %s while the import is held", now)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if ended := s.Wait(t, job); ended.Status != "SUCCESS" {
		t.Errorf("the import ended with %s", ended.Status)
	}
	g.off(t)
}
