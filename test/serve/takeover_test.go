package serve

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/test/harness"
)

// load is clients that read one disk all the time, and compare what they read: QEMU's
// own NBD client, without reconnect-delay, and ours.
type load struct {
	reads   atomic.Int64
	longest atomic.Int64 // in nanoseconds
	end     chan struct{}
	readers sync.WaitGroup
	bench   *exec.Cmd
	ended   chan error // of bench
}

// qemuNBD serves what QEMU reads of a URI at a unix socket.
func qemuNBD(t *testing.T, uri string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "qemu.sock")
	start(t, exec.Command("qemu-nbd", "--read-only", "--persistent", "--shared=8", "--cache=none", "--aio=threads", "-f", "raw", "-x", "disk", "-k", socket, uri))
	harness.Eventually(t, "qemu-nbd listens", func() bool {
		// The socket is there before it takes connections.
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return socket
}

// start starts a program that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) (ended chan error) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	done := make(chan struct{})
	go func() { ended <- cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	return ended
}

func startLoad(t *testing.T, uri string, disk []byte) *load {
	t.Helper()
	l := &load{end: make(chan struct{})}
	through, err := nbdtest.Dial(t.Context(), "unix", qemuNBD(t, uri), nbdtest.Config{Export: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { through.Close() })
	for i, c := range []*nbdtest.Client{through, through, through, through, open(t, uri).Client, open(t, uri).Client} {
		r := rand.New(rand.NewPCG(26, uint64(i)))
		l.readers.Go(func() {
			for {
				select {
				case <-l.end:
					return
				default:
				}
				n := 512 << r.IntN(10)
				off := r.IntN((len(disk)-n)/512+1) * 512
				p := make([]byte, n)
				begun := time.Now()
				err := c.Read(p, int64(off))
				took := time.Since(begun)
				for old := l.longest.Load(); int64(took) > old && !l.longest.CompareAndSwap(old, int64(took)); old = l.longest.Load() {
				}
				if err != nil {
					t.Errorf("client %d: %d bytes at %d: %v", i, n, off, err)
					return
				}
				if !bytes.Equal(p, disk[off:off+n]) {
					t.Errorf("client %d: %d bytes at %d are wrong", i, n, off)
					return
				}
				l.reads.Add(1)
			}
		})
	}
	l.bench = exec.Command("qemu-img", "bench", "-f", "raw", "-c", "2000000000", "-d", "8", "-s", "65536", uri)
	l.ended = start(t, l.bench)
	return l
}

// goesOn waits until the readers have read more.
func (l *load) goesOn(t *testing.T, more int64) {
	t.Helper()
	before := l.reads.Load()
	harness.Eventually(t, "the clients read on", func() bool { return l.reads.Load() >= before+more || t.Failed() })
	if t.Failed() {
		t.FailNow()
	}
}

// stop ends the readers; QEMU's own must have lived until now.
func (l *load) stop(t *testing.T) {
	t.Helper()
	close(l.end)
	l.readers.Wait()
	select {
	case err := <-l.ended:
		t.Errorf("qemu-img bench ended: %v", err)
	default:
	}
	t.Logf("%d reads were compared, the longest took %s", l.reads.Load(), time.Duration(l.longest.Load()).Round(time.Millisecond))
}

// TestTakeOver: clients that know nothing of reconnecting read on through twenty
// upgrades, every byte right; the API answers all the time, at the same addresses.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		harness.Options
		upgrades int
	}{"tcp": {harness.Options{NBD: true, S3: true}, 20}, "unix": {harness.Options{NBDUnix: true}, 5}} {
		t.Run(name, func(t *testing.T) {
			disk := harness.Disk(26, 48)
			s := harness.Start(t, tc.Options)
			put(t, s, "a.zvhd2", disk)
			a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
			uses := fmt.Sprintf("%s/%s", harness.AttachmentsPath, a.ID)
			l := startLoad(t, a.URI, disk)
			l.goesOn(t, 100)
			var longest time.Duration
			for range tc.upgrades {
				begun, before := time.Now(), s.Pid()
				if !s.TakeOver(t, "") {
					t.Fatalf("the new process did not take over:\n%s", s.Log())
				}
				if !strings.Contains(s.Log(), fmt.Sprintf(`"msg":"took over","from":%d,`, before)) {
					t.Errorf("the new process does not name process %d as the one before", before)
				}
				longest = max(longest, time.Since(begun))
				l.goesOn(t, 100)
				var use struct{ Connections int }
				harness.Eventually(t, "the new process says who is connected", func() bool {
					s.Get(t, uses, &use)
					return use.Connections == 4
				})
			}
			s.Import(t, harness.Request("b", "disks:a.zvhd2")) // jobs run
			l.stop(t)
			t.Logf("the longest hand-over took %s in all", longest.Round(time.Millisecond))
			s.Stop(t)
			for _, left := range []string{"handover.sock", "nbd.sock"} {
				if _, err := os.Lstat(filepath.Join(s.Dir, left)); err == nil {
					t.Errorf("%s is left behind", left)
				}
			}
		})
	}
}

