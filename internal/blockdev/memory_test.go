package blockdev

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// Many readers of many images at random and in sequence, in memory that holds a small
// part of them: all get the source's bytes, and the memory stays within its bound.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	disk := benchDisk(16 << 20)
	f := newFixture(t)
	c := newCache(t, CacheOptions{Memory: MinMemory, Dir: t.TempDir(), DirSize: MinDir})
	var wg sync.WaitGroup
	for _, form := range forms {
		d := f.open(t, c, f.image(t, form, disk))
		for reader := range 16 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(reader), 5))
				p := make([]byte, 9<<20)
				off := r.Int64N(int64(len(disk)))
				for i := range 20 {
					n := 1 + r.Int64N(64<<10)
					if i%20 == 7 {
						n = int64(len(p)) // more than fetches may have at once
					}
					if reader%2 == 0 || off >= int64(len(disk)) {
						off = r.Int64N(int64(len(disk)))
					}
					n = min(n, int64(len(disk))-off)
					ctx, cancel := context.WithCancel(t.Context())
					if i%10 == 3 {
						cancel() // goes away at once
					}
					_, err := d.ReadAtContext(ctx, p[:n], off)
					gone := ctx.Err() != nil
					cancel()
					if err != nil && !gone {
						t.Errorf("%s: %d bytes at %d: %v", form, n, off, err)
						return
					}
					if err == nil && !bytes.Equal(p[:n], disk[off:off+n]) {
						t.Errorf("%s: %d bytes at %d are other bytes", form, n, off)
						return
					}
					off += n
				}
			})
		}
	}
	wg.Wait()
	c.settled()
	c.disk.flush()
	s := c.Stats()
	if s.MemoryPeak > MinMemory || s.MemoryPeak < MinMemory/2 {
		t.Errorf("the most memory in use was %d of %d", s.MemoryPeak, MinMemory)
	}
	c.dropMemory()
	c.mem.mu.Lock()
	defer c.mem.mu.Unlock()
	if c.mem.live != 0 || c.mem.granted != c.mem.fixed {
		t.Errorf("with nothing held %d bytes of buffers are in use and %d granted (%d of images)", c.mem.live, c.mem.granted, c.mem.fixed)
	}
}

// Buffers are whole pages and waste at most a quarter, short ones less than a page.
func TestBufferSizes(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 4096, 4097, 5120, 15 << 10, 33 << 10, 1 << 20, 2 << 20, 2<<20 + 4096, 32 << 20} {
		if got := bufferSize(n); got < n || got%page != 0 || got > n+max(n/4, page-1) {
			t.Errorf("a buffer for %d bytes takes %d", n, got)
		}
	}
}

// Buffers are granted, handed out and taken back without ever exceeding the bound.
func TestMemoryModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const limit = 1 << 20
		m := newMemory(limit, func() bool { return false })
		defer m.arena.close()
		var out [][]byte
		used := int64(0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			if len(out) > 0 && rapid.Bool().Draw(t, "back") {
				b := out[len(out)-1]
				out = out[:len(out)-1]
				m.put(b)
				m.release(int64(cap(b)))
				used -= int64(cap(b))
				continue
			}
			n := rapid.Int64Range(1, limit/2).Draw(t, "bytes")
			if fits := m.try(bufferSize(n)); fits != (used+bufferSize(n) <= limit) {
				t.Fatalf("%d bytes with %d of %d in use: granted %v", n, used, limit, fits)
			} else if fits {
				b := m.get(n)
				if int64(len(b)) != n || int64(cap(b)) != bufferSize(n) {
					t.Fatalf("a buffer of %d bytes (%d) for %d", len(b), cap(b), n)
				}
				used += int64(cap(b))
				out = append(out, b)
			}
			if m.live != used || m.live+m.idle > limit || m.peak > limit {
				t.Fatalf("%d bytes in use, %d free, at most %d of %d", m.live, m.idle, m.peak, limit)
			}
		}
	})
}

// A buffer that is given up takes nothing of the buffers beside it with it, whatever its
// size is.
func TestMemoryGivenUp(t *testing.T) {
	t.Parallel()
	for n := int64(1); n <= 64<<10; n += 1021 {
		m := newMemory(16*bufferSize(n), func() bool { return false })
		var all [][]byte
		for i := range 16 {
			b := m.get(n)
			for k := range b {
				b[k] = byte(i) + 1
			}
			all = append(all, b)
		}
		can := hugePagesWanted(t, m.arena.slabs[0]) // the kernel has some
		for i := 0; i < len(all); i += 2 {
			m.put(all[i])
		}
		m.charge(8 * bufferSize(n)) // leaves no room for those
		if m.idle != 0 {
			t.Errorf("%d bytes of free buffers are kept", m.idle)
		}
		for i := 1; i < len(all); i += 2 {
			if len(bytes.Trim(all[i], string([]byte{byte(i) + 1}))) > 0 {
				t.Errorf("of buffers of %d bytes one lost bytes when another was given up", n)
				break
			}
		}
		if cold := len(m.arena.cold[int(bufferSize(n))]); cold != 8 {
			t.Errorf("of 8 buffers of %d bytes %d can be taken again", n, cold)
		}
		if huge := hugePagesWanted(t, m.arena.slabs[0]); huge {
			t.Error("a slab whose pages were given up may have large pages")
		}
		m.release(8 * bufferSize(n))
		m.fix(-8 * bufferSize(n))
		for range 8 {
			m.get(n)
		}
		if huge := hugePagesWanted(t, m.arena.slabs[0]); huge != can {
			t.Error("a slab that is in use again may not have large pages")
		}
		if err := m.arena.close(); err != nil {
			t.Error(err)
		}
	}
}

// hugePagesWanted tells of a slab's mapping whether the kernel was asked for large pages
// (proc_pid_smaps(5), VmFlags: hg, or nh for not).
func hugePagesWanted(t *testing.T, s *slab) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.used))))
	inside := false
	for line := range strings.Lines(string(b)) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x ", &from, &to); err == nil {
			inside = at >= from && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return slices.Contains(strings.Fields(flags), "hg")
		}
	}
	t.Fatal("the slab is not mapped")
	return false
}
