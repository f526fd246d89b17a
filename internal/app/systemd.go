package app

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// notifyTime is how long systemd may take to read what it is told.
const notifyTime = 5 * time.Second

// notifySystemd tells the service manager the state, as sd_notify(3) has it, and waits
// until it has read that: what a process says that has ended is not known to be the
// service's. Without a manager it does nothing.
func notifySystemd(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTime)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return err
	}
	// The manager closes the descriptor of a BARRIER=1 once it has read what came before.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = sendBarrier(conn, w)
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(notifyTime)); err != nil {
		return err
	}
	_, _ = r.Read(make([]byte, 1)) // its end, or a manager that knows no barriers
	return nil
}

// sendBarrier sends the descriptor of a pipe with BARRIER=1.
func sendBarrier(conn *net.UnixConn, pipe *os.File) error {
	to, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	from, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	send := func(socket uintptr) bool {
		err := from.Control(func(fd uintptr) {
			sent = unix.Sendmsg(int(socket), []byte("BARRIER=1"), unix.UnixRights(int(fd)), nil, 0)
		})
		if err != nil {
			sent = err
		}
		return !errors.Is(sent, unix.EAGAIN)
	}
	if err := to.Write(send); err != nil {
		return err
	}
	return sent
}
