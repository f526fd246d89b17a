package ownership

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/test/harness"
)

// TestDamagedMark: an owner mark that cannot be read is refused, with the command that
// makes a new one; its generation is far beyond any that another database may have had.
func TestDamagedMark(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{})
	disk := harness.Disk(7, 3)
	s.PutFile(t, "disks", "disk.raw", disk)
	s.PutFile(t, "disks", "disk.mf", []byte("of another tool"))
	image := s.Import(t, harness.Request("kept", "disks:disk.raw"))
	s.Stop(t)
	path := filepath.Join(s.Dir, "images", imagearea.MarkKey)
	writeFile(t, path, []byte("{"))
	command := "quickims fsck --take-over --data " + s.Dir
	if log := harness.Refused(t, harness.Options{Dir: s.Dir}); !strings.Contains(log, command) {
		t.Errorf("the refused start does not name the command: %s", log)
	}
	if out, stderr, status := harness.Command(t, "fsck", "--data", s.Dir); status != 1 || !strings.Contains(stderr, command) {
		t.Errorf("fsck: %d, without the command: %s%s", status, out, stderr)
	}
	if out, stderr, status := harness.Command(t, "fsck", "--take-over", "--yes", "--data", s.Dir); status != 0 {
		t.Fatalf("take over: %d: %s%s", status, out, stderr)
	}
	var mark struct{ Generation int64 }
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &mark)
	}
	if err != nil || mark.Generation < 1<<32 {
		t.Errorf("the new mark is %s (%v)", data, err)
	}
	s.Restart(t, "")
	s.CheckBytes(t, image, disk)
}
