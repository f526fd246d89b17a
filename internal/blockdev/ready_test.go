package blockdev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

// raws are the forms whose bytes lie in the object as they are.
var raws = []string{"raw", "raw with bitmap"}

// touchAll makes the device hold its file open, and the checksums of the whole disk.
func (d *Device) touchAll(t *testing.T) {
	t.Helper()
	p := make([]byte, d.Size())
	if _, err := d.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if !d.local() {
		t.Fatal("the file is not held open")
	}
	d.im.cache.dropMemory()
	d.readTable(t)
}

// dropPages lets the machine forget what it has of a file in memory, and tells whether it
// has forgotten the page at off: some file systems keep all in memory.
func dropPages(t *testing.T, path string, off int64) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED),
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)); err != nil { // so that a look brings one page back
		t.Fatal(err)
	}
	n, _ := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, off, unix.RWF_NOWAIT)
	return n <= 0
}

// What the machine has in memory of a file is read at once, with and without it in the
// cache: whole units go past the cache, which keeps those that were read in part.
func TestReadsWhatTheMachineHas(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	for _, form := range raws {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			c := newCache(t, f.store, Options{})
			d := f.open(t, c, f.image(t, form, disk))
			d.touchAll(t)
			before := c.Stats()
			unit := d.BlockSize()
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 1))
			for range 500 {
				off := r.Int64N(int64(len(disk)))
				n := min(1+r.Int64N(3*unit), int64(len(disk))-off)
				if r.IntN(4) == 0 { // longer than what is read at once
					n = min(localRange-unit+r.Int64N(4*unit), int64(len(disk))-off)
				}
				p := make([]byte, n)
				if !d.TryRead(p, off) || !bytes.Equal(p, disk[off:off+n]) {
					t.Fatalf("seed %d: %d bytes at %d are not at hand, or other bytes", seed, n, off)
				}
			}
			p := make([]byte, 4096)
			for off := int64(0); off < int64(len(disk))-4096; off += 4096 {
				if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
					t.Fatalf("at %d: error %v, or other bytes", off, err)
				}
			}
			s := c.Stats()
			if s.Ahead != before.Ahead {
				t.Error("something was fetched ahead of reads that need no waiting")
			}
			c.dropMemory()
			d.touchAll(t)
			off := d.firstData(t)
			before = c.Stats()
			for range 2 {
				if !d.TryRead(make([]byte, 2*unit), off) {
					t.Fatal("whole units are not at hand")
				}
			}
			for range 2 {
				if !d.TryRead(make([]byte, 512), off) {
					t.Fatal("a part of a unit is not at hand")
				}
			}
			s = c.Stats()
			if hits, fetched := s.Hits-before.Hits, s.Fetched-before.Fetched; fetched != 5*unit || s.Delivered-before.Delivered != 4*unit+1024 || hits < 1 {
				t.Errorf("%d bytes were read of the file, want %d; %d delivered; %d hits", fetched, 5*unit, s.Delivered-before.Delivered, hits)
			}
			held := s.Memory
			if !d.TryRead(make([]byte, 3*unit), off+100) {
				t.Fatal("a long range is not at hand")
			}
			if s := c.Stats(); s.Memory != held || s.Fetched-before.Fetched != 8*unit {
				t.Errorf("a long read put %d bytes into the cache, %d were read of the file, want %d", s.Memory-held, s.Fetched-before.Fetched, 8*unit)
			}
			if s.Ready-before.Ready != 4*unit+512 || s.Misses != before.Misses || s.Fetches != before.Fetches {
				t.Errorf("%d bytes count as read at once, %d reads as waiting for %d fetches",
					s.Ready-before.Ready, s.Misses-before.Misses, s.Fetches-before.Fetches)
			}
		})
	}
}

// What the machine does not have is fetched, and not waited for by who asks for what is
// at hand.
func TestReadsWhatTheMachineHasNot(t *testing.T) {
	t.Parallel()
	disk := benchDisk(8 << 20)
	for _, form := range raws {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			data := f.image(t, form, disk)
			d := f.open(t, newCache(t, f.store, Options{}), data)
			d.touchAll(t)
			path := filepath.Join(f.images, data.Key)
			p := make([]byte, 4096)
			// To ask for what is not there may bring it, and a fast disk does at once: then it
			// is right, and one of some tries comes before the disk.
			dropped, refused := 0, 0
			for off := int64(1 << 20); off < 7<<20; off += 512 << 10 {
				was := dropPages(t, path, off)
				got := d.TryRead(p, off)
				if got && !bytes.Equal(p, disk[off:off+4096]) {
					t.Fatalf("at %d: other bytes are at hand", off)
				}
				if was {
					dropped++
				}
				if !got {
					refused++
				}
			}
			if dropped > 0 && refused == 0 {
				t.Errorf("all of %d reads of what the machine has not were answered without waiting", dropped)
			}
			for _, off := range []int64{1 << 20, 3<<20 - 100, 0} {
				if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
					t.Errorf("at %d: error %v, or other bytes", off, err)
				}
			}
		})
	}
}

