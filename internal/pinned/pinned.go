// Package pinned reads bytes of one pinned generation of an object, wherever they are: in
// a file that this machine keeps open, in a cache, or in the store. It follows the object
// when adoption moves it, and waits for a store that fails.
//
// A Store is the object store as reads of images see it. An Object is one generation of
// one object. A Reader reads ranges of an Object for one fetch: Read makes one try, and
// after an error Await waits until the next try is due. The caller gives back what others
// may need, memory above all, before it calls Await.
//
// What is waited for is an error that passes by itself: a refused or reset connection, a
// timeout, 429, 500, 502, 503 or 504, and a body that ended early. An object that is not
// there, or is another one, is looked for once more where its place says it is now. All
// other errors stand.
package pinned

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/quickims/quickims/internal/objectcache"
	"github.com/quickims/quickims/internal/objectstore"
)

// Name names the bytes of an object for ever: no other bytes will have it. The generation
// is the image's, "" if it has none; the role is RoleDisk or RoleBitmap.
type Name = objectcache.Name

// The objects of an image.
const (
	RoleDisk   = "disk"
	RoleBitmap = "mf"
)

// Cache keeps bytes of objects on this machine. Its methods may be called by many
// goroutines at once and wait only for the local disk, and for that not long.
type Cache interface {
	// ReadAt fills p with the bytes from off on and reports true, or reports false; then
	// p is unspecified.
	ReadAt(n Name, p []byte, off int64) bool
	// Offer gives the cache bytes that the store sent: parts, one after the other, from off
	// on, whole pages but for the object's end. It keeps no reference to a part.
	Offer(n Name, off int64, parts ...[]byte)
	// Drop says that the bytes of a range did not pass a check of what they mean.
	Drop(n Name, off, length int64)
}

// Options say how a Store is read. The zero value is fine.
type Options struct {
	// Stall is how long a request may bring nothing before a second one runs beside it;
	// 0 is 5 seconds.
	Stall time.Duration
	// Wait is how long a request may bring nothing before it is an error; 0 is
	// DefaultWait.
	Wait time.Duration
	// Room is how much memory, in bytes, the Readers with a request at the store may hold
	// together: a store that hangs must not have all of it. 0 is no bound.
	Room int64
	// Cache is asked before the store; nil is none. An object without a generation is not
	// cached.
	Cache Cache
}

// DefaultWait is how long a read waits for a store that fails, if nothing is said.
const DefaultWait = time.Minute

// Store is an object store with what all reads of it share: whether it fails now, and
// counts. It may be used by many goroutines at once.
type Store struct {
	objects objectstore.Store
	opts    Options
	outage  atomic.Pointer[outage] // nil: the store answers
	room    *semaphore.Weighted

	requests, bytes, waiting atomic.Int64
}

// NewStore makes a Store of objects, which should not repeat requests itself.
func NewStore(objects objectstore.Store, opts Options) *Store {
	if opts.Stall <= 0 {
		opts.Stall = 5 * time.Second
	}
	if opts.Wait <= 0 {
		opts.Wait = DefaultWait
	}
	if opts.Room <= 0 {
		opts.Room = math.MaxInt64
	}
	return &Store{objects: objects, opts: opts, room: semaphore.NewWeighted(opts.Room)}
}

// Stats is what a Store has done.
type Stats struct {
	Requests int64 // ranges asked of the store or read of open files
	Bytes    int64 // that came
	Waiting  int64 // fetches that wait now until the store answers again
}

// Stats returns what was counted so far.
func (s *Store) Stats() Stats {
	return Stats{Requests: s.requests.Load(), Bytes: s.bytes.Load(), Waiting: s.waiting.Load()}
}

// Place is where an object lies, and which generation of it is meant.
type Place struct {
	Location  objectstore.Location
	Condition objectstore.Condition
}

// Locate says where an object lies now, or that it is not the same one any more. Many
// goroutines may call it at once.
type Locate func(ctx context.Context) (Place, error)

// Object is one generation of an object. It may be used by many goroutines at once.
type Object struct {
	store  *Store
	name   Name
	locate Locate
	at     atomic.Pointer[spot]
	moving sync.Mutex // held while locate is asked
	// trouble is why the last try failed, or stalls; nil once bytes come.
	trouble atomic.Pointer[error]
}

// Object makes an Object that lies at p.
func (s *Store) Object(name Name, p Place, locate Locate) *Object {
	o := &Object{store: s, name: name, locate: locate}
	o.at.Store(&spot{Place: p})
	return o
}

// Use says whether anybody reads the object from now on. What nobody reads is not kept
// open: a file that is deleted would keep its space.
func (o *Object) Use(used bool) { o.at.Load().use(used) }

// MoveTo says where the object lies from now on.
func (o *Object) MoveTo(p Place) {
	if now := o.at.Load(); now.Place != p {
		o.at.Store(&spot{Place: p})
		now.use(false)
	}
}

// Trouble is why the object cannot be read at present, nil if it can: the last try failed
// in a way that passes, or a request has brought nothing for too long.
func (o *Object) Trouble() error {
	if err := o.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Drop says that the bytes of a range did not pass their check: they are not cached.
func (o *Object) Drop(off, n int64) {
	if c := o.cache(); c != nil {
		c.Drop(o.name, off, n)
	}
}

// cache is nil if the object's bytes are not cached.
func (o *Object) cache() Cache {
	if o.name.Generation == "" {
		return nil
	}
	return o.store.opts.Cache
}

// Local reports whether the object is open on this machine, so that ReadNow may find
// something.
func (o *Object) Local() bool { return o.at.Load().open() != nil }

// ReadNow fills the parts of v, one after the other, from off on with as much as this
// machine has in memory of the open object, and returns how much that is. It waits for
// nobody. What lies behind it in v is unspecified.
func (o *Object) ReadNow(v [][]byte, off int64) int {
	h := o.at.Load().open()
	if h == nil {
		return 0
	}
	n := h.ReadReady(v, off)
	o.store.bytes.Add(int64(n))
	return n
}

// errSamePlace says that the object should be where it was not.
var errSamePlace = errors.New("the data is said to be where it was looked for")

// moved asks where the object is, after it was not at before. It returns nil if there is
// another place to read it at.
func (o *Object) moved(ctx context.Context, before *spot) error {
	o.moving.Lock()
	defer o.moving.Unlock()
	if o.at.Load().Place != before.Place {
		return nil // another fetch has asked
	}
	p, err := o.locate(ctx)
	switch {
	case err != nil:
		return err
	case p == before.Place:
		return errSamePlace
	}
	o.MoveTo(p)
	return nil
}

// missing tells that an object is not there, or not the one that was asked for.
func missing(err error) bool {
	return errors.Is(err, objectstore.ErrNotFound) || errors.Is(err, objectstore.ErrNoBucket) ||
		errors.Is(err, objectstore.ErrChanged) || errors.Is(err, objectstore.ErrDenied)
}

// Passes reports whether an error may be gone at the next try.
func Passes(err error) bool {
	return errors.Is(err, objectstore.ErrUnavailable) || errors.Is(err, io.ErrUnexpectedEOF)
}

// errStalled is a request that brought nothing for too long.
var errStalled = fmt.Errorf("%w: nothing came for too long", objectstore.ErrUnavailable)
