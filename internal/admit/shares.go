package admit

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// ErrBusy says that a party has too many requests waiting already.
var ErrBusy = errors.New("too many requests are waiting")

// Shares divide a number of units, such as places or bytes, between parties: projects
// or addresses. A party that holds any may hold no more than it leaves free: one party
// gets half, two get a third each, and so on, and a party that holds none finds some.
// Parties that wait are served in turn. A Shares is safe for concurrent use.
type Shares struct {
	maxWaiting int

	mu      sync.Mutex
	free    int64
	parties map[string]*party
	turns   list.List // of *party with requests that wait; the next one first
}

type party struct {
	name    string
	held    int64
	waiting list.List // of *request, the oldest first
	turn    *list.Element
}

type request struct {
	n       int64
	granted chan struct{}
}

// NewShares makes shares of total units. At most maxWaiting requests of a party wait.
func NewShares(total int64, maxWaiting int) *Shares {
	return &Shares{free: total, maxWaiting: maxWaiting, parties: map[string]*party{}}
}

func (s *Shares) party(name string) *party {
	if s.parties[name] == nil {
		s.parties[name] = &party{name: name}
	}
	return s.parties[name]
}

func (s *Shares) fits(p *party, n int64) bool {
	return n <= s.free && (p.held == 0 || p.held+n <= s.free-n)
}

func (s *Shares) grant(p *party, n int64) {
	p.held += n
	s.free -= n
}

// forget drops a party that neither holds nor waits. The caller holds mu.
func (s *Shares) forget(p *party) {
	if p.held == 0 && p.waiting.Len() == 0 {
		delete(s.parties, p.name)
	}
}

// Try takes n units without waiting. It reports whether they were free for the party,
// which then must call Give.
func (s *Shares) Try(name string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.party(name)
	defer s.forget(p)
	if p.waiting.Len() > 0 || !s.fits(p, n) {
		return false
	}
	s.grant(p, n)
	return true
}

// Take takes n units and waits for them until ctx ends. Without an error the party
// must call Give. ErrBusy says that too many requests of the party wait already.
func (s *Shares) Take(ctx context.Context, name string, n int64) error {
	s.mu.Lock()
	p := s.party(name)
	if p.waiting.Len() == 0 && s.fits(p, n) {
		s.grant(p, n)
		s.mu.Unlock()
		return nil
	}
	if p.waiting.Len() >= s.maxWaiting {
		s.forget(p)
		s.mu.Unlock()
		return ErrBusy
	}
	r := &request{n, make(chan struct{})}
	e := p.waiting.PushBack(r)
	if p.turn == nil {
		p.turn = s.turns.PushBack(p)
	}
	s.mu.Unlock()
	select {
	case <-r.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-r.granted: // meanwhile
		p.held -= n
		s.free += n
	default:
		p.waiting.Remove(e)
		s.rest(p)
	}
	s.serve() // what stood behind this request may fit
	s.forget(p)
	return ctx.Err()
}

// Give gives n units back.
func (s *Shares) Give(name string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.party(name)
	p.held -= n
	s.free += n
	s.serve()
	s.forget(p)
}

// rest takes a party without waiting requests out of the turns. The caller holds mu.
func (s *Shares) rest(p *party) {
	if p.turn != nil && p.waiting.Len() == 0 {
		s.turns.Remove(p.turn)
		p.turn = nil
	}
}

// serve grants what fits, one request of each party in turn. The caller holds mu.
func (s *Shares) serve() {
	for served := true; served && s.free > 0; {
		served = false
		for e := s.turns.Front(); e != nil && s.free > 0; {
			next := e.Next()
			p := e.Value.(*party)
			first := p.waiting.Front()
			if r := first.Value.(*request); s.fits(p, r.n) {
				p.waiting.Remove(first)
				s.grant(p, r.n)
				close(r.granted)
				served = true
				s.turns.MoveToBack(e)
				s.rest(p)
			}
			e = next
		}
	}
}
