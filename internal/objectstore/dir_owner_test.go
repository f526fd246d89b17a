package objectstore_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

// asNobody runs f with the rights of an ordinary user on files, in a thread that is
// thrown away.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setfsgid(nobody); err != nil {
			t.Error(err)
		}
		if err := unix.Setfsuid(nobody); err != nil { // drops the rights of root over files
			t.Error(err)
		}
		f()
	}()
	<-done
}

const nobody = 65534

// A file of another user is copied, since the kernel does not let the service link it,
// and that is said; one that its permissions let nobody read is denied.
func TestFilesOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of two users")
	}
	if b, err := os.ReadFile("/proc/sys/fs/protected_hardlinks"); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Skip("the kernel lets everybody link every file")
	}
	s := newDirStore(t, t.TempDir())
	s.write(t, "source", "mine.raw", []byte("mine"))
	s.write(t, "source", "other.raw", []byte("other"))
	s.write(t, "source", "secret.raw", []byte("secret"))
	err := filepath.WalkDir(filepath.Dir(s.buckets), func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.Name() == "other.raw":
			return os.Chmod(path, 0o644)
		case e.Name() == "secret.raw":
			return os.Chmod(path, 0o600)
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Dir.WithoutClone()
	for name, want := range map[string]string{"mine": "", "other": "fs.protected_hardlinks"} {
		from, said := objectstore.Location{Bucket: "source", Key: name + ".raw"}, ""
		asNobody(t, func() {
			info, err := s.Stat(t.Context(), from)
			if err == nil {
				_, err = s.Adopt(t.Context(), from, info.Condition(), image(name), objectstore.AdoptOptions{Copies: func(reason string) { said += reason }})
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if want == "" && said != "" || !strings.Contains(said, want) {
			t.Errorf("%s: %q", name, said)
		}
		wantRead(t, s, image(name), stat(t, s, image(name)), []byte(name))
	}
	asNobody(t, func() {
		_, err := s.Stat(t.Context(), objectstore.Location{Bucket: "source", Key: "secret.raw"})
		if !errors.Is(err, objectstore.ErrDenied) {
			t.Errorf("a file that may not be read: %v", err)
		}
	})
}
