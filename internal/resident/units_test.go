package resident

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const size = 64 << 10

func newMemory(t *testing.T, limit int64) *Memory {
	m := New(limit)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func key(u int64) Key { return KeyOf(Disk{1}, u, size) }

// unwanted counts what a fetch is told.
type unwanted struct{ n int }

func (u *unwanted) Unwanted() { u.n++ }

// content is what unit u consists of.
func content(u int64) []byte { return bytes.Repeat([]byte{byte(u) + 1}, size) }

// land lands a unit.
func land(t *testing.T, m *Memory, u *Unit) {
	t.Helper()
	g, err := m.Grant(t.Context(), BufferSize(size))
	if err != nil {
		t.Error(err)
		m.Fail(u, err)
		return
	}
	defer g.Release()
	data := g.Buffer(size)
	copy(data, content(u.Number()))
	m.Land(u, g, data)
}

// TestStates walks through the table of the package comment.
func TestStates(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 4<<20)
	p, other := make([]byte, size), make([]byte, 100)
	if m.Copy(key(3), p, 0) {
		t.Fatal("an absent unit was read")
	}
	// absent, wanted by two reads, and absent again when both have left.
	first, second := NewWaiter(p, 3*size, size), NewWaiter(other, 4*size-100, size)
	u, mine := m.Join(key(3), 3, first)
	again, also := m.Join(key(3), 3, second)
	f := &unwanted{}
	if !mine || also || again != u || !m.Start(u, f) || m.Copy(key(3), p, 0) {
		t.Fatal("a wanted unit has not one fetch")
	}
	_, _ = first.Wait(), second.Wait()
	if first.Leave(m) != nil || f.n != 0 {
		t.Error("the fetch is unwanted while a read waits")
	}
	if second.Leave(m) != nil || f.n != 1 {
		t.Error("the fetch is wanted though no read waits")
	}
	// Who comes then has a fetch of its own; what the first brings is dropped.
	clear(p)
	w := NewWaiter(p, 3*size, size)
	next, mine := m.Join(key(3), 3, w)
	done := w.Wait()
	if !mine || next == u || m.Start(u, f) {
		t.Fatal("an absent unit is still another fetch's")
	}
	land(t, m, u)
	if m.Fail(u, errors.New("late")); f.n != 1 {
		t.Errorf("a fetch was told %d times that its unit is unwanted", f.n)
	}
	select {
	case <-done:
		t.Fatal("a read was served by a fetch that was given up")
	default:
	}
	if m.Copy(key(3), other, 0) || m.live != 0 {
		t.Error("what a fetch brought that nobody wants was kept")
	}
	m.Start(next, f)
	land(t, m, next)
	if f.n != 2 {
		t.Errorf("a fetch of two units was told %d times that one is unwanted", f.n)
	}
	<-done
	if err := w.Leave(m); err != nil || !bytes.Equal(p, content(3)) {
		t.Errorf("error %v, or other bytes", err)
	}
	// resident, and read by Copy and Join.
	w = NewWaiter(other, 3*size+5, size)
	_, mine = m.Join(key(3), 3, w)
	<-w.Wait()
	if err := w.Leave(m); mine || err != nil || !bytes.Equal(other, content(3)[:100]) || !m.Copy(key(3), other, size-100) {
		t.Errorf("a resident unit: error %v, or other bytes", err)
	}
	// A read that has left when its bytes come, which were taken for it before.
	left := make([]byte, 100)
	w = NewWaiter(left, 3*size, size)
	w.join(nil)
	if err := w.Leave(m); err != nil {
		t.Error(err)
	}
	if w.deliver(next); !bytes.Equal(left, make([]byte, 100)) {
		t.Error("a buffer was written after its read had left")
	}
	m.Forget(key(3))
	if m.Copy(key(3), other, 0) {
		t.Error("a forgotten unit was read")
	}
	// wanted, and absent by an error.
	w = NewWaiter(p, 0, size)
	for u := range int64(2) {
		x, _ := m.Join(key(u), u, w)
		if u == 0 {
			defer m.Fail(x, errors.New("later"))
			continue
		}
		m.Fail(x, context.DeadlineExceeded)
	}
	<-w.Wait()
	if err := w.Leave(m); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read of a unit that failed has error %v", err)
	}
	if w := NewWaiter(p, size, size); true {
		if x, mine := m.Join(key(1), 1, w); !mine {
			t.Error("a unit that failed is still wanted")
		} else {
			m.Fail(x, context.Canceled)
		}
	}
}

// TestReserved: a reserved unit is wanted though no read waits; one that fails is absent
// unless a read waits by then.
func TestReserved(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 4<<20)
	var r Reader
	u := m.Reserve(key(0), 0, size, &r)
	if u == nil || m.Reserve(key(0), 0, size, &r) != nil || r.Unread() != size || m.Unread() != size {
		t.Fatalf("%d bytes are unread", r.Unread())
	}
	f := &unwanted{}
	m.Start(u, f)
	w := NewWaiter(make([]byte, 10), 0, size)
	if _, mine := m.Join(key(0), 0, w); mine || m.Unasked(u) {
		t.Error("a read that waits for a reserved unit is not seen")
	}
	land(t, m, u)
	<-w.Wait()
	if w.Leave(m) != nil || r.Unread() != 0 || m.Stats().AheadUsed != size {
		t.Errorf("%d bytes are unread, %d used", r.Unread(), m.Stats().AheadUsed)
	}
	u = m.Reserve(key(1), 1, size, &r)
	if !m.Unasked(u) || r.Unread() != 0 || m.Reserve(key(1), 1, size, &r) == nil {
		t.Error("a reserved unit that nobody wants stays")
	}
	u = m.Reserve(key(2), 2, size, &r)
	land(t, m, u)
	m.Forget(key(2))
	if s := m.Stats(); s.Wasted != size || s.Ahead != 2*size || m.Unread() != size {
		t.Errorf("%+v, %d unread", s, m.Unread())
	}
}

// TestNobodyWritesAfterLeave: a read's buffer is its own again once it has left, whatever
// lands then; and evictions beside readers give no other bytes.
func TestNobodyWritesAfterLeave(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 1<<20) // 16 units at most
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 400 {
				u := r.Int64N(40)
				p := make([]byte, 512)
				if m.Copy(key(u), p, 1000) {
					if !bytes.Equal(p, content(u)[:512]) {
						t.Error("a resident unit has other bytes")
					}
					continue
				}
				w := NewWaiter(p, u*size+100, size)
				x, mine := m.Join(key(u), u, w)
				done := w.Wait()
				if mine {
					m.Start(x, &unwanted{})
					work.Go(func() { land(t, m, x) })
				}
				if r.IntN(3) > 0 {
					<-done
					if err := w.Leave(m); err != nil || !bytes.Equal(p, content(u)[:512]) {
						t.Errorf("error %v, or other bytes", err)
					}
					continue
				}
				_ = w.Leave(m)
				seen := bytes.Clone(p)
				m.Copy(key(r.Int64N(40)), make([]byte, size), 0)
				if !bytes.Equal(p, seen) {
					t.Error("a buffer was written after its read had left")
				}
			}
		})
	}
	work.Wait()
}
