// Package allowance bounds the bytes that projects store: each project by its limit,
// over buckets and images together, and all of them by a reserve on the disk that the
// database lies on.
//
// What lies in buckets is counted from the files themselves, so that neither a crash nor
// a file that came by other means makes the count wrong for good. A count is made at a
// project's first upload, and again when the limit seems reached or the count is old, not
// for each request: in between, what uploads bring is added, and what they replace or
// delete is not subtracted. So the count is never too low for what came over S3.
package allowance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrQuota says that the project's bytes would be more than its limit.
	ErrQuota = errors.New("the project's limit of stored bytes is reached")
	// ErrReserve says that the disk of the database has no more space than its reserve.
	ErrReserve = errors.New("the disk of the database is full up to its reserve")
)

// DefaultReserve is kept free on the disk of the database, in bytes.
const DefaultReserve = 1 << 30

const (
	// recount is the age at which a count is made anew. A count is never made more often
	// than it takes a tenth of the time, nor than once in recountMin.
	recount    = time.Minute
	recountMin = time.Second
)

// Options of an Allowance.
type Options struct {
	// Bytes is the limit of each project; 0 means none.
	Bytes int64
	// Folder holds a folder for each bucket; "" if the buckets lie elsewhere and do not
	// count.
	Folder string
	// Buckets names a project's buckets, Images the bytes of its images.
	Buckets func(ctx context.Context, projectID string) ([]string, error)
	Images  func(ctx context.Context, projectID string) (int64, error)
	// Disk is a folder on the disk of the database; "" if the database lies on another
	// machine. Reserve is what is kept free there, in bytes.
	Disk    string
	Reserve int64
	// Apart says that the buckets lie on another disk: uploads leave the reserve alone.
	Apart bool
}

// Allowance counts. It is safe for concurrent use. A nil Allowance has no limits, and
// neither has a nil Upload.
type Allowance struct {
	opts Options

	mu       sync.Mutex
	projects map[string]*project
}

// project is what is known of a project's bytes. Its fields are guarded by the
// Allowance's mu; counting is held by who counts.
type project struct {
	counting chan struct{} // of capacity 1
	counted  int64         // bytes of files at the last count
	at       time.Time     // when it began, zero: never
	took     time.Duration
	added    int64 // by uploads that ended since then
	live     int64 // by uploads that go on
	images   int64 // when an upload last began
}

// New makes an Allowance.
func New(o Options) *Allowance {
	return &Allowance{opts: o, projects: map[string]*project{}}
}

// Room is ErrReserve if n more bytes would leave less than the reserve free on the disk of
// the database. It costs a system call.
func (a *Allowance) Room(n int64) error {
	if a == nil || a.opts.Disk == "" || a.opts.Reserve == 0 {
		return nil
	}
	free, err := a.Free()
	if err != nil {
		return err
	}
	if free-n < a.opts.Reserve {
		return fmt.Errorf("%w: %d bytes are free on the disk of %s, and %d are kept free", ErrReserve, free, a.opts.Disk, a.opts.Reserve)
	}
	return nil
}

// Watched tells whether there is a disk whose space the service keeps an eye on.
func (a *Allowance) Watched() bool { return a.opts.Disk != "" }

