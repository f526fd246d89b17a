package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/client"
)

// lockUpload lets one import at a time upload a file; the others wait, until ctx ends.
// The lock is on the file itself, and ends when the file is closed. A file system
// without locks lets everybody in: the store then decides.
func (s *session) lockUpload(ctx context.Context, f *source) error {
	const pause = 100 * time.Millisecond
	for told := false; ; {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil
		}
		if !told {
			s.note("another import uploads %s; waiting for it", f.path)
			told = true
		}
		select {
		case <-ctx.Done():
			return errInterrupted
		case <-time.After(pause):
		}
	}
}

// there looks for an object that has the file's content already, by size and MD5: an
// earlier import of the same file left it, or one that ran at the same time.
func (s *session) there(ctx context.Context, store *client.Store, f *source, to objectName) (bool, error) {
	object, ok, err := s.stat(ctx, store, to)
	if err != nil || !ok || object.Size != f.size {
		return false, err
	}
	m := s.bytesMeter("compare", f.size)
	etag, err := client.ETagOf(ctx, f.File, f.size, m.add)
	m.close(err)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", f.path, interrupted(ctx, plain(err)))
	}
	if etag != object.ETag {
		return false, nil
	}
	s.note("%s is in the store already, as %s", f.path, to)
	return true, f.unchanged()
}

// stat is what lies under a name; false: nothing.
func (s *session) stat(ctx context.Context, store *client.Store, to objectName) (client.Object, bool, error) {
	object, err := store.Stat(ctx, to.bucket, to.key)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
		return object, false, nil
	}
	if err != nil {
		return object, false, fmt.Errorf("look at %s: %w", to, interrupted(ctx, err))
	}
	return object, true, nil
}
