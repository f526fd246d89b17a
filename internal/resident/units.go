package resident

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

// shardCount is how many locks the units are spread over; a power of two.
const shardCount = 64

// shard is a part of the units with a lock of its own.
type shard struct {
	mu    sync.Mutex
	units map[Key]*Unit
	ring  []*Unit // the resident ones, in the order of the hand
	hand  int
	_     [64]byte
}

// Disk names a disk: two that differ in a byte have different names.
type Disk [16]byte

// Key names a unit of a disk.
type Key struct {
	disk Disk
	pos  uint64 // the unit's offset, with the power of two that is its size in the low bits
}

// KeyOf names the unit number u, of size bytes each, a power of two.
func KeyOf(d Disk, u, size int64) Key {
	return Key{d, uint64(u*size) | uint64(bits.TrailingZeros64(uint64(size)))}
}

func (m *Memory) shardOf(k Key) *shard {
	h := (binary.LittleEndian.Uint64(k.disk[:]) ^ k.pos>>15) * 0x9e3779b97f4a7c15
	return &m.shards[h>>58%shardCount]
}

// Fetch is what works on wanted units.
type Fetch interface {
	// Unwanted says of one of the fetch's units that it is wanted no longer: it is resident,
	// or absent. It is said once of each.
	Unwanted()
}

// Reader is a disk for which units are reserved ahead of its reads. Its zero value is
// ready for use.
type Reader struct{ unread atomic.Int64 }

// Unread is how many bytes were reserved for the reader and not read yet.
func (r *Reader) Unread() int64 { return r.unread.Load() }

// Unread is how many bytes were reserved for all readers and not read yet.
func (m *Memory) Unread() int64 { return m.unread.Load() }

// Unit is a unit that is wanted or resident. Once it is absent, it stays so: another Unit
// takes its place.
type Unit struct {
	key    Key
	number int64
	ahead  atomic.Pointer[Reader]
	bytes  int64        // that count as unread while ahead is there
	refs   atomic.Int32 // of goroutines that read data
	recent atomic.Bool  // read since the hand passed
	doomed atomic.Bool  // absent: who reads it last frees data

	data []byte // written before the unit is resident

	// Guarded by the shard's lock.
	resident bool
	reserved bool
	waiters  []*Waiter
	fetch    Fetch
	slot     int // in the ring
}

// Number is the unit's number in its disk.
func (u *Unit) Number() int64 { return u.number }

// Copy fills dst with the bytes of a resident unit from the byte from on, and reports
// whether it is resident. It waits for no I/O.
func (m *Memory) Copy(k Key, dst []byte, from int64) bool {
	s := m.shardOf(k)
	s.mu.Lock()
	u := s.units[k]
	if u == nil || !u.resident {
		s.mu.Unlock()
		return false
	}
	u.refs.Add(1)
	s.mu.Unlock()
	m.touch(u)
	copy(dst, u.data[from:])
	m.leave(u)
	return true
}

// touch notes that somebody reads the unit.
func (m *Memory) touch(u *Unit) {
	if !u.recent.Load() {
		u.recent.Store(true)
	}
	if r := u.ahead.Load(); r != nil && u.ahead.CompareAndSwap(r, nil) {
		m.aheadUsed.Add(int64(len(u.data)))
		m.read(u, r)
	}
}

// read notes that the unit does not wait for its reader any more.
func (m *Memory) read(u *Unit, r *Reader) {
	m.unread.Add(-u.bytes)
	r.unread.Add(-u.bytes)
}

// leave ends the reading of a unit.
func (m *Memory) leave(u *Unit) {
	if u.refs.Add(-1) == 0 {
		m.freeDoomed(u)
		m.wake()
	}
}

// freeDoomed frees a unit's memory once it is absent and nobody reads it.
func (m *Memory) freeDoomed(u *Unit) {
	if u.doomed.CompareAndSwap(true, false) {
		size := int64(cap(u.data))
		m.put(u.data)
		u.data = nil
		m.release(size)
	}
}

