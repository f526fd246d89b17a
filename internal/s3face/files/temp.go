package files

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are written before they are
// published. Behind it stand 26 random letters and digits.
const tempPrefix = "put-"

func tempName() string { return tempPrefix + strings.ToLower(rand.Text()) }

func isTempName(name string) bool {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	return ok && len(rest) == 26 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// Temp is a file that is written to become an object. It is discarded unless it
// was published.
type Temp struct {
	writer
	b    *Bucket
	dir  *os.File
	name string
}

// Create makes a file to write an object to.
func (b *Bucket) Create() (*Temp, error) {
	dir, err := makeDirs(b.dir, tempDir)
	if err != nil {
		return nil, b.gone(err)
	}
	t, err := b.createIn(dir)
	if err != nil {
		dir.Close()
		return nil, b.gone(err)
	}
	return t, nil
}

// gone is ErrNoBucket when the bucket was removed since it was opened.
func (b *Bucket) gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return ErrNoBucket
	}
	return err
}

func (b *Bucket) createIn(dir *os.File) (*Temp, error) {
	name := tempName()
	f, err := openAt(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	return &Temp{writer: writer{f: f}, b: b, dir: dir, name: name}, nil
}

// Publish makes what was written the object at key. It replaces the object
// there; condition, which may be nil, can prevent that.
func (t *Temp) Publish(key string, r *Record, condition Condition) (*Object, error) {
	if err := t.f.Truncate(t.off); err != nil { // the last bytes may be a hole
		return nil, err
	}
	o, err := t.b.publish(t.f, t.dir, t.name, key, r, condition)
	if err == nil {
		t.name = ""
	}
	return o, err
}

// Discard releases the file, and removes it unless it was published.
func (t *Temp) Discard() {
	if t.name != "" {
		_ = unlinkAt(t.dir, t.name, 0) // the next start removes what is left
	}
	t.f.Close()
	t.dir.Close()
}

const page = 4096

var zeros [page]byte

// flushEvery is after how many bytes the kernel is asked to begin writing, so
// that the sync at the end has little left to wait for.
const flushEvery = 32 << 20

// writer writes to a range of a file that holds nothing yet. It leaves out
// pages that are all zeros.
type writer struct {
	f       *os.File
	base    int64 // where in the file the range begins
	off     int64 // in the range
	flushed int64
}

// Size is how many bytes were written.
func (w *writer) Size() int64 { return w.off }

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := 0 // bytes that are not zero
		for done+n < len(p) {
			step := min(page-int((w.base+w.off+int64(n))%page), len(p)-done-n)
			if bytes.Equal(p[done+n:done+n+step], zeros[:step]) {
				break
			}
			n += step
		}
		if n > 0 {
			m, err := w.f.WriteAt(p[done:done+n], w.base+w.off)
			w.off += int64(m)
			done += m
			if err != nil {
				return done, err
			}
		}
		for done < len(p) {
			step := min(page-int((w.base+w.off)%page), len(p)-done)
			if !bytes.Equal(p[done:done+step], zeros[:step]) {
				break
			}
			w.off += int64(step)
			done += step
		}
	}
	if w.off-w.flushed >= flushEvery {
		// An error is found again by the sync at the end.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.base+w.flushed, w.off-w.flushed, unix.SYNC_FILE_RANGE_WRITE)
		w.flushed = w.off
	}
	return len(p), nil
}
