package nbd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run runs a real client and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// uri names the export of a server for libnbd and for qemu.
func (s *server) uri() string {
	if s.network == "unix" {
		return "nbd+unix:///" + secret + "?socket=" + s.address
	}
	return "nbd://" + s.address + "/" + secret
}

// The clients that people use see the export byte for byte, and its holes.
func TestRealClients(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			m := newMemory(7, 24<<20)
			s := start(t, network, m, Options{})
			judge(t, s.uri(), nil, m)
		})
	}
}

// judge lets the real clients read the export at that URI. image names it for qemu, if
// the URI does not do.
func judge(t *testing.T, uri string, image []string, m *memory) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "source.raw")
	if err := os.WriteFile(source, m.data, 0o600); err != nil {
		t.Fatal(err)
	}
	equal := func(path string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, m.data) {
			t.Errorf("%s differs from the export: %v", filepath.Base(path), err)
		}
	}
	if image == nil {
		image = []string{"-f", "raw", uri}
	}

	if got := run(t, "nbdinfo", "--size", uri); got != fmt.Sprint(len(m.data)) {
		t.Errorf("nbdinfo --size: %s", got)
	}
	var info struct {
		Exports []struct {
			ReadOnly  bool     `json:"is_read_only"`
			MultiConn bool     `json:"can_multi_conn"`
			DF        bool     `json:"can_df"`
			Preferred int      `json:"block_size_preferred"`
			Contexts  []string `json:"contexts"`
			Size      int      `json:"export-size"`
		}
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", "--no-content", uri)), &info); err != nil {
		t.Fatal(err)
	}
	if e := info.Exports[0]; !e.ReadOnly || !e.MultiConn || !e.DF || e.Preferred != int(m.block) || e.Size != len(m.data) || fmt.Sprint(e.Contexts) != "[base:allocation]" {
		t.Errorf("nbdinfo --json: %+v", e)
	}
	var extents []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--map", "--json", uri)), &extents); err != nil {
		t.Fatal(err)
	}
	var holes []Extent
	for _, x := range extents {
		if x.Type == 3 {
			holes = append(holes, Extent{x.Offset, x.Length, true})
		}
	}
	if want := m.wholeHoles(); fmt.Sprint(holes) != fmt.Sprint(want) {
		t.Errorf("nbdinfo --map: %v, the holes are %v", holes, want)
	}

	run(t, "nbdcopy", uri, filepath.Join(dir, "nbdcopy.raw"))
	equal(filepath.Join(dir, "nbdcopy.raw"))
	run(t, "nbdcopy", "--synchronous", "--request-size=65536", "--connections=1", uri, filepath.Join(dir, "sync.raw"))
	equal(filepath.Join(dir, "sync.raw"))

	run(t, "qemu-img", append([]string{"convert", "-O", "raw"}, append(image, filepath.Join(dir, "convert.raw"))...)...)
	equal(filepath.Join(dir, "convert.raw"))
	if image[0] == "-f" { // compare knows options of two images less well
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, source)
		if got := run(t, "qemu-img", "info", "-f", "raw", uri); !strings.Contains(got, fmt.Sprintf("(%d bytes)", len(m.data))) {
			t.Errorf("qemu-img info: %s", got)
		}
		h := m.holes[1]
		out := run(t, "qemu-io", "-f", "raw", "-r", "-c", fmt.Sprintf("read -P 0 %d %d", h.Offset, h.Length), "-c", "read -v 0 512", "-c", "aio_read 4096 65536", "-c", "aio_read 1048576 2M", "-c", "aio_flush", uri)
		if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
			t.Errorf("qemu-io: %s", out)
		}
	}
}

// Strangers learn no names.
func TestListIsEmpty(t *testing.T) {
	t.Parallel()
	s := start(t, "tcp", newMemory(1, 1<<20), Options{})
	out, err := exec.CommandContext(t.Context(), "nbdinfo", "--list", "--json", "nbd://"+s.address).CombinedOutput()
	if bytes.Contains(out, []byte(secret)) || bytes.Contains(out, []byte("export-name")) {
		t.Errorf("nbdinfo --list: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "nbdinfo", "nbd://"+s.address+"/guess").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("No such file")) {
		t.Errorf("a guessed name: %v\n%s", err, out)
	}
	if log := s.log.String(); bytes.Contains([]byte(log), []byte("guess")) {
		t.Errorf("the log has names:\n%s", log)
	}
}
