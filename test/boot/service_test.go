//go:build amd64

package boot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

const bucket = "disks"

// quickims runs a client command against the server.
func quickims(t *testing.T, s *harness.Server, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), args...)
	cmd.Env = append(os.Environ(), "QUICKIMS_CREDENTIALS="+filepath.Join(s.Dir, "credentials.env"))
	out, err := output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// upload puts the disk into a bucket over S3 and returns the key: of the ZVHD2 file, or
// of the RAW file that has its bitmap beside it.
func (d *disk) upload(t *testing.T, s *harness.Server, format string) string {
	t.Helper()
	if format == "zvhd2" {
		quickims(t, s, "upload", d.zvhd2, bucket+":disk.zvhd2")
		return "disk.zvhd2"
	}
	quickims(t, s, "upload", d.mf, bucket+":disk.mf")
	quickims(t, s, "upload", d.raw, bucket+":disk.raw")
	return "disk.raw"
}

// importDisk uploads and quick-imports the disk, and returns the image's id.
func (d *disk) importDisk(t *testing.T, s *harness.Server, format string) string {
	t.Helper()
	return s.Import(t, harness.Request("disk-"+format, bucket+":"+d.upload(t, s, format)))
}

// fetched is how many bytes the service has read of objects since it started: of
// images, and of the callers' own, where the data of an image in saving lies.
func fetched(t *testing.T, s *harness.Server) (n int64) {
	t.Helper()
	found := 0
	for line := range strings.Lines(s.Metrics(t)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "quickims_image_read_bytes_total" || name == "quickims_source_read_bytes_total" {
			bytes, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("/metrics: %s", line)
			}
			n += int64(bytes)
			found++
		}
	}
	if found != 2 {
		t.Fatalf("/metrics has %d of the two counters of bytes read", found)
	}
	return n
}

// stored is how many bytes of data the imported object has: of ZVHD2 all, for they are
// compressed and have no holes; of RAW those that are no holes.
func (d *disk) stored(t *testing.T, format string) int64 {
	t.Helper()
	if format == "raw" {
		return d.dataSize()
	}
	info, err := os.Stat(d.zvhd2)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
