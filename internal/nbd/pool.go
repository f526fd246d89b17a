package nbd

import "sync"

// pool is the memory for answers that all connections share; what a connection has of
// its own is not in it. Nobody waits for the pool: who is refused goes on with what its
// connection has of its own, and asks again for the next answer.
type pool struct {
	mu     sync.Mutex
	free   int64 // in bytes
	shares map[string]*share
}

// share is what the connections of one export, named alike, hold of the pool.
type share struct {
	name        string
	held        int64
	connections int
}

func newPool(bytes int64) *pool { return &pool{free: bytes, shares: map[string]*share{}} }

// join counts a connection to the export's share.
func (p *pool) join(name string) *share {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shares[name]
	if s == nil {
		s = &share{name: name}
		p.shares[name] = s
	}
	s.connections++
	return s
}

func (p *pool) leave(s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.connections--; s.connections == 0 {
		delete(p.shares, s.name)
	}
}

// take takes n bytes for a share, unless it would hold more than it leaves free: one
// share gets half of the pool, two get a third each, and so on, and there is always
// room for one that comes anew.
func (p *pool) take(s *share, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.held+n > p.free-n {
		return false
	}
	s.held += n
	p.free -= n
	return true
}

func (p *pool) give(s *share, n int64) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.held -= n
	p.free += n
}
