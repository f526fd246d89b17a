//go:build amd64

package boot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// maxShare is the part of an image's data that starting a machine may fetch.
const maxShare = 0.30

// TestBoot: a machine starts from an image over NBD, with an overlay for what it
// writes, and fetches a small part of the image.
func TestBoot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format, firmware string
		long             bool // only in `make test-long`
	}{
		{"zvhd2", "uefi", false},
		{"raw", "bios", false},
		{"zvhd2", "bios", true},
		{"raw", "uefi", true},
	} {
		if c.long && os.Getenv("QUICKIMS_TEST_LONG") == "" {
			continue
		}
		t.Run(c.format+"-"+c.firmware, func(t *testing.T) {
			t.Parallel()
			d := theDisk(t)
			s := harness.Start(t, harness.Options{S3: true, NBD: true})
			uri := s.Attach(t, d.importDisk(t, s, c.format)).URI
			before, began := fetched(t, s), time.Now()
			g := start(t, c.firmware, "-drive", "if=virtio,file="+overlay(t, uri))
			g.expect(t, d.line(c.firmware))
			d.share(t, c.format, c.firmware, fetched(t, s)-before, time.Since(began))
			g.off(t)
		})
	}
}

// overlay makes a qcow2 file for what the machine writes over what the URI gives.
func overlay(t *testing.T, uri string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overlay.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", uri, "-F", "raw", path)
	return path
}

// share says what starting a machine fetched of an image, and that it is little.
func (d *disk) share(t *testing.T, format, firmware string, fetched int64, took time.Duration) {
	t.Helper()
	stored := d.stored(t, format)
	share := float64(fetched) / float64(stored)
	t.Logf("%s with %s: the guest's line after %.1f s; fetched %.1f of %.1f MiB of data, %.1f %%",
		format, firmware, took.Seconds(), float64(fetched)/(1<<20), float64(stored)/(1<<20), 100*share)
	if fetched <= 0 || share >= maxShare {
		t.Errorf("starting a machine fetched %.1f %% of the image's data, want some and less than %.0f %%", 100*share, 100*maxShare)
	}
}
