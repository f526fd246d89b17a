//go:build amd64

package boot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// TestTools: every tool that speaks NBD sees the disk that was imported: its size, its
// holes, its bytes.
func TestTools(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"zvhd2", "raw"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			d := theDisk(t)
			s := harness.Start(t, harness.Options{S3: true, NBD: true})
			uri := s.Attach(t, d.importDisk(t, s, format)).URI
			t.Run("nbdinfo", func(t *testing.T) { d.nbdinfo(t, uri) })
			t.Run("holes", func(t *testing.T) { d.holes(t, uri) })
			t.Run("copies", func(t *testing.T) {
				tools := [][]string{
					{"nbdcopy", "--connections=4", "--requests=32"},
					{"qemu-img", "convert", "-f", "raw", "-O", "raw"},
				}
				if os.Getenv("QUICKIMS_TEST_LONG") != "" {
					tools = append(tools,
						[]string{"nbdcopy", "--connections=1", "--requests=1"},
						[]string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "-m", "16", "-W"})
				}
				for _, tool := range tools {
					d.copies(t, tool, uri)
				}
			})
			t.Run("compare", func(t *testing.T) {
				run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", d.raw, uri)
			})
			t.Run("qemu-io", func(t *testing.T) { d.oddReads(t, uri) })
		})
	}
}

// nbdinfo checks what the server says of the export.
func (d *disk) nbdinfo(t *testing.T, uri string) {
	var info struct {
		Protocol   string
		Structured bool
		Exports    []struct {
			Size      int64    `json:"export-size"`
			ReadOnly  bool     `json:"is_read_only"`
			MultiConn bool     `json:"can_multi_conn"`
			Contexts  []string `json:"contexts"`
		}
	}
	decode(t, run(t, "nbdinfo", "--json", uri), &info)
	if info.Protocol != "newstyle-fixed" || !info.Structured || len(info.Exports) != 1 {
		t.Fatalf("nbdinfo says %+v", info)
	}
	if e := info.Exports[0]; e.Size != d.size || !e.ReadOnly || !e.MultiConn || !slices.Contains(e.Contexts, "base:allocation") {
		t.Errorf("nbdinfo says of the export %+v", e)
	}
	if size := strings.TrimSpace(string(run(t, "nbdinfo", "--size", uri))); size != strconv.FormatInt(d.size, 10) {
		t.Errorf("nbdinfo --size says %s, want %d", size, d.size)
	}
	if text := string(run(t, "nbdinfo", uri)); !strings.Contains(text, "DOS/MBR boot sector") {
		t.Errorf("nbdinfo does not see a disk that starts:\n%s", text)
	}
}

// holes checks that the maps of nbdinfo, qemu-img and quickims are that of the disk.
func (d *disk) holes(t *testing.T, uri string) {
	type extent struct {
		Offset, Start, Length int64
		Type                  int
		Zero, Data            bool
	}
	var of struct{ nbdinfo, qemuImg, quickims []extent }
	decode(t, run(t, "nbdinfo", "--map", "--json", uri), &of.nbdinfo)
	decode(t, run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri), &of.qemuImg)
	decode(t, run(t, harness.Binary(t), "map", "--json", d.zvhd2), &of.quickims)
	check := func(who string, extents []extent, start func(extent) int64, hole func(extent) bool) {
		at := int64(0)
		for _, e := range extents {
			if start(e) != at || e.Length <= 0 {
				t.Fatalf("%s: an extent %+v, want one that starts at %d", who, e, at)
			}
			for ; at < start(e)+e.Length; at += blockSize {
				if int(at/blockSize) >= len(d.blocks) || at%blockSize != 0 {
					t.Fatalf("%s: an extent %+v, want whole blocks of 2 MiB inside the disk", who, e)
				}
				if hole(e) == d.blocks[at/blockSize] {
					t.Errorf("%s: the block at %d is a hole: %v", who, at, hole(e))
				}
			}
		}
		if at != d.size {
			t.Errorf("%s: the map ends at %d, the disk at %d", who, at, d.size)
		}
	}
	// nbdinfo prints the flags of base:allocation: 1 is a hole, 2 reads as zeros.
	check("nbdinfo --map", of.nbdinfo, func(e extent) int64 { return e.Offset }, func(e extent) bool {
		if e.Type != 0 && e.Type != 3 {
			t.Errorf("nbdinfo --map: the extent %+v is neither data nor a hole of zeros", e)
		}
		return e.Type == 3
	})
	for who, extents := range map[string][]extent{"qemu-img map": of.qemuImg, "quickims map": of.quickims} {
		check(who, extents, func(e extent) int64 { return e.Start }, func(e extent) bool {
			if e.Zero == e.Data {
				t.Errorf("%s: the extent %+v is neither data nor zeros", who, e)
			}
			return e.Zero
		})
	}
}

// copies lets a tool copy the disk to a file and compares that with the source.
func (d *disk) copies(t *testing.T, tool []string, uri string) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	run(t, tool[0], append(tool[1:], uri, to)...)
	if err := same(d.raw, to); err != nil {
		t.Errorf("%q: %v", tool, err)
	}
	if err := os.Remove(to); err != nil {
		t.Error(err)
	}
}

// oddReads reads at odd offsets and over the borders of blocks.
func (d *disk) oddReads(t *testing.T, uri string) {
	f, err := os.Open(d.raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("QUICKIMS_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("QUICKIMS_TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	args := []string{"-r", "-f", "raw"}
	var want bytes.Buffer
	read := func(off, n int64) {
		off = min(max(off, 0), d.size-1)
		n = min(n, d.size-off)
		args = append(args, "-c", fmt.Sprintf("read -v %d %d", off, n))
		if _, err := io.Copy(&want, io.NewSectionReader(f, off, n)); err != nil {
			t.Fatal(err)
		}
	}
	read(0, 1)
	read(d.size-1, 1)
	for range 60 {
		read(r.Int64N(d.size), 1+r.Int64N(4096))
		border := r.Int64N(d.size/blockSize) * blockSize
		read(border-r.Int64N(700), 1+r.Int64N(1400))
	}
	out := run(t, "qemu-io", append(args, uri)...)
	if got := dumped(t, out); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("qemu-io read other bytes than the source has:\n%s\n%s", strings.Join(args, " "), out)
	}
}

// dumped gives the bytes that qemu-io's read -v shows: lines of an offset, a colon, up
// to 16 bytes in hexadecimal, two spaces, the same as text.
func dumped(t *testing.T, out []byte) (all []byte) {
	t.Helper()
	for line := range strings.Lines(string(out)) {
		at, rest, ok := strings.Cut(line, ":  ")
		if _, err := strconv.ParseUint(at, 16, 64); !ok || err != nil {
			continue
		}
		digits, _, _ := strings.Cut(rest, "  ")
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatalf("qemu-io: %v in %q", err, line)
		}
		all = append(all, b...)
	}
	return all
}

// same compares two files byte for byte.
func same(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(ba)) {
		na, erra := io.ReadFull(fa, ba)
		nb, errb := io.ReadFull(fb, bb)
		if na != nb || !bytes.Equal(ba[:na], bb[:nb]) {
			return fmt.Errorf("%s has other bytes than %s between %d and %d", b, a, at, at+int64(len(ba)))
		}
		if errors.Is(erra, io.EOF) || errors.Is(erra, io.ErrUnexpectedEOF) {
			return nil
		}
		if err := errors.Join(erra, errb); err != nil {
			return err
		}
	}
}
