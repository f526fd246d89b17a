package serve

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/test/harness"
)

// TestImageWithoutBytes: a client of NBD is told that an image's data is gone, when it
// opens the disk and when it reads one that it has open.
func TestImageWithoutBytes(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	disk := harness.Disk(4, 12)
	s.PutFile(t, "disks", "disk.raw", disk)
	s.PutFile(t, "disks", "disk.mf", []byte("of another tool"))
	s.PutFile(t, "disks", "disk.zvhd2", zvhd2Of(t, disk))
	for _, key := range []string{"disk.raw", "disk.zvhd2"} { // opened without a read, and with one
		image := s.Import(t, harness.Request(key, "disks:"+key))
		u, err := url.Parse(s.Attach(t, image).URI)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(s.Dir, "images", image, "1", "disk")); err != nil {
			t.Fatal(err)
		}
		// A service that has the file open reads on; one that starts does not.
		s.Kill(t)
		s.Restart(t, "")
		c, err := nbdtest.Dial(t.Context(), "tcp", u.Host, nbdtest.Config{Export: strings.TrimPrefix(u.Path, "/")})
		if err == nil {
			err = c.Read(make([]byte, 4096), 0)
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "missing in the image area") || !strings.Contains(err.Error(), image) {
			t.Errorf("%s: %v, want a text that says it", key, err)
		}
	}
}

func zvhd2Of(t *testing.T, disk []byte) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := zvhd2.Convert(t.Context(), &file, bytes.NewReader(disk), int64(len(disk)), zvhd2.ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}
