package blockdev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/objectstore"
)

// failing is a store that refuses reads for a while, or hangs.
type failing struct {
	objectstore.Store
	until atomic.Pointer[time.Time]
	hangs bool
	opens atomic.Int64
}

func (f *failing) fail(d time.Duration) {
	until := time.Now().Add(d)
	f.until.Store(&until)
}

func (f *failing) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	f.opens.Add(1)
	if until := f.until.Load(); until != nil && time.Now().Before(*until) {
		if f.hangs {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, objectstore.ErrUnavailable
	}
	return f.Store.Open(ctx, loc, cond, off, n)
}

// A read waits for a store that refuses, as long as store.wait says and no longer; so does
// an opening, and the reading of checksums. What is resident is read meanwhile.
func TestReadsWaitForTheStore(t *testing.T) {
	disk := testDisk()
	for _, form := range forms {
		f := newFarFixture(t)
		data := f.image(t, form, disk) // what compresses is not for a bubble
		for _, tc := range []struct {
			refused time.Duration
			fails   bool
		}{{59 * time.Second, false}, {61 * time.Second, true}} {
			bubble(t, form+"/"+tc.refused.String(), func(t *testing.T) {
				store := &failing{Store: f.store}
				d := openOn(t, store, Options{}, at(data))
				off := d.firstData(t)
				p := make([]byte, 4096)
				if _, err := d.ReadAt(p, off); err != nil {
					t.Fatal(err)
				}
				store.fail(tc.refused)
				start := time.Now()
				cold := off + 2<<20
				var work sync.WaitGroup
				work.Go(func() {
					q := make([]byte, 4096)
					_, err := d.ReadAtContext(t.Context(), q, cold)
					if took := time.Since(start); (err != nil) != tc.fails || took > 60*time.Second || took < 59*time.Second {
						t.Errorf("a read ended with error %v after %s", err, took)
					}
					if err == nil && !bytes.Equal(q, disk[cold:cold+4096]) {
						t.Error("other bytes were read")
					}
					if err != nil && (!errors.Is(err, objectstore.ErrUnavailable) || Damaged(err)) {
						t.Errorf("error %v", err)
					}
				})
				if form != "raw" { // of which nothing is read to open it
					work.Go(func() {
						_, err := newCache(t, store, Options{}).Open(t.Context(), "image", at(data))
						if took := time.Since(start); (err != nil) != tc.fails || took > 60*time.Second {
							t.Errorf("an opening ended with error %v after %s", err, took)
						}
					})
				}
				time.Sleep(time.Second)
				if !d.TryRead(p, off) || !bytes.Equal(p, disk[off:off+4096]) {
					t.Error("what is resident can't be read")
				}
				work.Wait()
			})
		}
	}
}

// Each reader has its own time: one that comes when others have waited long loses nothing.
func TestLateReaderHasItsOwnTime(t *testing.T) {
	bubble(t, "raw", func(t *testing.T) {
		disk := testDisk()
		f := newFarFixture(t)
		store := &failing{Store: f.store}
		d := openOn(t, store, Options{}, at(f.image(t, "raw", disk)))
		store.fail(100 * time.Second)
		var work sync.WaitGroup
		read := func(fails bool) {
			p := make([]byte, 4096)
			if _, err := d.ReadAt(p, 0); (err != nil) != fails || err == nil && !bytes.Equal(p, disk[:4096]) {
				t.Errorf("error %v, or other bytes", err)
			}
		}
		work.Go(func() { read(true) })
		time.Sleep(50 * time.Second)
		work.Go(func() { read(false) })
		work.Wait()
	})
}