// Join lets a read wait for a unit. mine says that the unit was absent, and the caller
// has to start its fetch. A unit that is resident is copied at once.
func (m *Memory) Join(k Key, number int64, w *Waiter) (u *Unit, mine bool) {
	s := m.shardOf(k)
	s.mu.Lock()
	u = s.units[k]
	if u != nil && u.resident {
		u.refs.Add(1)
		s.mu.Unlock()
		m.touch(u)
		w.join(nil)
		w.deliver(u)
		m.leave(u)
		return u, false
	}
	if mine = u == nil; mine {
		u = &Unit{key: k, number: number}
		s.units[k] = u
	}
	u.waiters = append(u.waiters, w)
	w.join(u)
	s.mu.Unlock()
	return u, mine
}

// Reserve makes an absent unit of so many bytes wanted ahead of the reads of r, and the
// caller has to start its fetch; nil if it is not absent.
func (m *Memory) Reserve(k Key, number, bytes int64, r *Reader) *Unit {
	s := m.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[k] != nil {
		return nil
	}
	u := &Unit{key: k, number: number, bytes: bytes, reserved: true}
	u.ahead.Store(r)
	m.unread.Add(bytes)
	r.unread.Add(bytes)
	s.units[k] = u
	return u
}

// Start says which fetch works on a wanted unit. It returns false if the unit is absent by
// now, so that nobody wants it.
func (m *Memory) Start(u *Unit, f Fetch) bool {
	s := m.shardOf(u.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[u.key] != u {
		return false
	}
	u.fetch = f
	return true
}

// Unasked makes a wanted unit absent if no read waits for it, and reports whether it did
// or the unit was absent. Else the unit is no longer reserved.
func (m *Memory) Unasked(u *Unit) bool {
	s := m.shardOf(u.key)
	s.mu.Lock()
	if s.units[u.key] != u {
		s.mu.Unlock()
		return true
	}
	if len(u.waiters) > 0 {
		u.reserved = false
		s.mu.Unlock()
		return false
	}
	f := m.vanish(s, u)
	s.mu.Unlock()
	tell(f)
	return true
}

// vanish makes a wanted unit absent and returns what worked on it. The caller holds the
// shard's lock.
func (m *Memory) vanish(s *shard, u *Unit) Fetch {
	delete(s.units, u.key)
	if r := u.ahead.Swap(nil); r != nil {
		m.read(u, r)
	}
	return u.fetch
}

// tell tells a fetch, if there is one, that one of its units is wanted no longer. The
// caller holds no lock.
func tell(f Fetch) {
	if f != nil {
		f.Unwanted()
	}
}

// Land ends the fetch of a wanted unit with its bytes, which lie in a buffer of the grant:
// the unit is resident, and all reads that wait for it have the bytes. If nobody wants
// the unit any more, the buffer is freed.
func (m *Memory) Land(u *Unit, g *Grant, data []byte) {
	s := m.shardOf(u.key)
	s.mu.Lock()
	if s.units[u.key] != u {
		s.mu.Unlock()
		g.Free(data)
		return
	}
	waiters, f := u.waiters, u.fetch
	u.waiters, u.fetch = nil, nil
	if u.ahead.Load() != nil {
		m.ahead.Add(int64(len(data)))
	}
	u.refs.Add(1)
	m.settle(s, u, g, data)
	s.mu.Unlock()
	if len(waiters) > 0 {
		m.touch(u)
	}
	for _, w := range waiters {
		w.deliver(u)
	}
	m.leave(u)
	tell(f)
}

// settle makes a unit resident. The caller holds the shard's lock.
func (m *Memory) settle(s *shard, u *Unit, g *Grant, data []byte) {
	u.data, u.resident = data, true
	u.recent.Store(true)
	u.slot = len(s.ring)
	s.ring = append(s.ring, u)
	g.landed(data)
}

// Keep makes a unit resident that was absent, with bytes in a buffer of the grant. If the
// unit is not absent, the buffer is freed.
func (m *Memory) Keep(k Key, g *Grant, data []byte) {
	s := m.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[k] != nil {
		g.Free(data)
		return
	}
	u := &Unit{key: k}
	s.units[k] = u
	m.settle(s, u, g, data)
}

// Fail ends the fetch of a wanted unit with an error, which the reads that wait for it
// are told. Nothing of it is kept.
func (m *Memory) Fail(u *Unit, err error) {
	s := m.shardOf(u.key)
	s.mu.Lock()
	waiters := u.waiters
	u.waiters = nil
	var f Fetch
	if s.units[u.key] == u {
		f = m.vanish(s, u)
	}
	s.mu.Unlock()
	for _, w := range waiters {
		w.fail(err)
	}
	tell(f)
}

// Forget makes a unit absent that is resident, if one is.
func (m *Memory) Forget(k Key) {
	s := m.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.units[k]; u != nil && u.resident {
		m.remove(s, u)
	}
}

// remove makes a resident unit absent. The caller holds the shard's lock.
func (m *Memory) remove(s *shard, u *Unit) {
	last := s.ring[len(s.ring)-1]
	s.ring[u.slot], last.slot = last, u.slot
	s.ring[len(s.ring)-1] = nil
	s.ring = s.ring[:len(s.ring)-1]
	delete(s.units, u.key)
	if r := u.ahead.Swap(nil); r != nil {
		m.wasted.Add(int64(len(u.data)))
		m.read(u, r)
	}
	u.doomed.Store(true)
	if u.refs.Load() == 0 {
		m.freeDoomed(u)
	}
}

// evict makes one unit absent that nobody reads and that nobody has read since the hand
// came by last. It returns false if there is none.
func (m *Memory) evict() bool {
	for range 2 * shardCount {
		if m.shards[m.hand.Add(1)%shardCount].evict(m) {
			m.evictions.Add(1)
			return true
		}
	}
	return false
}

func (s *shard) evict(m *Memory) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range len(s.ring) {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		u := s.ring[s.hand]
		if u.refs.Load() > 0 || u.recent.Swap(false) {
			s.hand++
			continue
		}
		m.remove(s, u)
		return true
	}
	return false
}