// Free is how many bytes are free on the disk of the database. It costs a system call,
// and is for a Watched disk alone.
func (a *Allowance) Free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(a.opts.Disk, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", a.opts.Disk, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// NearlyFull tells whether less than twice the reserve is free on the disk of the
// database: time to make room before uploads are refused.
func (a *Allowance) NearlyFull() bool {
	if a == nil || !a.Watched() || a.opts.Reserve == 0 {
		return false
	}
	free, err := a.Free()
	return err == nil && free < 2*a.opts.Reserve
}

// UploadRoom is Room for bytes that go to the buckets' disk.
func (a *Allowance) UploadRoom(n int64) error {
	if a == nil || a.opts.Apart {
		return nil
	}
	return a.Room(n)
}

// Upload is something that is being stored for a project.
type Upload struct {
	a *Allowance
	p *project
	n int64
}

// Begin begins an upload of about n bytes, 0 if that is not known. ErrQuota and ErrReserve
// say that there is no room for them.
func (a *Allowance) Begin(ctx context.Context, projectID string, n int64) (*Upload, error) {
	if a == nil {
		return nil, nil
	}
	if err := a.UploadRoom(n); err != nil {
		return nil, err
	}
	if a.opts.Bytes == 0 {
		return &Upload{a: a}, nil
	}
	p, err := a.look(ctx, projectID, n)
	if err != nil {
		return nil, err
	}
	return &Upload{a: a, p: p}, nil
}

// BeginCopy begins a copy of n bytes that lie in a bucket already, and counts them. How
// much room they take shows when they are copied: holes take none, and neither do blocks
// that both files share. So who copies asks UploadRoom before it writes.
func (a *Allowance) BeginCopy(ctx context.Context, projectID string, n int64) (*Upload, error) {
	if a == nil || a.opts.Bytes == 0 {
		return nil, nil
	}
	p, err := a.look(ctx, projectID, n)
	if err != nil {
		return nil, err
	}
	u := &Upload{a: a, p: p}
	return u, u.count(n)
}

// Grow counts n more bytes before they are written.
func (u *Upload) Grow(n int64) error {
	if u == nil {
		return nil
	}
	if err := u.a.UploadRoom(n); err != nil {
		return err
	}
	if u.p == nil {
		return nil
	}
	return u.count(n)
}

func (u *Upload) count(n int64) error {
	u.a.mu.Lock()
	defer u.a.mu.Unlock()
	if u.p.used()+n > u.a.opts.Bytes {
		return ErrQuota
	}
	u.p.live += n
	u.n += n
	return nil
}

// End ends the upload. What was not stored is not counted any more.
func (u *Upload) End(stored bool) {
	if u == nil || u.p == nil {
		return
	}
	u.a.mu.Lock()
	defer u.a.mu.Unlock()
	if u.p.live -= u.n; stored {
		u.p.added += u.n
	}
	u.n = 0
}

// InBuckets is what a project has in buckets, in bytes; 0 without a limit.
func (a *Allowance) InBuckets(ctx context.Context, projectID string) (int64, error) {
	if a == nil || a.opts.Bytes == 0 {
		return 0, nil
	}
	p, err := a.look(ctx, projectID, 0)
	if err != nil && !errors.Is(err, ErrQuota) {
		return 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return p.counted + p.added + p.live, nil
}

func (p *project) used() int64 { return p.counted + p.added + p.live + p.images }

// look brings what is known of a project up to date as far as that is needed, and is
// ErrQuota if n more bytes are too many.
func (a *Allowance) look(ctx context.Context, projectID string, n int64) (*project, error) {
	images, err := a.opts.Images(ctx, projectID)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	p := a.projects[projectID]
	if p == nil {
		p = &project{counting: make(chan struct{}, 1)}
		a.projects[projectID] = p
	}
	p.images = images
	a.mu.Unlock()
	need := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		age := time.Since(p.at)
		switch {
		case p.at.IsZero():
			return true
		case age < max(recountMin, 10*p.took):
			return false
		}
		return age >= recount || p.used()+n > a.opts.Bytes
	}
	if need() {
		select {
		case p.counting <- struct{}{}:
		case <-ctx.Done():
			return p, ctx.Err()
		}
		if need() { // nobody else counted meanwhile
			err = a.count(ctx, projectID, p)
		}
		<-p.counting
		if err != nil {
			return p, fmt.Errorf("count the bytes of project %s: %w", projectID, err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.used()+n > a.opts.Bytes {
		return p, fmt.Errorf("%w: %d bytes of %d are used", ErrQuota, p.used(), a.opts.Bytes)
	}
	return p, nil
}

// count goes through the files of the project's buckets.
func (a *Allowance) count(ctx context.Context, projectID string, p *project) error {
	if a.opts.Folder == "" {
		a.mu.Lock()
		defer a.mu.Unlock()
		p.at = time.Now()
		return nil
	}
	began := time.Now()
	a.mu.Lock()
	before := p.added
	a.mu.Unlock()
	names, err := a.opts.Buckets(ctx, projectID)
	if err != nil {
		return err
	}
	var sum int64
	for _, name := range names {
		if err := filepath.WalkDir(filepath.Join(a.opts.Folder, name), func(_ string, e fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, os.ErrNotExist) {
				return nil // deleted meanwhile
			}
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				sum += info.Size()
			} else if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return err
		}); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// What was added before the count is in it, or was deleted. An upload that ended while
	// the count went on may be in it too: it counts twice until the next count.
	p.counted, p.at, p.took, p.added = sum, began, time.Since(began), max(0, p.added-before)
	return nil
}
