package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/nbd"
)

// unixPrefix begins an nbd_listen that is a unix socket.
const unixPrefix = "unix:"

// maxSocketPath is the longest path of a unix socket in bytes: sun_path, unix(7).
const maxSocketPath = 107

// lastBeat is how long the end of the service waits for the database to hear that nobody
// is connected any more.
const lastBeat = 5 * time.Second

// socketMode lets the service's user and group connect.
const socketMode = 0o660

// validateNBD checks the settings of the NBD listener. A socket's path becomes absolute.
func (c *Config) validateNBD() error {
	if path, ok := strings.CutPrefix(c.NBDListen, unixPrefix); ok {
		if path == "" {
			return errors.New("nbd_listen: unix: needs the path of the socket behind it")
		}
		if err := absolute(&path); err != nil {
			return err
		}
		if len(path) > maxSocketPath {
			return fmt.Errorf("nbd_listen: the path %s has %d bytes, a socket's may have %d", path, len(path), maxSocketPath)
		}
		c.NBDListen = unixPrefix + path
	} else if c.NBDListen != "" {
		if _, _, err := net.SplitHostPort(c.NBDListen); err != nil {
			return fmt.Errorf("nbd_listen: %q is neither host:port nor unix:PATH: %w", c.NBDListen, err)
		}
	}
	if c.NBDPublic != "" {
		host, port, err := net.SplitHostPort(c.NBDPublic)
		if err != nil || host == "" || port == "" || port == "0" {
			return fmt.Errorf("nbd_public: %q is not host:port", c.NBDPublic)
		}
		if strings.HasPrefix(c.NBDListen, unixPrefix) {
			return errors.New("nbd_public names a host and a port, but nbd_listen is a unix socket")
		}
	}
	if c.NBDRequireTLS != nil && *c.NBDRequireTLS && c.TLSCert == "" && c.NBDListen != "" {
		return errors.New("nbd_require_tls: TLS needs a certificate, set tls_cert and tls_key")
	}
	return nil
}

// listenNBD binds the NBD listener. One that strangers reach must not be without TLS
// unless the operator says so.
func (s *Service) listenNBD() error {
	if s.cfg.NBDListen == "" {
		return nil
	}
	var err error
	if s.nbd, err = s.bind("nbd_listen", s.cfg.NBDListen); err != nil {
		return err
	}
	s.nbd = s.gates.nbd.Listener(s.nbd)
	if s.nbdNeedsTLS() && s.cfg.TLSCert == "" {
		return fmt.Errorf("nbd_listen: %s can be reached from other machines, so NBD needs TLS there: set tls_cert and tls_key; "+
			"or listen on 127.0.0.1 or a unix: socket; or, in a network that you trust, set nbd_require_tls: false", s.cfg.NBDListen)
	}
	return nil
}

// listenUnix binds a unix socket in place of one that nobody listens on any more.
func listenUnix(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and is no socket; name another path", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("another process listens on %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// nbdNeedsTLS reports whether a client in clear is refused: what the operator says, or
// else whether other machines reach the listener (or, where another process listens,
// the host that URIs name).
func (s *Service) nbdNeedsTLS() bool {
	if s.cfg.NBDRequireTLS != nil {
		return *s.cfg.NBDRequireTLS
	}
	if s.nbd == nil {
		host, _, _ := net.SplitHostPort(s.cfg.NBDPublic) // it was checked
		ip := net.ParseIP(host)
		return host != "localhost" && (ip == nil || !ip.IsLoopback())
	}
	tcp, ok := s.nbd.Addr().(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// nbdURI is where the disk of a token is served; with "" the root of all. "" when
// nobody serves any.
func (s *Service) nbdURI(token string) string {
	scheme := "nbd"
	if s.nbdNeedsTLS() {
		scheme = "nbds"
	}
	if path, ok := strings.CutPrefix(s.cfg.NBDListen, unixPrefix); ok {
		return scheme + "+unix:///" + token + "?socket=" + queryPath(path)
	}
	host := s.cfg.NBDPublic
	if host == "" {
		if s.nbd == nil {
			return ""
		}
		host = s.reachable(s.nbd.Addr().(*net.TCPAddr))
	}
	u := url.URL{Scheme: scheme, Host: host}
	if token != "" {
		u.Path = "/" + token
	}
	return u.String()
}

// queryPath writes a path as the value of a query, its slashes readable. A space is not
// written as +, which readers of NBD URIs don't undo.
func queryPath(path string) string {
	return strings.NewReplacer("%2F", "/", "&", "%26", "+", "%2B").Replace(url.PathEscape(path))
}

// reachable names a listener's address for URIs. One on all of the machine's addresses
// is named as the API is, or by the machine's name.
func (s *Service) reachable(addr *net.TCPAddr) string {
	if !addr.IP.IsUnspecified() {
		return addr.String()
	}
	host := ""
	if u, err := url.Parse(s.cfg.PublicURL); err == nil {
		host = u.Hostname()
	}
	if host == "" {
		host, _ = os.Hostname()
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

// newNBDServer makes the server of attachments, if there is a listener for it.
func (s *Service) newNBDServer() (err error) {
	if s.nbd == nil {
		return nil
	}
	opts := nbd.Options{Open: s.exports.Open, MaxConnections: admit.MaxKnown, RequireTLS: s.nbdNeedsTLS(), Logger: s.log}
	opts.TLS = s.certificate.config()
	if s.nbdServer, err = nbd.New(opts); err != nil {
		return fmt.Errorf("serve NBD: %w", err)
	}
	return nil
}

// serveNBD serves attachments until ctx ends, and what is under way for a while longer.
func (s *Service) serveNBD(ctx context.Context) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	// Attachments end while the connections are drained, too.
	var watch sync.WaitGroup
	watch.Go(func() { s.exports.watch(watching) })
	defer func() {
		stop()
		watch.Wait()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastBeat)
		defer cancel()
		if err := s.exports.beats.tell(last); err != nil {
			s.log.Warn("could not say that nobody is connected any more", "error", err)
		}
	}()
	var clients sync.WaitGroup
	defer clients.Wait()
	clients.Go(func() { s.startClients(ctx) })
	return s.nbdServer.Serve(ctx, s.nbd)
}
