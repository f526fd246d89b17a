package resident

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// Buffers are whole pages and waste at most a quarter, short ones less than a page.
func TestBufferSizes(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 4096, 4097, 5120, 15 << 10, 33 << 10, 1 << 20, 2 << 20, 2<<20 + 4096, 32 << 20} {
		if got := BufferSize(n); got < n || got%page != 0 || got > n+max(n/4, page-1) {
			t.Errorf("a buffer for %d bytes takes %d", n, got)
		}
	}
}

// Buffers are granted, handed out and taken back without ever exceeding the bound.
func TestMemoryModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const limit = 1 << 20
		m := New(limit)
		defer m.arena.close()
		type held struct {
			g *Grant
			b []byte
		}
		var out []held
		used := int64(0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			if len(out) > 0 && rapid.Bool().Draw(t, "back") {
				h := out[len(out)-1]
				out = out[:len(out)-1]
				used -= int64(cap(h.b))
				h.g.Free(h.b)
				h.g.Release()
				continue
			}
			n := rapid.Int64Range(1, limit/2).Draw(t, "bytes")
			g := m.TryGrant(BufferSize(n))
			if fits := used+BufferSize(n) <= limit; fits != (g != nil) {
				t.Fatalf("%d bytes with %d of %d in use: granted %v", n, used, limit, g != nil)
			}
			if g != nil {
				b := g.Buffer(n)
				if int64(len(b)) != n || int64(cap(b)) != BufferSize(n) {
					t.Fatalf("a buffer of %d bytes (%d) for %d", len(b), cap(b), n)
				}
				used += int64(cap(b))
				out = append(out, held{g, b})
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
		m := New(16 * BufferSize(n))
		g := m.TryGrant(16 * BufferSize(n))
		var all [][]byte
		for i := range 16 {
			b := g.Buffer(n)
			for k := range b {
				b[k] = byte(i) + 1
			}
			all = append(all, b)
		}
		can := hugePagesWanted(t, m.arena.slabs[0]) // the kernel has some
		for i := 0; i < len(all); i += 2 {
			g.Free(all[i])
		}
		m.Charge(8 * BufferSize(n)) // leaves no room for those
		if m.idle != 0 {
			t.Errorf("%d bytes of free buffers are kept", m.idle)
		}
		for i := 1; i < len(all); i += 2 {
			if len(bytes.Trim(all[i], string([]byte{byte(i) + 1}))) > 0 {
				t.Errorf("of buffers of %d bytes one lost bytes when another was given up", n)
				break
			}
		}
		if cold := len(m.arena.cold[int(BufferSize(n))]); cold != 8 {
			t.Errorf("of 8 buffers of %d bytes %d can be taken again", n, cold)
		}
		if huge := hugePagesWanted(t, m.arena.slabs[0]); huge {
			t.Error("a slab whose pages were given up may have large pages")
		}
		m.Discharge(8 * BufferSize(n))
		for range 8 {
			g.Buffer(n)
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
