package pinned

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/objectcache"
	"github.com/quickims/quickims/internal/objectstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a directory store whose reads are requests, which do as a test says.
type store struct {
	objectstore.Store
	images string
	// request is what a request does before it is made, if not nil: wait, or fail.
	request func(ctx context.Context, loc objectstore.Location) error
	// body changes what a request brings.
	body func(ctx context.Context, r io.Reader) io.Reader

	opens, now, most atomic.Int64
}

func (s *store) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	s.opens.Add(1)
	now := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	if s.request != nil {
		if err := s.request(ctx, loc); err != nil {
			return nil, err
		}
	}
	body, err := s.Store.Open(ctx, loc, cond, off, n)
	if err != nil || s.body == nil {
		return body, err
	}
	return struct {
		io.Reader
		io.Closer
	}{s.body(ctx, body), body}, nil
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newDir(t testing.TB) (*objectstore.Dir, string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"buckets", "images"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, err := objectstore.OpenDir(filepath.Join(dir, "buckets"), filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	return d, filepath.Join(dir, "images")
}

func newStore(t testing.TB) *store {
	d, images := newDir(t)
	return &store{Store: d, images: images}
}

func put(t testing.TB, s objectstore.Store, key string, data []byte) Place {
	t.Helper()
	loc := objectstore.Location{Key: key}
	info, err := s.Put(t.Context(), loc, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return Place{loc, info.Condition()}
}

func stays(p Place) Locate { return func(context.Context) (Place, error) { return p, nil } }

func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{3}).Read(p)
	return p
}

// read reads as fetches do: until it succeeds, or there is no other try.
func read(ctx context.Context, o *Object, p []byte, off int64) error {
	r := o.NewReader(ctx, 0)
	defer r.Close()
	for {
		r.Range(off, int64(len(p)))
		err := r.Read(p, off)
		if err == nil {
			return nil
		}
		if err := r.Await(err); err != nil {
			return err
		}
	}
}

// hung brings nothing until its context ends.
type hung struct{ ctx context.Context }

func (h hung) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// pages is a Cache of whole pages, half of which it forgets. It checks what it is offered.
type pages struct {
	t    *testing.T
	data []byte // the object
	has  map[int64]bool
}

func (c *pages) ReadAt(_ Name, p []byte, off int64) bool {
	for at := off / objectcache.PageSize; at*objectcache.PageSize < off+int64(len(p)); at++ {
		if !c.has[at] {
			return false
		}
	}
	copy(p, c.data[off:])
	return true
}

func (c *pages) Offer(_ Name, off int64, parts ...[]byte) {
	p := bytes.Join(parts, nil)
	end := off + int64(len(p))
	switch {
	case off%objectcache.PageSize != 0 || end%objectcache.PageSize != 0 && end != int64(len(c.data)):
		c.t.Errorf("%d bytes at %d are not whole pages", len(p), off)
	case !bytes.Equal(p, c.data[off:end]):
		c.t.Errorf("%d bytes at %d are not the object's", len(p), off)
	}
	for ; off < end; off += objectcache.PageSize {
		c.has[off/objectcache.PageSize] = off/objectcache.PageSize%16 < 8 // runs, so that reads are found in part and whole
	}
}

func (c *pages) Drop(Name, int64, int64) {}

