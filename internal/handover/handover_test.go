package handover

import (
	"errors"
	"io"

	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair is the two ends of a conversation, the new process's and the old one's.
func pair(t *testing.T, folder string) (younger, older *Peer) {
	t.Helper()
	l, err := Listen(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if younger, err = Dial(folder); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	if older, err = NewPeer(conn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { younger.Close(); older.Close() })
	if younger.Pid != os.Getpid() || older.Pid != os.Getpid() {
		t.Errorf("the ends are of the processes %d and %d, both are %d", younger.Pid, older.Pid, os.Getpid())
	}
	return younger, older
}

// TestDescriptors: what is sent is the open file itself, in a folder whose path is longer
// than a socket's may be, and the socket is the user's own.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	younger, older := pair(t, folder)
	if info, err := os.Stat(filepath.Join(folder, SocketName)); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sent := Message{Kind: Conn, Names: []string{"one", "two"}}
	if err := older.Send(sent, w, r); err != nil {
		t.Fatal(err)
	}
	w.Close()
	m, files, err := younger.Receive(Conn, time.Second)
	if err != nil || m.Names[1] != "two" {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := files[0].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	text, err := io.ReadAll(files[1])
	if files[1].Close(); err != nil || string(text) != "through" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestReceiveRefuses: another message than the one that is due, one without its
// descriptors, and none at all.
func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	younger, older := pair(t, t.TempDir())
	for _, m := range []Message{{Kind: Go}, {Kind: Conn, Names: []string{"one"}}, {Kind: Refused, Error: "the reason"}} {
		if err := older.Send(m); err != nil {
			t.Fatal(err)
		}
		_, _, err := younger.Receive(Conn, time.Second)
		if err == nil || m.Kind == Refused && err.Error() != "the reason" {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if _, _, err := younger.Receive(Conn, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	older.Close()
	if _, _, err := younger.Receive(Conn, time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func TestDialNobody(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if _, err := Dial(folder); !errors.Is(err, ErrNobody) {
		t.Error(err)
	}
	l, err := Listen(folder)
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // as after a kill: the socket stays
	if _, err := Dial(folder); !errors.Is(err, ErrNobody) {
		t.Error(err)
	}
	if l, err = Listen(folder); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := errors.Join(Remove(folder), Remove(folder)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(folder, SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(folder); err == nil {
		l.Close()
		t.Error("a file was taken for a socket")
	}
}

// TestDecide: whenever the new process says that it serves, and however long the old one
// waits, either both know that it does, or neither.
func TestDecide(t *testing.T) {
	t.Parallel()
	taken := 0
	for i := range 400 {
		younger, older := pair(t, t.TempDir())
		var said, heard error
		var both sync.WaitGroup
		both.Go(func() {
			time.Sleep(time.Duration(i) * 2 * time.Microsecond)
			said = younger.Send(Message{Kind: Taken})
		})
		both.Go(func() { heard = older.Decide(400 * time.Microsecond) })
		both.Wait()
		if (said == nil) != (heard == nil) {
			t.Fatalf("the new process: %v, the old one: %v", said, heard)
		}
		if said == nil {
			taken++
		}
	}
	t.Logf("taken in %d of 400", taken)
}
