package admit

import (
	"cmp"
	"container/list"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits bound the connections of one listener.
type Limits struct {
	// Strangers is how many connections strangers may have at once,
	// StrangersPerAddress how many of them may come from one address.
	Strangers, StrangersPerAddress int
	// Known is how many connections known clients may have at once, beside those of
	// strangers.
	Known int
}

// Options of a Gate.
type Options struct {
	// Limits gives the limits; a Gate asks at each connection. Nil: what Connections
	// makes of Files.
	Limits func() Limits
	// Proxies are known from the start: they bring the clients of many addresses.
	Proxies Proxies
	// Logger is told, at most once in ten seconds, that connections were closed.
	Logger *slog.Logger
	// Name says in the log which listener it is.
	Name string
}

// Gate bounds the connections of one listener. Every connection starts as a stranger's.
// When strangers have all their places, or one address has its share of them, a new
// connection takes the place of an old one: of its own address, or else of the
// address that has most; idle ones go first. A client that shows its credentials at once needs its place
// for a moment only, so that no number of silent connections keeps it out.
//
// A connection whose client shows valid credentials moves to the places of known
// clients. There an owner, such as a project, may hold no more places than it leaves
// free; beyond that its idle connections are closed for its new ones, or the new
// one stays a stranger. A Gate is safe for concurrent use.
type Gate struct {
	opts Options

	mu        sync.Mutex
	strangers int
	byAddress map[string]*list.List // of *place, the oldest first
	known     int
	byOwner   map[string]*list.List

	closed    int // since the last line in the log
	nextLine  time.Time
	evictions uint64
}

// place is the place of one connection. Fields are guarded by gate.mu.
type place struct {
	gate    *Gate
	conn    net.Conn // the accepted connection, without the place around it
	address string
	owner   string // "" while it is a stranger's
	idle    bool   // it had a request, and none is in flight
	working int    // requests in flight that Working was called for
	in      *list.List
	element *list.Element // nil once the place is released
}

// NewGate makes a gate.
func NewGate(o Options) *Gate {
	if o.Limits == nil {
		o.Limits = func() Limits { return Connections(Files()) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Gate{opts: o, byAddress: map[string]*list.List{}, byOwner: map[string]*list.List{}}
}

// Listener bounds the connections that l accepts. Addresses are those of l's
// connections, so TLS goes around it, not below it.
func (g *Gate) Listener(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	gate *Gate
}

// Accept implements net.Listener. It waits for a connection, never for a place.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.Enter(c), nil
}

// The connections that a Gate gives out keep all methods of what they wrap: writes of
// several buffers and of files are single system calls of these types.
type (
	tcpConn struct {
		*net.TCPConn
		*place
	}
	unixConn struct {
		*net.UnixConn
		*place
	}
	otherConn struct {
		net.Conn
		*place
	}
)

// Close implements net.Conn.
func (c tcpConn) Close() error { c.release(); return c.TCPConn.Close() }

// Close implements net.Conn.
func (c unixConn) Close() error { c.release(); return c.UnixConn.Close() }

// Close implements net.Conn.
func (c otherConn) Close() error { c.release(); return c.Conn.Close() }

// Enter gives a connection a stranger's place, or at once a known one if it is a proxy's:
// for one that no Listener of the gate accepted.
func (g *Gate) Enter(c net.Conn) net.Conn {
	peer := peerOf(c)
	p := &place{gate: g, conn: c, address: Network(peer)}
	limits := g.opts.Limits()
	var victims []*place
	g.mu.Lock()
	// A unix socket has no addresses: its file's mode says who connects.
	if own := g.byAddress[p.address]; p.address != "" && own != nil && own.Len() >= max(1, limits.StrangersPerAddress) {
		victims = append(victims, g.evict(victim(own)))
	}
	for g.strangers >= max(1, limits.Strangers) { // more than one goes when the limit was lowered
		victims = append(victims, g.evict(victim(g.largest())))
	}
	p.in = groupOf(g.byAddress, p.address)
	p.element = p.in.PushBack(p)
	g.strangers++
	if len(victims) > 0 {
		g.note(len(victims))
	}
	g.mu.Unlock()
	for _, v := range victims {
		v.conn.Close()
	}
	if g.opts.Proxies.trusts(peer) {
		p.admit("proxy "+p.address, limits, false)
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return tcpConn{c, p}
	case *net.UnixConn:
		return unixConn{c, p}
	}
	return otherConn{c, p}
}

// largest is the group of the address that has the most strangers. There is one.
func (g *Gate) largest() (most *list.List) {
	for _, l := range g.byAddress {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	return most
}

// victim is the connection of an address that makes room: the oldest one that is idle
// after a response, or else the oldest one whose login is not being checked. A new one
// that is still silent is not idle: a flood would else close the newcomers.
func victim(l *list.List) *list.Element {
	var of [3]*list.Element
	for e := l.Front(); e != nil; e = e.Next() {
		p, rank := e.Value.(*place), 1
		if p.working > 0 {
			rank = 2
		} else if p.idle {
			rank = 0
		}
		if of[rank] == nil {
			of[rank] = e
		}
	}
	return cmp.Or(of[0], of[1], of[2])
}

func groupOf(groups map[string]*list.List, key string) *list.List {
	if groups[key] == nil {
		groups[key] = list.New()
	}
	return groups[key]
}

// evict takes the place from a connection, which the caller closes without g.mu.
func (g *Gate) evict(e *list.Element) *place {
	p := e.Value.(*place)
	p.leave()
	g.evictions++
	return p
}

// note writes to the log, at times, that connections were closed.
func (g *Gate) note(n int) {
	g.closed += n
	if now := time.Now(); now.After(g.nextLine) {
		g.nextLine = now.Add(10 * time.Second)
		g.opts.Logger.Warn("closed the oldest connections without credentials: there are too many", "listener", g.opts.Name, "closed", g.closed)
		g.closed = 0
	}
}

// leave releases the place. The caller holds gate.mu.
func (p *place) leave() {
	if p.element == nil {
		return
	}
	groups, key := p.gate.byAddress, p.address
	if p.owner != "" {
		groups, key = p.gate.byOwner, p.owner
		p.gate.known--
	} else {
		p.gate.strangers--
	}
	p.in.Remove(p.element)
	p.element = nil
	if p.in.Len() == 0 {
		delete(groups, key)
	}
}

func (p *place) release() {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.leave()
}

// Admit says that the client of the connection has shown valid credentials of the
// owner, which must not be "". It reports whether the connection is known from now on;
// if not, the connection works on as a stranger's, and may be closed for another one.
// The first owner counts.
func (p *place) Admit(owner string) bool { return p.admit(owner, p.gate.opts.Limits(), true) }

func (p *place) admit(owner string, limits Limits, share bool) bool {
	g := p.gate
	g.mu.Lock()
	if p.owner != "" || p.element == nil {
		defer g.mu.Unlock()
		return p.element != nil
	}
	var victim *place
	own := groupOf(g.byOwner, owner)
	if free := limits.Known - g.known; free <= 0 || share && own.Len() >= free {
		for e := own.Front(); e != nil && victim == nil; e = e.Next() {
			if e.Value.(*place).idle {
				victim = g.evict(e)
			}
		}
		if victim == nil {
			if own.Len() == 0 {
				delete(g.byOwner, owner)
			}
			g.mu.Unlock()
			return false
		}
		own = groupOf(g.byOwner, owner)
	}
	p.leave()
	p.owner, p.in = owner, own
	p.element = own.PushBack(p)
	g.known++
	g.mu.Unlock()
	if victim != nil {
		victim.conn.Close()
	}
	return true
}

// Known says that the client behind the request's connection has shown valid
// credentials of the owner, such as a project's id. Without a Gate it does nothing.
func Known(r *http.Request, owner string) {
	if p := placeOf(r.Context()); p != nil && owner != "" {
		p.Admit(owner)
	}
}

// Working says that the service works on something costly for the client behind a
// request, of which each address has a bounded share, until done is called: its connection
// makes room last. The context is the request's.
func Working(ctx context.Context) (done func()) {
	p := placeOf(ctx)
	if p == nil {
		return func() {}
	}
	add := func(n int) {
		p.gate.mu.Lock()
		defer p.gate.mu.Unlock()
		p.working += n
	}
	add(1)
	return func() { add(-1) }
}

// Serve prepares an HTTP server for connections of the gate: Caller and Known find a
// request's connection, and the gate knows which connections are idle. It must be
// called before the server serves.
func (g *Gate) Serve(s *http.Server) {
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if p := placeBelow(c); p != nil {
			return context.WithValue(ctx, placeKey{}, p)
		}
		return ctx
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if p := placeBelow(c); p != nil {
			g.mu.Lock()
			p.idle = state == http.StateIdle
			g.mu.Unlock()
		}
	}
}

// placeBelow finds the place of a connection, also below TLS.
func placeBelow(c net.Conn) *place {
	for {
		switch v := c.(type) {
		case tcpConn:
			return v.place
		case unixConn:
			return v.place
		case otherConn:
			return v.place
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return nil
		}
	}
}

// Count is how many connections there are now, and how many strangers' were closed for
// others since the start.
func (g *Gate) Count() (strangers, known int, evicted uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.strangers, g.known, g.evictions
}