// Waiter is one read that waits for units of a disk.
type Waiter struct {
	off  int64   // of the read in the disk
	unit int64   // bytes of a unit
	of   []*Unit // that it has joined; the read's alone

	mu   sync.Mutex
	p    []byte // nil once the read has ended
	left int    // units to come, and one while the read joins more
	err  error
	done chan struct{} // closed when left is 0, or err is there
}

// NewWaiter makes a Waiter for a read of p from off on, of a disk with units of that many
// bytes. The read joins units, then waits, then leaves.
func NewWaiter(p []byte, off, unit int64) *Waiter {
	return &Waiter{off: off, unit: unit, p: p, left: 1, done: make(chan struct{})}
}

// Wait ends the joining and returns what is closed when all units have come, or one has
// failed.
func (w *Waiter) Wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.one()
	return w.done
}

// Leave ends the read: nobody writes into its buffer any more. It returns why one of its
// units has failed, if one has.
func (w *Waiter) Leave(m *Memory) error {
	w.mu.Lock()
	w.p = nil
	err, left := w.err, w.left
	w.mu.Unlock()
	if left > 0 {
		for _, u := range w.of {
			m.part(u, w)
		}
	}
	return err
}

// part takes a read off those that wait for a unit. One that nobody wants is absent.
func (m *Memory) part(u *Unit, w *Waiter) {
	s := m.shardOf(u.key)
	s.mu.Lock()
	var f Fetch
	for i, other := range u.waiters {
		if other == w {
			u.waiters[i] = u.waiters[len(u.waiters)-1]
			u.waiters = u.waiters[:len(u.waiters)-1]
			if len(u.waiters) == 0 && !u.reserved && s.units[u.key] == u {
				f = m.vanish(s, u)
			}
			break
		}
	}
	s.mu.Unlock()
	tell(f)
}

func (w *Waiter) join(u *Unit) {
	w.mu.Lock()
	w.left++
	w.mu.Unlock()
	if u != nil {
		w.of = append(w.of, u)
	}
}

// deliver copies the unit's bytes into the read's buffer.
func (w *Waiter) deliver(u *Unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := int64(u.key.pos)&^63 - w.off // where the unit begins in p
	if p := w.p; p != nil {
		copy(p[max(at, 0):min(int64(len(p)), at+w.unit)], u.data[max(-at, 0):])
	}
	w.one()
}

// one notes that one unit less is to come. The caller holds the lock.
func (w *Waiter) one() {
	if w.left--; w.left == 0 && w.err == nil {
		close(w.done)
	}
}

func (w *Waiter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left--; w.err == nil {
		w.err = err
		close(w.done)
	}
}