// Of what the machine has in part, whole units alone are read at once.
func TestReadsWhatTheMachineHasInPart(t *testing.T) {
	t.Parallel()
	disk := benchDisk(8 << 20)
	for _, form := range raws {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			data := f.image(t, form, disk)
			d := f.open(t, newCache(t, f.store, Options{}), data)
			d.touchAll(t)
			path := filepath.Join(f.images, data.Key)
			unit := d.BlockSize()
			for k, off := range []int64{1 << 20, 2<<20 + 100, 3<<20 - 100} {
				_ = dropPages(t, path, off) // where all is kept in memory, the bytes are right all the same
				src, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				err = unix.Fadvise(int(src.Fd()), 0, 0, unix.FADV_RANDOM) // no page more than is read
				for at := int64(0); err == nil && at <= int64(k)*unit; at += 4096 {
					_, err = src.ReadAt(make([]byte, 4096), off/unit*unit+at)
				}
				if err := errors.Join(err, src.Close()); err != nil {
					t.Fatal(err)
				}
				p := make([]byte, 4*unit)
				if d.TryRead(p, off) && !bytes.Equal(p, disk[off:off+4*unit]) { // it may have come meanwhile
					t.Errorf("at %d: other bytes are at hand", off)
				}
				if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4*unit]) {
					t.Errorf("at %d: error %v, or other bytes", off, err)
				}
			}
		})
	}
}

// A file that was written to, cut or removed while it is held open is an error also for
// reads that need no waiting.
func TestHeldFileChanges(t *testing.T) {
	t.Parallel()
	disk := benchDisk(8 << 20)
	for name, tc := range map[string]struct {
		do   func(path string) error
		want error
	}{
		"cut":     {func(path string) error { return os.Truncate(path, 100) }, objectstore.ErrChanged},
		"removed": {os.Remove, objectstore.ErrNotFound},
		"written": {func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("other bytes"), 1<<20)
			return errors.Join(err, f.Close())
		}, objectstore.ErrChanged},
	} {
		for _, form := range raws {
			t.Run(name+"/"+form, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				source := f.source(t, f.image(t, form, disk))
				d := f.open(t, newCache(t, f.store, Options{}), source)
				d.touchAll(t)
				p := make([]byte, 64<<10)
				if !d.TryRead(p, 1<<20) || !bytes.Equal(p, disk[1<<20:1<<20+64<<10]) {
					t.Fatal("the file is not at hand")
				}
				if err := tc.do(filepath.Join(f.buckets, source.Bucket, source.Key)); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if d.TryRead(p, 1<<20) {
						t.Fatal("a changed file was read")
					}
					if _, err := d.ReadAt(p, 1<<20); !errors.Is(err, tc.want) {
						t.Fatalf("a changed file was read with error %v, want %v", err, tc.want)
					}
				}
			})
		}
	}
}

// Bytes that were damaged before the file was opened, where nobody looked until it is
// held open, are an error for whole units and for parts of one, also where the machine
// has them in memory.
func TestDamageBesideAHeldFile(t *testing.T) {
	t.Parallel()
	disk := benchDisk(8 << 20)
	f := newFixture(t)
	data := f.image(t, "raw with bitmap", disk)
	damaged := bytes.Clone(disk)
	damaged[3<<20+100] ^= 1
	data.Key = "damaged/1/disk"
	data.ETag = f.put(t, data.Key, damaged).ETag
	d := f.open(t, newCache(t, f.store, Options{}), data)
	p := make([]byte, d.BlockSize())
	if _, err := d.ReadAt(p, 0); err != nil || !d.local() {
		t.Fatalf("the file is not held open (%v)", err)
	}
	for _, n := range []int64{d.BlockSize(), 4096} {
		if d.TryRead(p[:n], 3<<20) {
			t.Errorf("%d damaged bytes were read", n)
		}
		if _, err := d.ReadAt(p[:n], 3<<20); !Damaged(err) {
			t.Errorf("%d damaged bytes were read with error %v", n, err)
		}
		if next := int64(3<<20) + d.BlockSize(); !d.TryRead(p[:n], next) || !bytes.Equal(p[:n], disk[next:next+n]) {
			t.Error("what lies beside the damage can't be read")
		}
	}
}