// TestRead: whatever requests bring, in whatever pieces, a Reader gives the object's bytes.
func TestRead(t *testing.T) {
	data := random(300_000)
	dir, _ := newDir(t)
	place := put(t, dir, "a/1/disk", data)
	rapid.Check(t, func(rt *rapid.T) {
		seed, cached := rapid.Uint64().Draw(rt, "faults"), rapid.Bool().Draw(rt, "cached")
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			s := &store{Store: dir, body: func(ctx context.Context, body io.Reader) io.Reader {
				mu.Lock()
				defer mu.Unlock()
				n := r.Int64N(100_000)
				switch r.IntN(5) {
				case 0: // cut
					return io.MultiReader(io.LimitReader(body, n), broken{objectstore.ErrUnavailable})
				case 1: // ends early
					return io.LimitReader(body, n)
				case 2: // stalls
					return io.MultiReader(io.LimitReader(body, n), hung{ctx})
				}
				return body
			}}
			opts, name := Options{}, Name{Generation: "g", Role: RoleDisk, Size: int64(len(data))}
			if cached {
				opts.Cache = &pages{t: t, data: data, has: map[int64]bool{}}
			}
			o := NewStore(s, opts).Object(name, place, stays(place))
			reader := o.NewReader(t.Context(), 0)
			defer reader.Close()
			for off := int64(0); off < int64(len(data)); {
				end := off + min(1+r.Int64N(200_000), int64(len(data))-off)
				reader.Range(off, end-off)
				for off < end {
					p := make([]byte, min(1+r.Int64N(50_000), end-off))
					if err := reader.Read(p, off); err != nil {
						if err := reader.Await(err); err != nil {
							t.Fatalf("at %d: %v", off, err)
						}
						reader.Range(off, end-off)
						continue
					}
					if !bytes.Equal(p, data[off:off+int64(len(p))]) {
						t.Fatalf("at %d: other bytes", off)
					}
					off += int64(len(p)) + r.Int64N(3)*1000 // some are passed over
				}
			}
		})
	})
}

// TestSlowStore: a store that takes 25 seconds for every answer is slow, and no more; one
// that never answers is an error after the wait.
func TestSlowStore(t *testing.T) {
	for _, tc := range []struct {
		takes, after time.Duration
		fails        bool
	}{{25 * time.Second, 25 * time.Second, false}, {time.Hour, time.Minute, true}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(t)
			data := random(100)
			place := put(t, s, "a/1/disk", data)
			s.request = func(ctx context.Context, _ objectstore.Location) error { return sleep(ctx, tc.takes) }
			o := NewStore(s, Options{}).Object(Name{Size: 100}, place, stays(place))
			start := time.Now()
			r := o.NewReader(t.Context(), 0)
			defer r.Close()
			p := make([]byte, 100)
			r.Range(0, 100)
			err := r.Read(p, 0)
			if took := time.Since(start); (err != nil) != tc.fails || took != tc.after || err == nil && !bytes.Equal(p, data) {
				t.Errorf("answers that take %s: error %v after %s", tc.takes, err, took)
			}
			if n := s.most.Load(); n != 1+maxBeside && !(n == 3 && !tc.fails) {
				t.Errorf("answers that take %s: %d requests at once", tc.takes, n)
			}
			if trouble := o.Trouble(); (trouble != nil) != tc.fails {
				t.Errorf("answers that take %s: trouble %v", tc.takes, trouble)
			}
		})
	}
}

// TestDeadConnection: when a request hangs, one beside it that is answered goes on.
func TestDeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		data := random(200_000)
		place := put(t, s, "a/1/disk", data)
		hangs := true
		s.body = func(ctx context.Context, body io.Reader) io.Reader {
			if hangs {
				hangs = false
				return io.MultiReader(io.LimitReader(body, 150_000), hung{ctx})
			}
			return body
		}
		o := NewStore(s, Options{}).Object(Name{Size: 200_000}, place, stays(place))
		start, p := time.Now(), make([]byte, 200_000)
		if err := read(t.Context(), o, p, 0); err != nil || !bytes.Equal(p, data) {
			t.Errorf("error %v, or other bytes", err)
		}
		if took := time.Since(start); took != 5*time.Second || s.opens.Load() != 2 {
			t.Errorf("%d requests took %s", s.opens.Load(), took)
		}
	})
}

