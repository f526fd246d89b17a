package blockdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quickims/quickims/internal/objectstore"
)

// bubble runs a test whose clock stands still while anybody works, and goes on to the
// next timer when all wait.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// firstData is where the disk's first data is.
func (d *Device) firstData(t *testing.T) int64 {
	t.Helper()
	for e := range d.Extents(0, d.Size()) {
		if e.Data {
			return e.Offset
		}
	}
	t.Fatal("the disk has no data")
	return 0
}

// readTable brings what the layout locates units with, if it needs that.
func (d *Device) readTable(t *testing.T) {
	t.Helper()
	if d.im.table != nil {
		if _, err := d.im.table.ReadAt(make([]byte, 256), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// openWith opens an image, and closes it at the end.
func openWith(t *testing.T, c *Cache, locate Locate) *Device {
	t.Helper()
	d, err := c.Open(t.Context(), "image", locate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// openOn is openWith with a cache of its own.
func openOn(t *testing.T, store objectstore.Store, opts Options, locate Locate) *Device {
	t.Helper()
	return openWith(t, newCache(t, store, opts), locate)
}

// A thousand readers of one cold unit make one fetch, through all devices of the image,
// and those that go away fail none of the others.
func TestOneFetchForManyReaders(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	for _, form := range forms {
		f := newFixture(t)
		data := f.image(t, form, disk) // what compresses is not for a bubble
		bubble(t, form, func(t *testing.T) {
			store := newFaulty(t, f.store)
			c := newCache(t, store, Options{})
			devices := []*Device{openWith(t, c, at(data)), openWith(t, c, at(data)), openWith(t, c, at(data))}
			off := devices[0].firstData(t)
			devices[0].readTable(t)
			p, entered, release := hold()
			store.plan(p)
			before := store.opens.Load()

			const readers, leavers = 1000, 300
			leaving, leave := context.WithCancel(t.Context())
			defer leave()
			var all, left sync.WaitGroup
			for i := range readers {
				all.Add(1)
				if i < leavers {
					left.Add(1)
				}
				go func() {
					defer all.Done()
					ctx := t.Context()
					if i < leavers {
						ctx = leaving
						defer left.Done()
					}
					got := make([]byte, 4096)
					_, err := devices[i%len(devices)].ReadAtContext(ctx, got, off)
					switch {
					case i < leavers && !errors.Is(err, context.Canceled):
						t.Errorf("a reader that went away has the error %v", err)
					case i >= leavers && err != nil:
						t.Errorf("a reader that stayed has the error %v", err)
					case i >= leavers && !bytes.Equal(got, disk[off:off+4096]):
						t.Error("a reader has other bytes")
					}
				}()
			}
			<-entered
			synctest.Wait() // until all readers wait
			leave()
			left.Wait()
			release()
			all.Wait()
			if n := store.opens.Load() - before; n != 1 {
				t.Errorf("%d readers of one block made %d fetches, want 1", readers, n)
			}
		})
	}
}

// gates lets a body go on a unit of a RAW disk at a time, when the channel says so.
func gates(next <-chan struct{}) plan {
	return func(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		body, err := open(ctx)
		return &gated{ReadCloser: body, ctx: ctx, next: next}, err
	}
}

type gated struct {
	io.ReadCloser
	ctx  context.Context
	next <-chan struct{}
	left int // bytes that may come
}

func (g *gated) Read(p []byte) (int, error) {
	if g.left == 0 {
		select {
		case <-g.next:
			g.left = 32 << 10
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
	n, err := g.ReadCloser.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

// Of the units of one fetch, some that are given up before they come, and some after
// others came, take nothing from a reader that waits for another: the fetch goes on for
// it, and ends when it leaves.
func TestFetchGoesOnForTheLast(t *testing.T) {
	t.Parallel()
	const size = 32 << 10
	disk := benchDisk(1 << 20)
	f := newFixture(t)
	data := f.image(t, "raw", disk)
	for _, stays := range []bool{true, false} {
		bubble(t, fmt.Sprintf("stays %v", stays), func(t *testing.T) {
			store := newFaulty(t, f.store)
			c := newCache(t, store, Options{Stall: time.Hour, Wait: 2 * time.Hour})
			d := openWith(t, c, at(data))
			next := make(chan struct{})
			store.plan(gates(next))
			read := func(off, n int64) (leave func() error) {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() {
					p := make([]byte, n)
					got, err := d.ReadAtContext(ctx, p, off)
					if !bytes.Equal(p[:got], disk[off:off+int64(got)]) {
						t.Error("other bytes")
					}
					done <- err
				}()
				synctest.Wait()
				return func() error {
					cancel()
					return <-done
				}
			}
			all, second, third := read(0, 3*size), read(size, size), read(2*size, size)
			if err := all(); !errors.Is(err, context.Canceled) {
				t.Errorf("the first reader's error is %v", err)
			}
			next <- struct{}{} // the first unit, which nobody wants any more
			synctest.Wait()
			if err := second(); !errors.Is(err, context.Canceled) {
				t.Errorf("the second reader's error is %v", err)
			}
			synctest.Wait()
			if stays {
				for range 2 {
					select {
					case next <- struct{}{}:
					case <-time.After(time.Minute):
						t.Error("the fetch has ended though a reader waits")
					}
				}
				synctest.Wait()
				if err := third(); err != nil {
					t.Errorf("the reader that stayed has the error %v", err)
				}
			} else if err := third(); !errors.Is(err, context.Canceled) {
				t.Errorf("the last reader's error is %v", err)
			}
			c.settled() // else the fetch waits for a store that brings nothing
		})
	}
}

// A fetch whose every reader left is given up, and who asks for the block afterwards
// gets it all the same.
func TestFetchIsGivenUp(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	f := newFixture(t)
	store := newFaulty(t, f.store)
	c := newCache(t, store, Options{Stall: time.Hour}) // no other request helps
	d := openWith(t, c, at(f.image(t, "zvhd2 in blocks", disk)))
	off := d.firstData(t)
	entered, ended := make(chan struct{}), make(chan struct{})
	store.plan(func(ctx context.Context, _ func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		close(entered)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := d.ReadAtContext(ctx, make([]byte, 512), off); !errors.Is(err, context.Canceled) {
		t.Fatalf("the reader that left has the error %v", err)
	}
	got := make([]byte, 4096) // maybe while the fetch is still ending
	if _, err := d.ReadAt(got, off); err != nil || !bytes.Equal(got, disk[off:off+4096]) {
		t.Fatalf("the block was read anew with error %v, or as other bytes", err)
	}
	<-ended
}
