package blockdev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// cut ends the body of an Open after n bytes with err.
func cut(n int64, err error) plan {
	return func(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		body, oerr := open(ctx)
		if oerr != nil {
			return nil, oerr
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(body, n), errReader{err}), body}, nil
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// flip changes one byte of the body of an Open, counted from its front again where the body
// is shorter.
func flip(at int) plan {
	return func(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		body, err := open(ctx)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		all, err := io.ReadAll(body)
		if err != nil {
			return nil, err
		}
		all[at%len(all)] ^= 1
		return io.NopCloser(bytes.NewReader(all)), nil
	}
}

// stall brings n bytes and then nothing, for as long as it is let.
func stall(n int64) plan {
	return func(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		body, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(body, n), hung{ctx}), body}, nil
	}
}

type hung struct{ ctx context.Context }

func (h hung) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}

// refuse fails an Open.
func refuse(err error) plan {
	return func(context.Context, func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		return nil, err
	}
}

// What goes wrong on the way from the store is tried again, and what stays wrong fails
// the read: never other bytes, never zeros.
func TestFetchFaults(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	broken := errors.New("broken")
	short := io.ErrUnexpectedEOF
	for _, form := range forms {
		f := newFixture(t)
		data := f.image(t, form, disk)
		checked := form != "raw"
		for name, tc := range map[string]struct {
			plans   []plan
			fails   bool
			damaged bool
		}{
			"cut once":            {plans: []plan{cut(1000, short)}},
			"cut twice":           {plans: []plan{cut(0, short), cut(4095, short)}},
			"cut often":           {plans: []plan{cut(1, short), cut(1, short), cut(1, short), cut(2, short)}},
			"ends early":          {plans: []plan{cut(100, io.EOF)}},
			"stalls once":         {plans: []plan{stall(512)}},
			"stalls at once":      {plans: []plan{stall(0)}},
			"stalls often":        {plans: []plan{stall(0), stall(1), stall(2)}},
			"breaks":              {plans: []plan{cut(700, broken)}, fails: true},
			"unavailable":         {plans: []plan{refuse(objectstore.ErrUnavailable), refuse(objectstore.ErrUnavailable)}},
			"unavailable within":  {plans: []plan{cut(10, objectstore.ErrUnavailable)}},
			"denied":              {plans: []plan{refuse(objectstore.ErrDenied)}, fails: true},
			"gone":                {plans: []plan{refuse(objectstore.ErrNotFound)}, fails: true, damaged: true},
			"changed":             {plans: []plan{refuse(objectstore.ErrChanged)}, fails: true, damaged: true},
			"changed within":      {plans: []plan{cut(5000, objectstore.ErrChanged)}, fails: true, damaged: true},
			"corrupted once":      {plans: []plan{flip(4000)}},
			"corrupted always":    {plans: []plan{flip(4000), flip(4000), flip(4000)}, fails: true, damaged: true},
			"corrupted, then cut": {plans: []plan{flip(4000), cut(3, short)}},
		} {
			if strings.HasPrefix(name, "corrupted") && !checked {
				continue // nothing could tell
			}
			bubble(t, form+"/"+name, func(t *testing.T) {
				store := newFaulty(t, f.store)
				d := openOn(t, store, Options{}, at(data))
				off := d.firstData(t)
				d.readTable(t)
				store.plan(tc.plans...)
				p := make([]byte, 8192)
				_, err := d.ReadAtContext(t.Context(), p, off)
				if (err != nil) != tc.fails || Damaged(err) != tc.damaged {
					t.Fatalf("the read ended with error %v (damaged: %v)", err, Damaged(err))
				}
				if err == nil && !bytes.Equal(p, disk[off:off+8192]) {
					t.Fatal("other bytes were read")
				}
				// The fault has passed: nothing of it stays.
				if _, err := d.ReadAtContext(t.Context(), p, off); err != nil || !bytes.Equal(p, disk[off:off+8192]) {
					t.Fatalf("the next read ended with error %v, or with other bytes", err)
				}
			})
		}
	}
}

// A damaged record fails the reads of its own block alone, though its neighbours come
// with the same range.
func TestDamageStaysInItsBlock(t *testing.T) {
	t.Parallel()
	disk := benchDisk(6 << 20)
	for _, form := range forms[1:] {
		f := newFixture(t)
		store := newFaulty(t, f.store)
		c := newCache(t, store, Options{})
		d := openWith(t, c, at(f.image(t, form, disk)))
		first, place := d.im.layout.Offset(0), d.im.layout.Offset(1)
		d.readTable(t)
		// The three together, then the damaged one again and again.
		store.plan(flip(int(place-first)+4000), flip(4000), flip(4000))
		p := make([]byte, len(disk))
		if _, err := d.ReadAt(p, 0); !Damaged(err) {
			t.Fatalf("%s: damage was read with error %v", form, err)
		}
		before := store.opens.Load()
		for _, u := range []int64{0, 2} {
			off := u * d.BlockSize()
			if _, err := d.ReadAt(p[:4096], off); err != nil || !bytes.Equal(p[:4096], disk[off:off+4096]) {
				t.Errorf("%s: a neighbour of a damaged block: error %v, or other bytes", form, err)
			}
		}
		if n := store.opens.Load() - before; n > 1 {
			t.Errorf("%s: the neighbours were fetched %d times again", form, n)
		}
	}
}

