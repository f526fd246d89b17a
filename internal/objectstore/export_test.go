package objectstore

import (
	"fmt"
	"os"
	"time"
)

// ForceCopy makes the directory store behave as on a file system that can
// neither clone nor link.
func (d *Dir) ForceCopy() { d.noLink = true }

// OnSync calls f before a folder of the image area is synced, with the folder's path.
func (d *Dir) OnSync(f func(path string)) {
	d.syncFolder = func(folder *os.File) error {
		if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", folder.Fd())); err == nil {
			f(path)
		}
		return folder.Sync()
	}
}

// SetStall sets how long a response may bring nothing.
func (s *S3) SetStall(d time.Duration) { s.stall = d }

// AgeSignatures lets all signatures be as old as they may get.
func (s *S3) AgeSignatures() {
	s.signatures.mu.Lock()
	defer s.signatures.mu.Unlock()
	for o, g := range s.signatures.known {
		g.until = time.Now()
		s.signatures.known[o] = g
	}
}

// SetClock lets all signatures be as if the clock had been set by d since.
func (s *S3) SetClock(d time.Duration) {
	s.signatures.mu.Lock()
	defer s.signatures.mu.Unlock()
	for o, g := range s.signatures.known {
		g.signed = g.signed.Add(-d)
		s.signatures.known[o] = g
	}
}

// SignatureUntil says how long the signature for reads of an object is good.
func (s *S3) SignatureUntil(loc Location) (time.Time, bool) {
	bucket, key, _ := s.place(loc)
	s.signatures.mu.Lock()
	defer s.signatures.mu.Unlock()
	g, ok := s.signatures.known[s3Object{bucket, key, ""}]
	return g.until, ok
}

// Unsettled says how long a file with these times has yet to rest, looked at between
// before and after.
func Unsettled(mtime, ctime, before, after time.Time) time.Duration {
	return fileState{mtime: mtime.UnixNano(), ctime: ctime.UnixNano()}.unsettled(before, after)
}

// WithoutClone makes the directory store behave as on a file system that can link and
// cannot clone.
func (d *Dir) WithoutClone() { d.noClone = true }
