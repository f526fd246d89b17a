package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/handover"
	"github.com/quickims/quickims/internal/nbd"
)

// Times of a hand-over. The process that serves goes on with its clients until it has
// asked them to rest, and again when what follows takes longer than this.
const (
	// prepareTime is how long the new process may take for its configuration, openTime
	// for its database: a migration of many rows takes a while.
	prepareTime = time.Minute
	openTime    = 10 * time.Minute
	// restTime is how long the others wait for clients whose requests take long; these
	// are passed on later, one by one, for lateTime and as long as reads wait for the
	// store (store.wait).
	restTime = 250 * time.Millisecond
	lateTime = time.Minute
	// takeTime is how long the new process may take while the clients rest.
	takeTime = 5 * time.Second
)

// boundListener is a listener and what it was configured as, such as "listen 127.0.0.1:0".
type boundListener struct {
	name string
	net.Listener
}

// bind takes the listener of that setting from the process before, or binds one.
func (s *Service) bind(setting, addr string) (l net.Listener, err error) {
	if l = s.before.listener(setting, addr); l == nil {
		if path, unix := strings.CutPrefix(addr, unixPrefix); unix {
			l, err = listenUnix(path)
		} else {
			l, err = net.Listen("tcp", addr)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	s.bound = append(s.bound, boundListener{setting + " " + addr, l})
	return l, nil
}

// The names of descriptors that are no listeners of settings.
const (
	lockFile        = "lock"
	controlListener = "hand-over"
)

// before is the process that this one takes over from.
type before struct {
	peer      *handover.Peer
	listeners map[string]net.Listener // that nobody has taken yet
	clients   []*nbd.Taken
}

// listener takes the listener of a setting, configured or bound at that address; nil if
// there is none. It works on nil.
func (b *before) listener(setting, addr string) net.Listener {
	if b == nil {
		return nil
	}
	for name, l := range b.listeners {
		if of, _, _ := strings.Cut(name, " "); name == setting+" "+addr || of == setting && l.Addr().String() == addr {
			delete(b.listeners, name)
			return l
		}
	}
	return nil
}

// TakeOverService is New for a data folder that another process serves: it takes the
// folder, the listeners and the clients of NBD in clear over from that one, which goes
// on unless Run says that it is this one's turn. Without another process it is New.
func TakeOverService(ctx context.Context, cfg Config, seed Seed, log *slog.Logger) (*Service, error) {
	peer, err := handover.Dial(cfg.Data)
	if errors.Is(err, handover.ErrNobody) {
		log.Info("no process to take over from", "data", cfg.Data)
		return New(ctx, cfg, seed, log)
	}
	if err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	s := &Service{cfg: cfg, seed: seed, log: log, before: &before{peer: peer, listeners: map[string]net.Listener{}}}
	if err := s.open(ctx); err != nil {
		_ = peer.Send(handover.Message{Kind: handover.Refused, Error: err.Error()})
		s.Close()
		return nil, fmt.Errorf("take over, process %d goes on: %w", peer.Pid, err)
	}
	return s, nil
}

// openAfter opens everything while the process before serves, and takes its clients.
func (s *Service) openAfter(ctx context.Context) error {
	peer := s.before.peer
	defer context.AfterFunc(ctx, func() { peer.Close() })()
	if err := s.receiveListeners(); err != nil {
		return err
	}
	if err := faultpoint.Hit(faultpoint.HandOverBegun); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	if _, err := loadOSVersions(s.cfg.OSVersions); err != nil { // at once, not when all is open
		return err
	}
	if err := faultpoint.Hit(faultpoint.HandOverPrepared); err != nil {
		return err
	}
	if err := peer.Send(handover.Message{Kind: handover.Prepared}); err != nil {
		return err
	}
	names, err := receiveExports(peer)
	if err != nil {
		return err
	}
	if err := faultpoint.Hit(faultpoint.HandOverYielded); err != nil {
		return err
	}
	if err := s.openRows(ctx); err != nil {
		return err
	}
	if err := s.wire(); err != nil {
		return err
	}
	defer s.exports.closePrepared()
	for _, name := range names {
		if err := s.exports.prepare(ctx, name); err != nil {
			return fmt.Errorf("open a disk that a client reads: %w", err)
		}
	}
	if err := faultpoint.Hit(faultpoint.HandOverOpened); err != nil {
		return err
	}
	if err := peer.Send(handover.Message{Kind: handover.Opened}); err != nil {
		return err
	}
	if err := s.receiveClients(ctx); err != nil {
		return err
	}
	if err := faultpoint.Hit(faultpoint.HandOverReceived); err != nil {
		return err
	}
	if err := peer.Send(handover.Message{Kind: handover.Received}); err != nil {
		return err
	}
	_, _, err = peer.Receive(handover.Go, takeTime)
	return err
}

// receiveListeners greets the process before and takes what it holds of the folder.
func (s *Service) receiveListeners() error {
	b := s.before
	if err := b.peer.Send(handover.Message{Kind: handover.Hello, Protocol: handover.Protocol}); err != nil {
		return err
	}
	m, files, err := b.peer.Receive(handover.Listeners, prepareTime)
	if err != nil {
		return err
	}
	for i, f := range files {
		if m.Names[i] == lockFile {
			s.lock = f // the lock is that of all descriptors of this opening
			continue
		}
		l, lerr := net.FileListener(f)
		err = errors.Join(err, lerr, f.Close())
		if lerr == nil {
			b.listeners[m.Names[i]] = l
		}
	}
	control, ok := b.listeners[controlListener].(*net.UnixListener)
	delete(b.listeners, controlListener)
	if err != nil || !ok || s.lock == nil {
		return errors.Join(errors.New("the other process did not pass what it holds of the folder"), err)
	}
	s.control = control
	return nil
}

// receiveExports waits until the process before runs no jobs any more, and learns what
// its clients read.
func receiveExports(peer *handover.Peer) (names []string, err error) {
	for {
		m, _, err := peer.ReceiveOne(drainTime+prepareTime, handover.Yielded, handover.Export)
		if err != nil || m.Kind == handover.Yielded {
			return names, err
		}
		names = append(names, m.Export)
	}
}

// receiveClients takes the connections that rest. One whose attachment has ended is
// dropped; any other that can't be taken ends the hand-over.
func (s *Service) receiveClients(ctx context.Context) error {
	for n := 0; ; n++ {
		m, files, err := s.before.peer.ReceiveOne(prepareTime, handover.All, handover.Conn)
		if err != nil {
			return err
		}
		if m.Kind == handover.All {
			if n != m.Number {
				return fmt.Errorf("%d connections came of %d", n, m.Number)
			}
			return nil
		}
		taken, err := s.takeClient(ctx, m, files[0])
		switch {
		case errors.Is(err, nbd.ErrUnknownExport):
		case err != nil:
			return err
		default:
			s.before.clients = append(s.before.clients, taken)
		}
	}
}

// takeClient prepares to serve a connection.
func (s *Service) takeClient(ctx context.Context, m handover.Message, f *os.File) (*nbd.Taken, error) {
	raw, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("take a connection: %w", err)
	}
	var st nbd.State
	if err = json.Unmarshal(m.State, &st); err == nil && s.nbdServer == nil {
		err = errors.New("clients of NBD are connected, and there is no nbd_listen")
	}
	if err == nil && !s.exports.isPrepared(st.Export) {
		err = s.exports.prepare(ctx, st.Export)
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("take a connection: %w", err)
	}
	conn := s.gates.nbd.Enter(raw)
	taken, err := s.nbdServer.Take(ctx, conn, st)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("take the connection of %s: %w", raw.RemoteAddr(), err)
	}
	return taken, nil
}

