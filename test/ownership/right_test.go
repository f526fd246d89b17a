package ownership

import (
	"database/sql"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/test/harness"
)

// metric is the value of a metric without labels.
func metric(t *testing.T, s *harness.Server, name string) string {
	t.Helper()
	for line := range strings.Lines(s.Metrics(t)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestKillWhileTheMarkMoves: wherever a start is killed, the next one goes on.
func TestKillWhileTheMarkMoves(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, postgres := range []bool{false, true} {
		for _, point := range faultpoint.Mark {
			name := point + "/sqlite/"
			if postgres {
				name = point + "/postgres/"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				options := s.options(name)
				if postgres {
					options = s.with(harness.Postgres(t))
					options.Config = s.config(name)
				}
				options.Dir = t.TempDir()
				kill := func() {
					t.Helper()
					options.Faults = point + "=kill"
					harness.Killed(t, options)
				}
				kill() // the first start of all
				options.Faults = ""
				server := harness.Start(t, options)
				image := s.importDisk(t, server, "after")
				server.Stop(t)
				kill()
				server.Restart(t, "")
				server.CheckBytes(t, image, s.disk)
				s.importDisk(t, server, "later")
			})
		}
	}
}

// TestUpgrade: an installation from before there were ids and marks starts as it did,
// and has both from then on. With an empty database in place of its own it does not.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	server := harness.Start(t, s.options("up/"))
	image := s.importDisk(t, server, "kept")
	server.Stop(t)
	forget := func() {
		t.Helper()
		db, err := sql.Open("sqlite", filepath.Join(server.Dir, "quickims.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, query := range []string{"DELETE FROM installation", "DELETE FROM installation_marks"} {
			if _, err := db.Exec(query); err != nil {
				t.Fatal(err)
			}
		}
		files := contents(t, server.Dir)
		lines := strings.Split(files["credentials.env"], "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "QUICKIMS_INSTALLATION_ID=") {
				lines = append(lines[:i], lines[i+1:]...)
				break
			}
		}
		for name, data := range map[string]string{"seal.key": files["seal.key"][:32], "credentials.env": strings.Join(lines, "\n")} {
			if err := os.WriteFile(filepath.Join(server.Dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Client.RemoveObject(t.Context(), s.images, "up/"+imagearea.MarkKey, minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	before := s.objects(t)
	log := harness.Refused(t, s.options("up/"))
	wantRefusal(t, log, 1, "no owner mark", "holds images")
	s.unchanged(t, before)
	server.Restart(t, "")
	server.CheckBytes(t, image, s.disk)
	owner := id.FindString(s.mark(t, "up/"))
	for name, data := range contents(t, server.Dir) {
		if name != "quickims.db" && name != "quickims.db-wal" && !strings.Contains(data, owner) {
			t.Errorf("%s does not name the installation %s", name, owner)
		}
	}
	if a := server.Do(t, "DELETE", "/v2/images/"+image, nil); a.Status != http.StatusNoContent {
		t.Fatalf("delete: %d: %s", a.Status, a.Body)
	}
	harness.Eventually(t, "its bytes are gone", func() bool { return len(s.objects(t)) == 0 })
}

// TestReplicasTogether: processes that share a database share its image area, also when
// they start at once and all of them write.
func TestReplicasTogether(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	first := harness.Start(t, s.with(harness.Postgres(t)))
	s.importDisk(t, first, "first")
	first.Stop(t)
	options := first.Options()
	servers := make([]*harness.Server, 2)
	var wg sync.WaitGroup
	for i := range servers {
		o := options
		o.Dir = t.TempDir()
		copyFiles(t, first.Dir, o.Dir, "seal.key", "credentials.env")
		wg.Go(func() { servers[i] = harness.Start(t, o) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	ids := make([]string, len(servers))
	for i, server := range servers {
		wg.Go(func() { ids[i] = s.importDisk(t, server, "together") })
	}
	wg.Wait()
	for i, server := range servers {
		server.CheckBytes(t, ids[(i+1)%len(ids)], s.disk)
		if metric(t, server, "quickims_area_owned") != "1" {
			t.Error("a replica does not own the image area")
		}
	}
	first.Restart(t, "")
	s.importDisk(t, first, "last")
}

// TestStoreAwayAtStart: a store that does not answer delays what needs it, and nothing
// else. When it answers that the area is another's, the service ends.
func TestStoreAwayAtStart(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	server := harness.Start(t, s.options(""))
	image := s.importDisk(t, server, "kept")
	server.Stop(t)
	var away atomic.Bool
	s.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if away.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	away.Store(true)
	server.Restart(t, "")
	stranger := harness.Start(t, s.options(""))
	if a, err := server.Send("GET", "/readyz", "", nil); err != nil || a.Status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d (%v), want 503", a.Status, err)
	}
	if got := metric(t, server, "quickims_area_owned"); got != "0" {
		t.Errorf("quickims_area_owned is %s before the area is verified", got)
	}
	if a := server.Do(t, "GET", "/v2/images/"+image, nil); a.Status != http.StatusOK {
		t.Errorf("the image's description: %d", a.Status)
	}
	before := func() []string { away.Store(false); return s.objects(t) }()
	harness.Eventually(t, "the area is verified", func() bool { return metric(t, server, "quickims_area_owned") == "1" })
	stranger.Ended(t)
	wantRefusal(t, stranger.Log(), 2, "belongs to installation")
	s.unchanged(t, before)
	server.CheckBytes(t, image, s.disk)
	s.importDisk(t, server, "after")
}

// TestCopyOfARunningDatabase: of two equal copies one has the image area. The other goes
// on reading, and writes and removes nothing.
func TestCopyOfARunningDatabase(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	server := harness.Start(t, s.options(""))
	image := s.importDisk(t, server, "kept")
	gone := s.importDisk(t, server, "gone")
	copied := t.TempDir()
	copyFiles(t, server.Dir, copied, state...)
	other := harness.Start(t, s.on(copied, ""))
	before := s.objects(t)
	if a := server.Do(t, "DELETE", "/v2/images/"+gone, nil); a.Status != http.StatusNoContent {
		t.Fatalf("delete: %d: %s", a.Status, a.Body)
	}
	harness.Eventually(t, "the first notices", func() bool { return metric(t, server, "quickims_area_owned") == "0" })
	wantRefusal(t, server.Log(), 1, "generation")
	s.unchanged(t, before)
	server.CheckBytes(t, image, s.disk)
	other.CheckBytes(t, gone, s.disk)
	other.Stop(t)
	server.Stop(t)
	wantRefusal(t, harness.Refused(t, s.on(server.Dir, "")), 1, "generation")

	// The operator decides for the first.
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(s.config("")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := harness.Command(t, "fsck", "--take-over", "--data", server.Dir, "--config", config); status != 1 {
		t.Fatalf("taken over without a yes: %d: %s", status, stderr)
	}
	out, stderr, status := harness.Command(t, "fsck", "--take-over", "--yes", "--data", server.Dir, "--config", config)
	if status != 0 || !strings.Contains(out, s.images) {
		t.Fatalf("take over: %d: %s%s", status, out, stderr)
	}
	server.Restart(t, "")
	harness.Eventually(t, "the deleted image's bytes are gone", func() bool { return len(s.objects(t)) == 1 })
	server.CheckBytes(t, image, s.disk)
	wantRefusal(t, harness.Refused(t, s.on(copied, "")), 1, "older than the area")
}

// TestTakeOver: an operator whose database is lost for good goes on with a new one. The
// images stay in the area, as unknown.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{})
	disk := harness.Disk(7, 3)
	s.PutFile(t, "disks", "disk.raw", disk)
	s.PutFile(t, "disks", "disk.mf", []byte("of another tool"))
	old := time.Now().Add(-365 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(s.Dir, "buckets", "disks", "disk.raw"), old, old); err != nil {
		t.Fatal(err)
	}
	s.Import(t, harness.Request("lost", "disks:disk.raw"))
	if _, stderr, status := harness.Command(t, "fsck", "--take-over", "--yes", "--data", s.Dir); status != 1 || !strings.Contains(stderr, "another quickims") {
		t.Errorf("taken over under a running service: %d: %s", status, stderr)
	}
	s.Stop(t)
	for _, name := range []string{"quickims.db", "quickims.db-wal", "quickims.db-shm"} {
		os.Remove(filepath.Join(s.Dir, name))
	}
	harness.Refused(t, harness.Options{Dir: s.Dir})
	out, stderr, status := harness.Command(t, "--json", "fsck", "--take-over", "--yes", "--data", s.Dir)
	if status != 0 || !strings.Contains(out, "seal.key") || !strings.Contains(out, "credentials.env") || !strings.Contains(out, "images") {
		t.Fatalf("take over: %d: %s%s", status, out, stderr)
	}
	if out, stderr, status := harness.Command(t, "account", "bucket", "disks", "--data", s.Dir, "--project", harness.ProjectID); status == 0 {
		t.Errorf("a database without a project gave a bucket away: %s%s", out, stderr)
	}
	s = harness.Start(t, harness.Options{Dir: s.Dir}) // with the keys that it had
	if out, stderr, status := harness.Command(t, "account", "bucket", "disks", "--data", s.Dir, "--project", harness.ProjectID); status != 0 {
		t.Fatalf("give the bucket to the project again: %s%s", out, stderr)
	}
	if n := len(s.Images(t, "")); n != 0 {
		t.Errorf("%d images in the new database", n)
	}
	harness.Eventually(t, "the lost image's bytes are reported", func() bool { return metric(t, s, "quickims_area_unknown_objects") == "1" })
	s.CheckBytes(t, s.Import(t, harness.Request("new", "disks:disk.raw")), disk)
	if files := harness.Files(t, filepath.Join(s.Dir, "images"), ".pins", ".tmp", imagearea.MarkKey); len(files) != 2 {
		t.Errorf("images/ holds %q, want the lost image's and the new one's", files)
	}
	// The lost image is as old as the take-over at most, whatever the time of its file.
	if out, stderr, status := harness.Command(t, "fsck", "--repair", "--yes", "--data", s.Dir); status != 1 || !strings.Contains(out, "1 findings, 0 repaired") {
		t.Errorf("repair after the take-over: %d: %s%s", status, out, stderr)
	}
	out, _, status = harness.Command(t, "fsck", "--take-over", "--yes", "--data", t.TempDir())
	if status != 0 {
		t.Errorf("take over an empty folder: %d: %s", status, out)
	}
}
