package faults

import (
	"context"
	"database/sql"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/test/harness"
)

// away checks that a request is refused as passing, and leaves nothing.
func away(t *testing.T, s *harness.Server, token string) {
	t.Helper()
	body := `{"name":"away","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"faults:disk.zvhd2","min_disk":1}`
	a, err := s.Send("POST", harness.QuickImportPath, token, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	code, message, _ := a.Error()
	if a.Status != http.StatusServiceUnavailable || code != string(ims.CodeInternal) || message != ims.CodeInternal.Message() {
		t.Fatalf("status %d: %s; want 503 %s", a.Status, a.Body, ims.CodeInternal)
	}
	if a, _ := s.Send("GET", "/readyz", "", nil); a.Status == http.StatusOK {
		// A lock leaves readers alone; that the service can't be written to shows in requests.
		t.Logf("readyz: %d", a.Status)
	}
}

// back waits until imports work again, and checks that the refused one left nothing.
func back(t *testing.T, s *harness.Server, disk []byte) {
	t.Helper()
	harness.Eventually(t, "the service answers again", func() bool {
		a, err := s.Send("GET", "/v2/cloudimages", s.Token(t), nil)
		return err == nil && a.Status == http.StatusOK
	})
	if n := len(s.Images(t, "")); n != 0 {
		t.Errorf("%d images of a refused request", n)
	}
	s.CheckBytes(t, s.Import(t, harness.Request("back", bucket+":disk.zvhd2")), disk)
	nothingLeft(t, s, 1)
}

func TestDatabaseLocked(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	token := s.Token(t)
	db, err := sql.Open("sqlite", filepath.Join(s.Dir, "quickims.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	harness.Eventually(t, "the test holds the database's lock", func() bool {
		_, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
		return err == nil
	})
	away(t, s, token)
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	back(t, s, disk)
}

func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	database := harness.Postgres(t)
	s, disk := sourceServer(t, harness.Options{Database: database})
	token := s.Token(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	admin, err := sql.Open("pgx", os.Getenv("QUICKIMS_TEST_POSTGRES"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	run := func(query string, args ...any) {
		t.Helper()
		if _, err := admin.ExecContext(context.Background(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	run("ALTER DATABASE " + name + " WITH ALLOW_CONNECTIONS false")
	run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
	away(t, s, token)
	if a, err := s.Send("GET", "/readyz", "", nil); err != nil || a.Status != http.StatusServiceUnavailable {
		t.Errorf("readyz answers %d (%v), want 503", a.Status, err)
	}
	if a, err := s.Send("GET", "/healthz", "", nil); err != nil || a.Status != http.StatusOK {
		t.Errorf("healthz answers %d (%v), want 200", a.Status, err)
	}
	run("ALTER DATABASE " + name + " WITH ALLOW_CONNECTIONS true")
	back(t, s, disk)
}

// A data folder on a full disk: nothing is accepted, nothing is lost, and it goes on
// when there is space again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	t.Run("the database meets it", func(t *testing.T) {
		t.Parallel()
		diskFull(t, "disk_reserve: 0\n", http.StatusServiceUnavailable)
	})
	t.Run("the reserve is asked for first", func(t *testing.T) {
		t.Parallel()
		diskFull(t, "disk_reserve: 8MiB\n", http.StatusInsufficientStorage)
	})
}

// diskFull fills the disk of a service, wants imports to be refused with the status, and
// to be accepted again once there is room.
func diskFull(t *testing.T, config string, status int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs takes root")
	}
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("quickims-test", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("this machine lets nobody mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, disk := sourceServer(t, harness.Options{Dir: dir, Config: config})
	token := s.Token(t)
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Until nothing fits any more; the database may still have room in its own pages.
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	body := []byte(`{"name":"full","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"faults:disk.zvhd2","min_disk":1}`)
	accepted := 0
	deadline := time.Now().Add(30 * time.Second)
	for {
		a, err := s.Send("POST", harness.QuickImportPath, token, body)
		if err != nil {
			t.Fatal(err)
		}
		code, _, _ := a.Error()
		if a.Status == status && code == string(ims.CodeInternal) {
			break
		}
		if a.Status == http.StatusOK {
			accepted++
		} else if code != string(ims.CodeTooManyJobs) {
			t.Fatalf("status %d: %s", a.Status, a.Body)
		}
		if time.Now().After(deadline) {
			t.Fatal("the full disk was never noticed")
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.Close()
	harness.Eventually(t, "an import is accepted again", func() bool {
		a, err := s.Send("POST", harness.QuickImportPath, token, body)
		return err == nil && a.Status == http.StatusOK
	})
	harness.Eventually(t, "every accepted import has ended", func() bool {
		for _, image := range s.Images(t, "") {
			if image.Status != "active" {
				return false
			}
		}
		return true
	})
	images := s.Images(t, "")
	if len(images) != accepted+1 {
		t.Errorf("%d images of %d accepted imports", len(images), accepted+1)
	}
	s.CheckBytes(t, images[0].ID, disk)
}