// TestProbes: while a store fails, four requests at a time probe it, whoever waits; when it
// answers again all go on.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		data := random(1000)
		place := put(t, s, "a/1/disk", data)
		start := time.Now()
		s.request = func(ctx context.Context, _ objectstore.Location) error {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				return err
			}
			if time.Since(start) < 30*time.Second {
				return objectstore.ErrUnavailable
			}
			return nil
		}
		ps := NewStore(s, Options{})
		o := ps.Object(Name{Size: 1000}, place, stays(place))
		var work sync.WaitGroup
		reader := func(i int64) {
			p := make([]byte, 1)
			if err := read(t.Context(), o, p, i); err != nil || p[0] != data[i] {
				t.Errorf("reader %d: error %v, or another byte", i, err)
			}
		}
		work.Go(func() { reader(0) }) // it finds the store failing
		time.Sleep(time.Second)
		for i := int64(1); i < 1000; i++ {
			work.Go(func() { reader(i) })
		}
		time.Sleep(28 * time.Second)
		if most, n := s.most.Load(), s.opens.Load(); most > probes || n > 400 || n < 20 {
			t.Errorf("while the store failed there were %d requests, %d at once", n, most)
		}
		if n := ps.Stats().Waiting; n != 1000 {
			t.Errorf("%d readers wait", n)
		}
		work.Wait()
		if took := time.Since(start); took > 32*time.Second || ps.Stats().Waiting != 0 {
			t.Errorf("the last was served after %s, %d wait", took, ps.Stats().Waiting)
		}
	})
}

// TestTurns: an object that the store cannot deliver does not keep others waiting, however
// many want it.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		bad, good := put(t, s, "a/1/disk", random(100)), put(t, s, "b/1/disk", random(100))
		s.request = func(_ context.Context, loc objectstore.Location) error {
			if loc == bad.Location {
				return objectstore.ErrUnavailable
			}
			return nil
		}
		ps := NewStore(s, Options{})
		a, b := ps.Object(Name{Size: 100}, bad, stays(bad)), ps.Object(Name{Size: 100}, good, stays(good))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var work sync.WaitGroup
		for range 200 {
			work.Go(func() {
				if err := read(ctx, a, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the bad object was read with error %v", err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		for range 20 {
			start := time.Now()
			if err := read(t.Context(), b, make([]byte, 1), 0); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the good object was waited for %s", took)
			}
			time.Sleep(time.Second)
		}
		work.Wait()
	})
}

// TestFollows: an object that is gone is read where it is now, at once; one that is said to
// be where it was not is an error.
func TestFollows(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	data := random(5000)
	before, after := put(t, s, "a/1/disk", data), put(t, s, "a/2/disk", data)
	now := before
	asked := 0
	o := NewStore(s, Options{}).Object(Name{Size: 5000}, before, func(context.Context) (Place, error) {
		asked++
		return now, nil
	})
	p := make([]byte, 5000)
	if err := read(t.Context(), o, p, 0); err != nil || !bytes.Equal(p, data) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.images, "a/1/disk")); err != nil {
		t.Fatal(err)
	}
	if err := read(t.Context(), o, p, 0); !errors.Is(err, objectstore.ErrNotFound) || asked != 1 {
		t.Errorf("an object that is gone was read with error %v, its place was asked %d times", err, asked)
	}
	now = after
	for range 2 {
		if err := read(t.Context(), o, p, 0); err != nil || !bytes.Equal(p, data) || asked != 2 {
			t.Errorf("where it is now: error %v, asked %d times", err, asked)
		}
	}
	away := errors.New("the catalog is away")
	if err := os.Remove(filepath.Join(s.images, "a/2/disk")); err != nil {
		t.Fatal(err)
	}
	o.locate = func(context.Context) (Place, error) { return Place{}, away }
	if err := read(t.Context(), o, p, 0); !errors.Is(err, away) {
		t.Errorf("error %v, want one that the place cannot be asked for", err)
	}
}

// TestErrorsThatStand: what will not pass is not waited for.
func TestErrorsThatStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		place := put(t, s, "a/1/disk", random(10))
		o := NewStore(s, Options{}).Object(Name{Size: 10}, place, stays(place))
		start := time.Now()
		for _, want := range []error{objectstore.ErrDenied, objectstore.ErrChanged, objectstore.ErrNoSpace, objectstore.ErrInvalid, errors.New("broken")} {
			s.request = func(context.Context, objectstore.Location) error { return want }
			if err := read(t.Context(), o, make([]byte, 10), 0); !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %s", took)
		}
	})
}

// memory is a Cache that forgets nothing.
type memory struct {
	mu    sync.Mutex
	bytes map[Name]map[int64]byte
}

func (m *memory) ReadAt(n Name, p []byte, off int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range p {
		b, ok := m.bytes[n][off+int64(i)]
		if !ok {
			return false
		}
		p[i] = b
	}
	return true
}