// Reads that wait for a dead store hold no memory that cached images need, whether it
// refuses or hangs, and a stop of the service or a reader that leaves ends the wait at
// once.
func TestDeadStoreLeavesMemory(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		name := "refuses"
		if hangs {
			name = "hangs"
		}
		bubble(t, name, func(t *testing.T) {
			disk := benchDisk(64 << 20)
			f := newFarFixture(t)
			store := &failing{Store: f.store, hangs: hangs}
			c, err := NewCache(store, Options{Memory: MinMemory})
			if err != nil {
				t.Fatal(err)
			}
			d := f.open(t, c, f.image(t, "raw", disk))
			p := make([]byte, 1<<20)
			if _, err := d.ReadAt(p, 0); err != nil {
				t.Fatal(err)
			}
			c.settled()
			store.fail(time.Hour)
			_, _ = d.ReadAtContext(deadline(t, time.Second), make([]byte, 1), 8<<20) // it finds the store failing
			before := store.opens.Load()
			ctx, leave := context.WithCancel(t.Context())
			var work sync.WaitGroup
			for i := range int64(1000) {
				work.Go(func() {
					rctx := t.Context()
					if i%2 == 0 {
						rctx = ctx
					}
					_, err := d.ReadAtContext(rctx, make([]byte, 40<<10), 8<<20+i*40<<10)
					if want := map[bool]error{true: context.Canceled, false: errClosed}[i%2 == 0]; !errors.Is(err, want) {
						t.Errorf("error %v, want %v", err, want)
					}
				})
			}
			time.Sleep(30 * time.Second)
			if n := store.opens.Load() - before; !hangs && n > 400 {
				t.Errorf("%d requests in 30 seconds", n)
			}
			if hangs {
				if g := c.mem.TryGrant(MinMemory / 4); g == nil {
					t.Error("a quarter of the memory is not free")
				} else {
					g.Release()
				}
			} else {
				if !d.TryRead(p, 0) || !bytes.Equal(p, disk[:1<<20]) {
					t.Error("what was resident is not any more")
				}
				if g := c.mem.TryGrant(MinMemory); g == nil {
					t.Error("the memory is not free")
				} else {
					g.Release()
				}
			}
			start := time.Now()
			leave()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			work.Wait()
			if took := time.Since(start); took > 0 {
				t.Errorf("the stop took %s", took)
			}
		})
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Read-ahead that fails is not waited for, and a reader that wants what it was to bring
// waits for the store like all others.
func TestReadAheadTriesOnce(t *testing.T) {
	bubble(t, "raw", func(t *testing.T) {
		disk := benchDisk(8 << 20)
		f := newFarFixture(t)
		store := &failing{Store: f.store}
		c := newCache(t, store, Options{})
		d := f.open(t, c, f.image(t, "raw", disk))
		store.fail(20 * time.Second)
		start := time.Now()
		if err := d.Prefetch(t.Context(), 0, 4<<20); err != nil {
			t.Fatal(err)
		}
		c.settled()
		if took := time.Since(start); took > time.Second || c.mem.Unread() != 0 {
			t.Errorf("after %s %d bytes are still wanted", took, c.mem.Unread())
		}
		if err := d.Prefetch(t.Context(), 0, 4<<20); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		if _, err := d.ReadAt(p, 1<<20); err != nil || !bytes.Equal(p, disk[1<<20:1<<20+4096]) {
			t.Errorf("error %v, or other bytes", err)
		}
	})
}

// slow is a store that takes its time for every answer.
type slow struct {
	objectstore.Store
	takes time.Duration
}

func (s slow) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Store.Open(ctx, loc, cond, off, n)
}

// A store that takes 25 seconds for every answer is slow, and no error: not when checksums
// have to be read first either.
func TestSlowAnswers(t *testing.T) {
	disk := testDisk()
	for _, form := range forms {
		f := newFarFixture(t)
		data := f.image(t, form, disk) // what compresses is not for a bubble
		bubble(t, form, func(t *testing.T) {
			d := openOn(t, slow{f.store, 25 * time.Second}, Options{}, at(data))
			off := d.firstData(t)
			p, start := make([]byte, 8192), time.Now()
			if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+8192]) {
				t.Errorf("error %v after %s, or other bytes", err, time.Since(start))
			}
		})
	}
}
