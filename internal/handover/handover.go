// Package handover carries the messages with which one process of the service takes over
// from another one on the same machine, and the descriptors that go with them: over a
// unix socket in the data folder, between processes of one user. What the messages say is
// the business of internal/app; the order is in docs/decisions/0026-hand-over.md.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is the version of the messages. Processes of different versions do not hand
// over to each other.
const Protocol = 1

// SocketName is the socket's name in the data folder.
const SocketName = "handover.sock"

// Kind says what a message is about, or that its sender got so far.
type Kind string

// The messages of the process that takes over ("new") and of the one that serves ("old"),
// in order.
const (
	Hello     Kind = "hello"     // new: the protocol that it speaks
	Listeners Kind = "listeners" // old: its listeners, and the lock of the data folder
	Prepared  Kind = "prepared"  // new: configuration and listeners are good
	Export    Kind = "export"    // old: an export that a client reads, to be opened beforehand
	Yielded   Kind = "yielded"   // old: it runs no jobs any more, and still serves
	Opened    Kind = "opened"    // new: all is open; it could serve
	Conn      Kind = "conn"      // old: a connection that rests
	All       Kind = "all"       // old: there were so many
	Received  Kind = "received"  // new: it could serve them
	Go        Kind = "go"        // old: go on
	Taken     Kind = "taken"     // new: from now on it serves. Without this message the old one goes on
	Served    Kind = "served"    // new: a connection that came later is served
	Refused   Kind = "refused"   // either: it can't go on, because of Error
)

// Message is one message.
type Message struct {
	Kind     Kind   `json:"kind"`
	Protocol int    `json:"protocol,omitempty"`
	Error    string `json:"error,omitempty"`
	// Names are those of the descriptors that come with it.
	Names []string `json:"names,omitempty"`
	// Export is the name of an export, which is a secret.
	Export string `json:"export,omitempty"`
	// Number of connections.
	Number int `json:"number,omitempty"`
	// State of a connection.
	State json.RawMessage `json:"state,omitempty"`
}

// maxMessage and maxFiles bound what is received at once.
const (
	maxMessage = 64 << 10
	maxFiles   = 16
)

// ErrNobody says that no process serves the folder, or that it is one of a release that
// hands nothing over.
var ErrNobody = errors.New("no process there hands over")

// Listen binds the socket in the data folder, whose lock the caller holds: what has the
// socket's name there was left by a process that is dead.
func Listen(folder string) (*net.UnixListener, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := within(dir)
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and is no socket", filepath.Join(folder, SocketName))
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Nobody can connect before it listens, and nobody else at all.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), SocketName)
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, maxWaiting); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// maxWaiting is how many connections may wait to be accepted.
const maxWaiting = 8

// Adopt makes this process, which got the listener from another one, the one that Dial
// finds: a peer's credentials are those of the process that listened last (unix(7)).
func Adopt(l *net.UnixListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), maxWaiting) }); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("listen", err)
}

// within is the socket's path by the folder's descriptor: a socket's own may have 107
// bytes only, unix(7).
func within(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketName)
}

// Remove removes the socket of a service that ends.
func Remove(folder string) error {
	err := os.Remove(filepath.Join(folder, SocketName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Peer is the other process. One goroutine at a time may use it.
type Peer struct {
	conn *net.UnixConn
	// Pid is its process id.
	Pid int
}

// Dial connects to the process that serves the folder, or fails with ErrNobody.
func Dial(folder string) (*Peer, error) {
	dir, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNobody
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: within(dir)})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNobody
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the process that serves %s: %w", folder, err)
	}
	return NewPeer(conn)
}

// NewPeer takes a connection of the socket. It closes that of another user.
func NewPeer(conn *net.UnixConn) (*Peer, error) {
	p := &Peer{conn: conn}
	credentials, err := p.credentials()
	if err == nil && int(credentials.Uid) != os.Geteuid() {
		err = fmt.Errorf("the other process is of the user with the number %d, this one of %d: a service hands over to its own user alone", credentials.Uid, os.Geteuid())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	p.Pid = int(credentials.Pid)
	return p, nil
}

func (p *Peer) credentials() (c *unix.Ucred, err error) {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := raw.Control(func(fd uintptr) { c, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return nil, cerr
	}
	return c, err
}

// sendTime is how long the other process may leave messages unread.
const sendTime = 10 * time.Second

// Send sends a message and the descriptors of what is named in it.
func (p *Peer) Send(m Message, files ...syscall.Conn) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("a message of %d bytes and %d descriptors is too long", len(text), len(files))
	}
	if err := p.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	if err := p.send(text, nil, files); err != nil {
		return fmt.Errorf("send %q: %w", m.Kind, err)
	}
	return nil
}

// send adds one descriptor after the other to rights, each held while it is used.
func (p *Peer) send(text []byte, fds []int, files []syscall.Conn) error {
	if len(files) == 0 {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		_, _, err := p.conn.WriteMsgUnix(text, rights, nil)
		return err
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = p.send(text, append(fds, int(fd)), files[1:]) }); err != nil {
		return err
	}
	return sent
}

// Receive waits for the next message, which must be of the kind and have as many
// descriptors as names. These are the caller's to close. A Refused in its place is an
// error with its text.
func (p *Peer) Receive(kind Kind, patience time.Duration) (Message, []*os.File, error) {
	return p.ReceiveOne(patience, kind)
}

// ReceiveOne is Receive for a message of one of several kinds.
func (p *Peer) ReceiveOne(patience time.Duration, kinds ...Kind) (Message, []*os.File, error) {
	m, files, err := p.receive(patience)
	if err != nil {
		return m, nil, fmt.Errorf("wait for %q of the other process: %w", kinds[0], err)
	}
	if len(files) == len(m.Names) && slices.Contains(kinds, m.Kind) {
		return m, files, nil
	}
	for _, f := range files {
		f.Close()
	}
	if m.Kind == Refused {
		return m, nil, errors.New(m.Error)
	}
	return m, nil, fmt.Errorf("the other process says %q with %d descriptors, not %q", m.Kind, len(files), kinds[0])
}

func (p *Peer) receive(patience time.Duration) (m Message, files []*os.File, err error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return m, nil, err
	}
	text, oob := make([]byte, maxMessage+1), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := p.conn.ReadMsgUnix(text, oob)
	if err != nil {
		return m, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return m, nil, err
	}
	for _, c := range messages {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			continue // no descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handover"))
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > maxMessage {
		err = errors.New("a message is too long")
	} else {
		err = json.Unmarshal(text[:n], &m)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return m, nil, err
	}
	return m, files, nil
}

// Decide waits for Taken. When it returns an error, the other process cannot say Taken
// any more, though it may think that it will: its sending fails. So there is no moment in
// which both processes go on, or none.
func (p *Peer) Decide(patience time.Duration) error {
	_, _, err := p.Receive(Taken, patience)
	if err == nil {
		return nil
	}
	raw, rerr := p.conn.SyscallConn()
	if rerr != nil {
		return err
	}
	// From here on the other process's sends fail; what it sent before can still be read.
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	if _, _, late := p.Receive(Taken, patience); late == nil {
		return nil
	}
	return err
}

// Close ends the conversation.
func (p *Peer) Close() error { return p.conn.Close() }