func (m *memory) Offer(n Name, off int64, parts ...[]byte) {
	p := bytes.Join(parts, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes[n] == nil {
		m.bytes[n] = map[int64]byte{}
	}
	for i, b := range p {
		m.bytes[n][off+int64(i)] = b
	}
}

func (m *memory) Drop(n Name, off, length int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range length {
		delete(m.bytes[n], off+i)
	}
}

// TestCache: what the store sent is offered to the cache, and read from there whether the
// store answers or not, under the object's own name; an object without a name is not.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newStore(t), &memory{bytes: map[Name]map[int64]byte{}}
		data := random(1000)
		place := put(t, s, "a/1/disk", data)
		ps := NewStore(s, Options{Cache: c})
		object := func(generation, role string) *Object {
			return ps.Object(Name{Generation: generation, Role: role, Size: 1000}, place, stays(place))
		}
		p := make([]byte, 1000)
		for _, o := range []*Object{object("g", RoleDisk), object("", RoleDisk)} {
			if err := read(t.Context(), o, p, 0); err != nil || !bytes.Equal(p, data) {
				t.Fatal(err)
			}
		}
		s.request = func(context.Context, objectstore.Location) error { return objectstore.ErrUnavailable }
		clear(p)
		if err := read(t.Context(), object("g", RoleDisk), p[:500], 300); err != nil || !bytes.Equal(p[:500], data[300:800]) {
			t.Errorf("from the cache: error %v, or other bytes", err)
		}
		o := object("g", RoleDisk)
		o.Drop(400, 1)
		for _, o := range []*Object{o, object("", RoleDisk), object("h", RoleDisk), object("g", RoleBitmap)} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := read(ctx, o, p[:500], 300); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v was read from the cache (%v)", o.name, err)
			}
			cancel()
		}
	})
}

// TestLateReadLeavesTheNextHandle: a read of a handle that was closed meanwhile leaves
// alone the one that is open since the object is used again.
func TestLateReadLeavesTheNextHandle(t *testing.T) {
	t.Parallel()
	d, _ := newDir(t)
	place := put(t, d, "a/1/disk", random(1<<20))
	o := NewStore(d, Options{}).Object(Name{Size: 1 << 20}, place, stays(place))
	at := o.at.Load()
	late := at.hold(t.Context(), d)
	if late == nil || !o.Local() {
		t.Fatal("the object is not kept open")
	}
	o.Use(false)
	o.Use(true)
	next := at.hold(t.Context(), d)
	if err := late.ReadAt(t.Context(), make([]byte, 4096), 0); err == nil {
		t.Error("a handle that was closed was read")
	}
	at.close(late)
	if next == nil || at.open() != next {
		t.Error("the handle that is open since was closed")
	}
	o.Use(false)
	if o.Local() {
		t.Error("an object that nobody reads is kept open")
	}
}

// slowHolder is a store that opens a handle when it may.
type slowHolder struct {
	*objectstore.Dir
	asked, may chan struct{}
}

func (s slowHolder) Hold(ctx context.Context, loc objectstore.Location, cond objectstore.Condition) (objectstore.Held, error) {
	close(s.asked)
	<-s.may
	return s.Dir.Hold(ctx, loc, cond)
}

// TestOpenedForNobody: a handle that opens after the last reader of its object has gone is
// not kept.
func TestOpenedForNobody(t *testing.T) {
	t.Parallel()
	d, _ := newDir(t)
	data := random(1000)
	place := put(t, d, "a/1/disk", data)
	s := slowHolder{d, make(chan struct{}), make(chan struct{})}
	o := NewStore(s, Options{}).Object(Name{Size: 1000}, place, stays(place))
	done := make(chan error)
	p := make([]byte, 1000)
	go func() { done <- read(t.Context(), o, p, 0) }()
	<-s.asked
	o.Use(false)
	close(s.may)
	if err := <-done; err != nil || !bytes.Equal(p, data) {
		t.Errorf("error %v, or other bytes", err)
	}
	if o.Local() {
		t.Error("an object that nobody reads is kept open")
	}
}