// TestTakeOverFails: whatever the new process does before it serves, dying or giving up,
// the one before goes on, and no client notices.
func TestTakeOverFails(t *testing.T) {
	t.Parallel()
	disk := harness.Disk(27, 16)
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", disk)
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	l := startLoad(t, a.URI, disk)
	l.goesOn(t, 20)
	pid := s.Pid()
	for _, point := range faultpoint.HandOver {
		for _, action := range []string{"kill", "error"} {
			if s.TakeOver(t, point+"="+action) {
				t.Fatalf("%s at %s: the new process took over", action, point)
			}
			l.goesOn(t, 20)
			// Jobs run again, in the process before.
			s.Import(t, harness.Request("b", "disks:a.zvhd2"))
		}
	}
	for _, args := range [][]string{{"--nbd-listen", "192.0.2.1:1"}, {"--tls-cert", "/nowhere", "--tls-key", "/nowhere"}, {"--no-such-flag"}} {
		if s.TakeOver(t, "", args...) {
			t.Fatalf("%q: the new process took over", args)
		}
		l.goesOn(t, 20)
	}
	if s.Pid() != pid {
		t.Errorf("the process is %d, it was %d", s.Pid(), pid)
	}
	if !s.TakeOver(t, "") {
		t.Fatalf("the new process did not take over after all:\n%s", s.Log())
	}
	l.goesOn(t, 100)
	l.stop(t)
}

// TestTakeOverEnds: what is not passed on ends in order. A download goes on to its end,
// while new requests are the new process's; a client over TLS is let go between its
// requests; a job that began before runs on afterwards.
func TestTakeOverEnds(t *testing.T) {
	t.Parallel()
	dir := certificate(t)
	disk := harness.Disk(28, 64)
	s := harness.Start(t, harness.Options{NBD: true, Config: fmt.Sprintf("tls_cert: %s/server-cert.pem\ntls_key: %s/server-key.pem\n", dir, dir)})
	put(t, s, "a.zvhd2", disk)
	id := s.Import(t, harness.Request("a", "disks:a.zvhd2"))
	a := s.Attach(t, id)
	u, err := url.Parse(a.URI)
	if err != nil {
		t.Fatal(err)
	}
	export := strings.TrimPrefix(u.Path, "/")
	secure, err := nbdtest.Dial(t.Context(), "tcp", u.Host, nbdtest.Config{Export: export, TLS: &tls.Config{InsecureSkipVerify: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	clear := open(t, "nbd://"+u.Host+"/"+export)

	// The client takes nothing of the rest before the service was passed on: 64 MiB do not
	// fit into the buffers of a connection.
	request, err := http.NewRequestWithContext(t.Context(), "GET", s.API+"/v2/images/"+id+"/file", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Auth-Token", s.Token(t))
	download, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Do(request)
	if err != nil || download.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", download, err)
	}
	defer download.Body.Close()
	got := make([]byte, len(disk))
	if _, err := io.ReadFull(download.Body, got[:4096]); err != nil {
		t.Fatal(err)
	}
	job := s.Accept(t, harness.Request("b", "disks:a.zvhd2"))
	rest := make(chan error, 1)
	go func() {
		for !strings.Contains(s.Log(), `"msg":"took over"`) {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
		_, err := io.ReadFull(download.Body, got[4096:])
		rest <- err
	}()
	if !s.TakeOver(t, "") {
		t.Fatalf("the new process did not take over:\n%s", s.Log())
	}
	if err := <-rest; err != nil || !bytes.Equal(got, disk) {
		t.Errorf("the download: %v, its bytes are right: %v", err, bytes.Equal(got, disk))
	}
	if j := s.Wait(t, job); j.Status != "SUCCESS" {
		t.Errorf("the job ended as %s", j.Status)
	}
	clear.mustRead(t)
	reader{secure}.isCut(t)
}

// TestTakeOverIsNoStart: what a machine reads after an upgrade is not learned as what one
// reads when it starts.
func TestTakeOverIsNoStart(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(29, 24))
	r := open(t, s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2"))).URI)
	scattered := func(from int64) {
		for i := range int64(40) {
			if err := r.Read(make([]byte, 4096), from+i*7%40*524288); err != nil {
				t.Fatal(err)
			}
		}
	}
	learned := func() (profile string) {
		db, err := database.Open(t.Context(), "sqlite:"+filepath.Join(s.Dir, "quickims.db"), database.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.QueryRowContext(t.Context(), "SELECT COALESCE(MAX(profile), '') FROM boot_profiles").Scan(&profile); err != nil {
			t.Fatal(err)
		}
		return profile
	}
	scattered(0)
	if !s.TakeOver(t, "") {
		t.Fatalf("the new process did not take over:\n%s", s.Log())
	}
	first := learned()
	if first == "" {
		t.Error("the start was not learned")
	}
	scattered(262144)
	r.Close()
	s.Stop(t)
	if learned() != first {
		t.Error("reads behind a hand-over count as a start")
	}
}