// A server that answers 500, 503 or nothing, that cuts or damages its answers: with the
// store as the service uses it.
func TestServerFaults(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	g := storetest.StartGateway(t)
	s3 := storeOn(t, g)
	f := fixture{store: objectstore.Count(s3)}
	data := f.image(t, "zvhd2", disk)
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request, next http.Handler){
		"500": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) },
		"503": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(503) },
		"no answer": func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			<-r.Context().Done()
		},
		"cut": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(&cutWriter{ResponseWriter: w, left: 1000}, r)
		},
	} {
		d := openOn(t, f.store, Options{Stall: 200 * time.Millisecond}, at(data))
		off := d.firstData(t)
		var hits atomic.Int32
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if hits.Add(1) <= 2 {
					fault(w, r, next)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		p := make([]byte, 4096)
		if _, err := d.ReadAtContext(t.Context(), p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
			t.Errorf("%s: the read ended with error %v, or with other bytes", name, err)
		}
		if hits.Load() < 3 {
			t.Errorf("%s: the fault was hit %d times, it was planned twice", name, hits.Load())
		}
		g.Use(nil)
	}
}

// cutWriter breaks the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		_, _ = w.ResponseWriter.Write(p[:w.left])
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	w.left -= len(p)
	return w.ResponseWriter.Write(p)
}

// An image is read from its pinned source while it is adopted, and from the image area
// as soon as the source is gone; what was read before stays in the cache.
func TestSourceToImageArea(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			area := f.image(t, form, disk)
			source := f.source(t, area)
			var now atomic.Pointer[ims.Data]
			now.Store(&source)
			var asked atomic.Int32
			d := openOn(t, newFaulty(t, f.store), Options{}, func(context.Context) (ims.Data, error) {
				asked.Add(1)
				return *now.Load(), nil
			})
			off := d.firstData(t)
			p := make([]byte, 4096)
			if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
				t.Fatalf("read from the source: error %v, or other bytes", err)
			}
			if f.store.SourceReads().Opens == 0 {
				t.Fatal("nothing was read from the source")
			}
			f.removeSource(t, source)
			// Before the image is published a source that went away is an error.
			all := make([]byte, len(disk))
			if _, err := d.ReadAt(all, 0); !Damaged(err) {
				t.Fatalf("a source that went away was read with error %v", err)
			}
			if _, err := d.ReadAt(p, off); err != nil {
				t.Fatalf("what was read before is an error now: %v", err)
			}
			now.Store(&area)
			before := asked.Load()
			if _, err := d.ReadAt(all, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(all, disk) {
				t.Fatalf("read from the image area: error %v, or other bytes", err)
			}
			if n := asked.Load() - before; n != 1 {
				t.Errorf("it was asked %d times where the data is, want once", n)
			}
		})
	}
}

// A source that changed is an error, also when it is said to be another source now.
func TestSourceChanges(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	for _, form := range forms {
		f := newFixture(t)
		source := f.source(t, f.image(t, form, disk))
		var now atomic.Pointer[ims.Data]
		now.Store(&source)
		d := openOn(t, newFaulty(t, f.store), Options{}, func(context.Context) (ims.Data, error) { return *now.Load(), nil })
		f.writeSource(t, source)
		if n, err := d.ReadAt(make([]byte, len(disk)), 0); !errors.Is(err, objectstore.ErrChanged) {
			t.Errorf("%s: a changed source was read: %d bytes, error %v", form, n, err)
		}
		info, err := f.store.Stat(t.Context(), diskPlace(source).Location)
		if err != nil {
			t.Fatal(err)
		}
		other := source
		other.ETag = info.ETag
		now.Store(&other)
		if n, err := d.ReadAt(make([]byte, len(disk)), 0); !errors.Is(err, objectstore.ErrChanged) {
			t.Errorf("%s: another source was taken for the image's: %d bytes, error %v", form, n, err)
		}
	}
}

// A place that can't be asked for is an error that says so, and passes.
func TestLocateFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	data := f.image(t, "raw", testDisk())
	away := errors.New("the catalog is away")
	calls := 0
	store := newFaulty(t, f.store)
	d := openOn(t, store, Options{}, func(context.Context) (ims.Data, error) {
		if calls++; calls == 2 {
			return ims.Data{}, away
		}
		return data, nil
	})
	store.plan(refuse(objectstore.ErrNotFound))
	if _, err := d.ReadAt(make([]byte, 512), 0); !errors.Is(err, away) || Damaged(err) {
		t.Errorf("the read ended with error %v, want one that the catalog is away", err)
	}
	if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
		t.Errorf("the next read ended with error %v", err)
	}
}