// assume makes the service this process's: it fails unless the process before learns
// so, and never serves again.
func (s *Service) assume() error {
	b := s.before
	if b == nil {
		control, err := handover.Listen(s.cfg.Data)
		if err != nil {
			s.log.Warn("no other process can take over from this one", "error", err)
		}
		s.control = control
		return nil
	}
	if err := faultpoint.Hit(faultpoint.HandOverGo); err != nil {
		return err
	}
	if err := b.peer.Send(handover.Message{Kind: handover.Taken}); err != nil {
		return fmt.Errorf("take over, process %d goes on: %w", b.peer.Pid, err)
	}
	if err := handover.Adopt(s.control); err != nil {
		s.log.Warn("the next process that takes over will call this one by the number of one before", "error", err)
	}
	s.log.Info("took over", "from", b.peer.Pid, "connections", len(b.clients))
	for _, l := range s.bound {
		if u, ok := l.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(true)
		}
	}
	// What this configuration does not name any more ends.
	for name, l := range b.listeners {
		l.Close()
		if _, path, ok := strings.Cut(name, " "+unixPrefix); ok {
			_ = os.Remove(path)
		}
	}
	return nil
}

// startClients serves what was taken from the process before, and what it passes on
// later because its requests took long.
func (s *Service) startClients(ctx context.Context) {
	b := s.before
	if b == nil {
		return
	}
	for _, c := range b.clients {
		c.Start(ctx)
	}
	b.clients = nil
	defer b.peer.Close()
	defer context.AfterFunc(ctx, func() { b.peer.Close() })()
	for {
		m, files, err := b.peer.Receive(handover.Conn, drainTime+lateTime+s.cfg.Store.Wait)
		if err != nil {
			return // the end of the other process
		}
		taken, err := s.takeClient(ctx, m, files[0])
		served := handover.Message{Kind: handover.Served}
		if err != nil {
			served.Error = err.Error()
		} else {
			taken.Start(ctx)
		}
		if b.peer.Send(served) != nil {
			return
		}
	}
}

