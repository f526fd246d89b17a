package serve

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// use is an attachment as the service shows it.
type use struct {
	ExpiresAt   time.Time `json:"expires_at"`
	Connections int
	Addresses   []string
	BytesRead   int64  `json:"bytes_read"`
	LastReadAt  string `json:"last_read_at"`
}

func shown(t *testing.T, s *harness.Server, id string) (u use) {
	t.Helper()
	s.Get(t, harness.AttachmentsPath+"/"+id, &u)
	return u
}

// qemuIO is a client that stays connected.
type qemuIO struct {
	in  io.WriteCloser
	out *bufio.Scanner
	cmd *exec.Cmd
}

func startQemuIO(t *testing.T, uri string) *qemuIO {
	t.Helper()
	cmd := exec.Command("qemu-io", "-r", "-f", "raw", uri)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	q := &qemuIO{in, bufio.NewScanner(out), cmd}
	t.Cleanup(q.leave)
	return q
}

// mustRead reads 4 KiB.
func (q *qemuIO) mustRead(t *testing.T, off int) {
	t.Helper()
	fmt.Fprintf(q.in, "read %d 4096\n", off)
	for q.out.Scan() {
		switch line := q.out.Text(); {
		case strings.Contains(line, "read 4096/4096"):
			return
		case strings.Contains(line, "failed"):
			t.Fatalf("qemu-io: %s", line)
		}
	}
	t.Fatal("qemu-io has ended")
}

func (q *qemuIO) leave() {
	q.in.Close()
	q.cmd.Wait()
}

// firstData is where the disk's first data is: holes are read from nowhere and not counted.
func firstData(t *testing.T, disk []byte) int {
	t.Helper()
	for off := 0; off < len(disk); off += 4096 {
		if slices.ContainsFunc(disk[off:off+4096], func(b byte) bool { return b != 0 }) {
			return off
		}
	}
	t.Fatal("the disk has no data")
	return 0
}

// TestAttachmentInUse: an attachment does not end while a machine reads it, and ends its
// time after that; who reads it is shown, and keeps it from being detached.
func TestAttachmentInUse(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	disk := harness.Disk(43, 4)
	data := firstData(t, disk)
	put(t, s, "a.zvhd2", disk)
	a := s.AttachFor(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")), 60)
	q := startQemuIO(t, a.URI)
	q.mustRead(t, data)
	harness.Eventually(t, "the client is shown", func() bool { return shown(t, s, a.ID).Connections == 1 })
	if u := shown(t, s, a.ID); len(u.Addresses) != 1 || !strings.HasPrefix(u.Addresses[0], "127.0.0.1:") {
		t.Errorf("shown %+v", u)
	}
	for _, path := range []string{harness.AttachmentsPath + "/" + a.ID, "/v2/images/" + a.ImageID} {
		if refused := s.Do(t, "DELETE", path, nil); refused.Status != 409 || !strings.Contains(string(refused.Body), "1 connection from 127.0.0.1:") {
			t.Errorf("DELETE %s: %d %s", path, refused.Status, refused.Body)
		}
	}

	// Its minute is over: the row's clock is put forward, as if the database had been away.
	changeRows(t, s, "UPDATE attachments SET ttl = 1, expires_at = $1", time.Now().UnixMilli())
	harness.Eventually(t, "the service says that it is in use", func() bool {
		q.mustRead(t, data)
		return s.Do(t, "GET", harness.AttachmentsPath+"/"+a.ID, nil).Status == 200
	})
	if u := shown(t, s, a.ID); u.Connections != 1 || u.BytesRead < 4096 || u.LastReadAt == "" {
		t.Errorf("shown %+v", u)
	}
	q.mustRead(t, 0)
	q.leave()
	harness.Eventually(t, "it ends when nobody reads it", func() bool {
		return s.Do(t, "GET", harness.AttachmentsPath+"/"+a.ID, nil).Status == 404
	})
	fails(t, "nbdinfo", a.URI)
}

// TestRenewedInUse: an attachment whose greatest age is changed while a machine reads it
// ends at the new one.
func TestRenewedInUse(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(45, 4))
	a := s.AttachFor(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")), 60)
	first := time.Now().Add(3 * time.Second)
	changeRows(t, s, "UPDATE attachments SET max_at = $1, expires_at = $1", first.UnixMilli())
	r := open(t, a.URI)
	r.mustRead(t)
	if renewed := s.Do(t, "PATCH", harness.AttachmentsPath+"/"+a.ID, map[string]any{"max_age_seconds": 3600}); renewed.Status != 200 {
		t.Fatalf("renew: %d %s", renewed.Status, renewed.Body)
	}
	harness.Eventually(t, "the first end is over", func() bool {
		r.mustRead(t)
		return time.Since(first) > 2*time.Second
	})
	changeRows(t, s, "UPDATE attachments SET max_at = $1", time.Now().UnixMilli())
	r.isCut(t)
}

// TestAttachmentAfterKill: a client has the attachment's time to come back after a crash,
// and the attachment does not last for ever.
func TestAttachmentAfterKill(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(44, 4))
	a := s.AttachFor(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")), 60)
	r := open(t, a.URI)
	r.mustRead(t)
	harness.Eventually(t, "the client is shown", func() bool { return shown(t, s, a.ID).Connections == 1 })
	s.Kill(t)
	killed := time.Now()
	s.Restart(t, "")
	ends := shown(t, s, a.ID).ExpiresAt
	if ends.Before(killed.Add(59*time.Second)) || ends.After(killed.Add(2*time.Minute)) {
		t.Errorf("killed at %s, it ends at %s", killed, ends)
	}
	open(t, a.URI).mustRead(t)
}
