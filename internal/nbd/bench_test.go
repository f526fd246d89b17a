package nbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
	"golang.org/x/sys/unix"
)

// cpu is the processor time that this process and another one, if pid is not 0, have used.
func cpu(b *testing.B, pid int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	sum := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if pid != 0 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		// Fields 14 and 15 are ticks of 10 ms, counted behind the name in brackets.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
		for _, f := range fields[11:13] {
			ticks, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}

// BenchmarkRead reads a disk that lies in memory over one connection, random 4 KiB and
// sequential 1 MiB, with some requests in flight; beside it nbdkit's memory plugin, if
// nbdkit is installed, through the same client. cpu-ns/op is the processor time of
// client and server together, which says more than the time on a busy machine.
func BenchmarkRead(b *testing.B) {
	m := &memory{data: bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 8<<20), block: 4096, silent: true}
	servers := []struct {
		name  string
		start func(b *testing.B) (network, address, export string, pid int)
	}{
		{"quickims", func(b *testing.B) (string, string, string, int) {
			s := start(b, "tcp", warmed{memory: m}, Options{})
			return s.network, s.address, secret, 0
		}},
		{"quickims-cold", func(b *testing.B) (string, string, string, int) {
			s := start(b, "tcp", m, Options{})
			return s.network, s.address, secret, 0
		}},
	}
	config, client, _ := authority(b)
	servers = append(servers, servers[0])
	servers[2].name, servers[2].start = "quickims-tls", func(b *testing.B) (string, string, string, int) {
		s := start(b, "tcp", warmed{memory: m}, Options{TLS: config, RequireTLS: true})
		return s.network, s.address, secret, 0
	}
	if _, err := exec.LookPath("nbdkit"); err == nil {
		servers = append(servers, servers[0])
		servers[3].name, servers[3].start = "nbdkit", func(b *testing.B) (string, string, string, int) { return startNbdkit(b, m.data) }
	}
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, depth := range []int{1, 16} {
			for _, s := range servers {
				b.Run(fmt.Sprintf("%dKiB/%dflight/%s", size>>10, depth, s.name), func(b *testing.B) {
					network, address, export, pid := s.start(b)
					stream, err := net.Dial(network, address)
					if err != nil {
						b.Fatal(err)
					}
					defer stream.Close()
					cfg := nbdtest.Config{Export: export}
					if strings.HasSuffix(s.name, "-tls") {
						cfg.TLS = client
					}
					c, _, err := nbdtest.Negotiate(b.Context(), stream, cfg)
					if err != nil {
						b.Fatal(err)
					}
					readMany(b, c, size, 16, depth) // warms up
					before := cpu(b, pid)
					b.ResetTimer()
					readMany(b, c, size, b.N, depth)
					b.StopTimer()
					b.ReportMetric(float64(cpu(b, pid)-before)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}

// readMany keeps depth reads in flight until number are done.
func readMany(b *testing.B, c *nbdtest.Conn, size, number, depth int) {
	r := rand.New(rand.NewPCG(1, 2))
	buffers := make([][]byte, depth)
	blocks := int(c.Export.Size) / size
	next := func(cookie uint64, sent int) error {
		at := sent % blocks
		if size <= 4<<10 {
			at = r.IntN(blocks)
		}
		return c.Queue(wire.Request{Command: wire.CmdRead, Cookie: cookie, Offset: uint64(at * size), Length: uint64(size)}, buffers[cookie], nil)
	}
	b.SetBytes(int64(size))
	sent := 0
	for ; sent < min(depth, number); sent++ {
		buffers[sent] = make([]byte, size)
		if err := next(uint64(sent), sent); err != nil {
			b.Fatal(err)
		}
	}
	for done := 0; done < number; done++ {
		if done == 0 || c.Idle() {
			if err := c.Flush(); err != nil {
				b.Fatal(err)
			}
		}
		reply, err := c.Receive()
		if err != nil || reply.Err() != nil {
			b.Fatal(err, reply)
		}
		if sent < number {
			if err := next(reply.Request.Cookie, sent); err != nil {
				b.Fatal(err)
			}
			sent++
		}
	}
}

// startNbdkit starts nbdkit's memory plugin with that content.
func startNbdkit(b *testing.B, data []byte) (network, address, export string, pid int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	dir := b.TempDir()
	cmd := exec.Command("nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "-P", filepath.Join(dir, "pid"), "memory", fmt.Sprint(len(data)))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
			break
		} else if time.Now().After(deadline) {
			b.Fatal("nbdkit does not start")
		}
	}
	source := filepath.Join(dir, "data")
	if err := os.WriteFile(source, data, 0o600); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command("nbdcopy", source, "nbd://"+address).CombinedOutput(); err != nil {
		b.Fatalf("nbdcopy: %v\n%s", err, out)
	}
	return "tcp", address, "", cmd.Process.Pid
}