// closeControl ends what New and Run opened for hand-overs.
func (s *Service) closeControl() error {
	var errs []error
	if b := s.before; b != nil {
		for _, c := range b.clients {
			c.Close()
		}
		for _, l := range b.listeners {
			_ = l.Close()
		}
		if err := b.peer.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.after != nil {
		if err := s.after.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.control != nil {
		if err := s.control.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// serveHandOvers waits for processes that take over, one at a time, until one did or ctx
// ends. Then it calls stop.
func (s *Service) serveHandOvers(ctx context.Context, d *duties, stop func()) {
	if s.control == nil {
		return
	}
	control := s.control
	defer control.Close()
	defer context.AfterFunc(ctx, func() { control.Close() })()
	for {
		conn, err := control.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			if s.after == nil {
				_ = handover.Remove(s.cfg.Data)
			}
			return
		}
		if err != nil {
			s.log.Warn("a process that takes over could not connect", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		peer, err := handover.NewPeer(conn)
		if err != nil {
			s.log.Warn("a process that may not take over was refused", "error", err)
			continue
		}
		unwatch := context.AfterFunc(ctx, func() { peer.Close() })
		err = s.handOver(ctx, peer, d)
		unwatch()
		if err == nil {
			s.after = peer
			stop()
			return
		}
		_ = peer.Send(handover.Message{Kind: handover.Refused, Error: err.Error()})
		peer.Close()
		if ctx.Err() == nil {
			s.log.Error("another process did not take over, this one goes on", "process", peer.Pid, "error", err)
		}
	}
}

// handOver hands over to another process. When it fails, this one serves as before.
func (s *Service) handOver(ctx context.Context, peer *handover.Peer, d *duties) (err error) {
	hello, _, err := peer.Receive(handover.Hello, prepareTime)
	if err != nil {
		return err
	}
	if hello.Protocol != handover.Protocol {
		return fmt.Errorf("the service speaks version %d of the hand-over, the process that would take over version %d: stop the service and start it anew", handover.Protocol, hello.Protocol)
	}
	s.log.Info("another process takes over", "process", peer.Pid)
	names, files := []string{lockFile, controlListener}, []syscall.Conn{s.lock, s.control}
	for _, l := range s.bound {
		names, files = append(names, l.name), append(files, l.Listener.(syscall.Conn))
	}
	if err := peer.Send(handover.Message{Kind: handover.Listeners, Names: names}, files...); err != nil {
		return err
	}
	if _, _, err := peer.Receive(handover.Prepared, prepareTime); err != nil {
		return err
	}
	// What changes the database and the image area by itself is done by one process.
	drain, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = errors.Join(err, d.start())
		}
	}()
	if err := d.stop(drain); err != nil {
		return err
	}
	if s.nbdServer != nil {
		for _, name := range s.nbdServer.Exports() {
			if err := peer.Send(handover.Message{Kind: handover.Export, Export: name}); err != nil {
				return err
			}
		}
	}
	if err := peer.Send(handover.Message{Kind: handover.Yielded}); err != nil {
		return err
	}
	if _, _, err := peer.Receive(handover.Opened, openTime); err != nil {
		return err
	}
	return s.handOverClients(ctx, peer)
}

// handOverClients makes the clients rest and passes them on.
func (s *Service) handOverClients(ctx context.Context, peer *handover.Peer) (err error) {
	began := time.Now()
	var clients []*nbd.Parked
	if s.nbdServer != nil {
		defer func() {
			if err != nil {
				s.nbdServer.Resume()
			}
		}()
		clients = s.nbdServer.Park(ctx, restTime)
	}
	sent := 0
	for _, p := range clients {
		if err := sendClient(peer, p); errors.Is(err, net.ErrClosed) {
			continue // it ended meanwhile
		} else if err != nil {
			return err
		}
		sent++
	}
	if err := peer.Send(handover.Message{Kind: handover.All, Number: sent}); err != nil {
		return err
	}
	if _, _, err := peer.Receive(handover.Received, takeTime); err != nil {
		return err
	}
	if err := peer.Send(handover.Message{Kind: handover.Go}); err != nil {
		return err
	}
	if err := peer.Decide(takeTime); err != nil {
		return err
	}
	for _, p := range clients {
		s.nbdServer.Pass(p)
	}
	for _, l := range s.bound {
		if u, ok := l.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
	}
	s.log.Info("handed over", "process", peer.Pid, "connections", sent, "rest_ms", time.Since(began).Milliseconds())
	if err := notifySystemd(fmt.Sprintf("MAINPID=%d", peer.Pid)); err != nil {
		s.log.Warn("could not tell systemd which process the service is now", "error", err)
	}
	return nil
}

func sendClient(peer *handover.Peer, p *nbd.Parked) error {
	state, err := json.Marshal(p.State)
	if err != nil {
		return err
	}
	return peer.Send(handover.Message{Kind: handover.Conn, Names: []string{"client"}, State: state}, p.Conn.(syscall.Conn))
}

// passRest passes on the clients whose requests took longer, after another process took
// over.
func (s *Service) passRest() {
	if s.after == nil || s.nbdServer == nil {
		return
	}
	s.nbd.Close()
	ctx, cancel := context.WithTimeout(context.Background(), lateTime+s.cfg.Store.Wait)
	defer cancel()
	for {
		p := s.nbdServer.Next(ctx)
		if p == nil {
			return
		}
		err := sendClient(s.after, p)
		if err == nil {
			var m handover.Message
			if m, _, err = s.after.Receive(handover.Served, lateTime); err == nil && m.Error != "" {
				err = errors.New(m.Error)
			}
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Warn("a connection could not be passed on and is cut", "error", err)
		}
		if err != nil {
			p.Conn.Close()
		}
		s.nbdServer.Pass(p)
	}
}