// Checksums of units that come damaged are asked for again, fail the read when they stay
// so, and are not kept: when they come whole the disk is read.
func TestDamagedSums(t *testing.T) {
	t.Parallel()
	disk := benchDisk(6 << 20)
	for form, table := range map[string]string{"raw with bitmap": "/bitmap", "zvhd2": "/disk"} {
		f := newFixture(t)
		store := newFaulty(t, f.store)
		store.of = table
		d := openOn(t, store, Options{}, at(f.image(t, form, disk)))
		p := make([]byte, 4096)
		read := func(fails bool) {
			t.Helper()
			_, err := d.ReadAt(p, 3<<20)
			if Damaged(err) != fails || err == nil && !bytes.Equal(p, disk[3<<20:3<<20+4096]) {
				t.Errorf("%s: the read ended with error %v, want damage %t, or with other bytes", form, err, fails)
			}
			d.im.cache.dropMemory()
		}
		const sum = 256 + 8 // of the second block
		store.plan(flip(sum), flip(sum), flip(sum))
		read(true)
		read(false)
		store.plan(flip(sum))
		read(false)
	}
}

// Damaged checksums of one block's units make that block unreadable, and none beside it,
// whether it is read alone or with others.
func TestDamagedSumsOfOneBlock(t *testing.T) {
	t.Parallel()
	const blockSize = 2 << 20
	disk := benchDisk(8 << 20)
	for name, far := range map[string]func(testing.TB) fixture{"held": newFixture, "far": newFarFixture} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := far(t)
			data := f.image(t, "raw with bitmap", disk)
			mf, err := os.ReadFile(filepath.Join(f.images, data.BitmapKey))
			if err != nil {
				t.Fatal(err)
			}
			mf[len(mf)-3*256+7] ^= 1 // of block 1 of 4
			data.BitmapETag = f.put(t, data.BitmapKey, mf).ETag
			c := newCache(t, f.store, Options{})
			d := f.open(t, c, data)
			p := make([]byte, 8<<20)
			n, err := d.ReadAt(p, 0)
			if !Damaged(err) || !bytes.Equal(p[:n], disk[:n]) {
				t.Errorf("all of the disk: %d bytes, error %v, or other ones", n, err)
			}
			for _, at := range []int64{0, blockSize - 100_000, 2 * blockSize, 3*blockSize - 5000, 4*blockSize - 4096} {
				c.dropMemory()
				p := p[:min(100_000, 8<<20-at)]
				if _, err := d.ReadAt(p, at); err != nil || !bytes.Equal(p, disk[at:at+int64(len(p))]) {
					t.Errorf("at %d, beside the damage: error %v, or other bytes", at, err)
				}
			}
			c.settled() // also what was fetched ahead
			c.dropMemory()
			if err := d.Prefetch(t.Context(), blockSize-100_000, 200_000); err != nil {
				t.Error(err)
			}
			c.settled()
			if good := blockSize - d.BlockSize(); !d.TryRead(p[:4096], good) || !bytes.Equal(p[:4096], disk[good:good+4096]) {
				t.Error("what was fetched together with the damage, and is not, was not kept")
			}
			for _, at := range []int64{blockSize - 4096, blockSize, 2*blockSize - 1} {
				c.dropMemory()
				if _, err := d.ReadAt(p[:8192], at); !Damaged(err) || !strings.Contains(err.Error(), "block 1's units") {
					t.Errorf("at %d: error %v, want one that names the block", at, err)
				}
			}
		})
	}
}

// slowHolder is a store that is slow to open what is to be held: not before it may.
type slowHolder struct {
	*objectstore.Dir
	asked chan struct{}
	may   chan struct{}
}

func (s slowHolder) Hold(ctx context.Context, loc objectstore.Location, cond objectstore.Condition) (objectstore.Held, error) {
	s.asked <- struct{}{}
	<-s.may
	return s.Dir.Hold(ctx, loc, cond)
}

// A disk that takes its time to open a file keeps nobody waiting who only asks for what
// is at hand.
func TestTryReadWaitsForNoOpening(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	slow := slowHolder{asked: make(chan struct{}), may: make(chan struct{})}
	f := newFixtureOf(t, func(s objectstore.Store) objectstore.Store {
		slow.Dir = s.(*objectstore.Dir)
		return slow
	})
	d := f.open(t, newCache(t, f.store, Options{}), f.image(t, "raw", disk))
	read := make(chan error)
	p := make([]byte, 4096)
	go func() {
		_, err := d.ReadAt(p, 0)
		read <- err
	}()
	<-slow.asked
	if d.TryRead(make([]byte, 4096), 1<<20) {
		t.Error("what was not read yet is at hand")
	}
	close(slow.may)
	if err := <-read; err != nil || !bytes.Equal(p, disk[:4096]) {
		t.Errorf("the read ended with error %v, or other bytes", err)
	}
}
