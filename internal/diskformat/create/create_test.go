package create_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/create"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// kind is a format with one choice of its options, and how QEMU knows it.
type kind struct {
	format diskformat.Format
	set    map[string]string
	qemu   string // "": QEMU does not read it
	check  bool   // qemu-img check knows it
	stream bool   // it can be written to a stream
	bigger int64  // the disk's size is rounded up to a multiple of so many bytes
}

func (k kind) String() string {
	name := string(k.format)
	for key, value := range k.set {
		name += "," + key + "=" + value
	}
	return name
}

var kinds = []kind{
	{format: diskformat.QCOW2, qemu: "qcow2", check: true, stream: true},
	{format: diskformat.QCOW2, set: map[string]string{"compression": "zstd"}, qemu: "qcow2", check: true},
	{format: diskformat.QCOW2, set: map[string]string{"compression": "zlib"}, qemu: "qcow2", check: true},
	{format: diskformat.VMDK, qemu: "vmdk", check: true, stream: true},
	{format: diskformat.VMDK, set: map[string]string{"subformat": "monolithicSparse"}, qemu: "vmdk", check: true, stream: true},
	{format: diskformat.VHD, qemu: "vpc", stream: true},
	{format: diskformat.VHD, set: map[string]string{"subformat": "fixed"}, qemu: "vpc", stream: true},
	{format: diskformat.VHD, set: map[string]string{"subformat": "fixed", "size": "mib"}, qemu: "vpc", stream: true, bigger: 1 << 20},
	{format: diskformat.VHDX, qemu: "vhdx", check: true, stream: true},
	{format: diskformat.Raw, qemu: "raw", stream: true},
	{format: diskformat.ZVHD2, stream: true},
	{format: diskformat.ZVHD, stream: true},
}

// perKind is how many random disks of each kind are written in the usual run; a
// long run makes twenty times as many.
const perKind = 8

// Whatever disk is written in whatever format, to a file or to a stream, is the
// same disk when it is read: by the reader here, and by QEMU, which also finds no
// fault in the file.
func TestRandomDisks(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.String(), func(t *testing.T) {
			f, err := create.Find(string(k.format))
			if err != nil {
				t.Fatal(err)
			}
			qemutest.Run(t, perKind, func(t *rapid.T, dir string) {
				raw := drawDisk(t, dir)
				opts := create.Options{Set: k.set, Name: "disk", CopyOptions: sparse.CopyOptions{Concurrency: rapid.IntRange(1, 3).Draw(t, "workers")}}
				path := filepath.Join(dir, "disk")
				if k.stream && rapid.Bool().Draw(t, "stream") {
					writeStream(t, f, path, raw, opts)
				} else {
					writeFile(t, f, path, raw, opts)
				}
				judge(t, k, dir, path, raw)
			})
		})
	}
}

// drawDisk makes a RAW disk with holes, zeros and content of all kinds.
func drawDisk(t *rapid.T, dir string) *qemutest.RawDisk {
	size := 512 * rapid.OneOf(rapid.Int64Range(1, 300), rapid.Int64Range(1, 40000)).Draw(t, "sectors")
	if rapid.Bool().Draw(t, "whole MiB") {
		size = (size + 1<<20 - 1) >> 20 << 20
	}
	ops := qemutest.DrawOps(t, size, 64<<10, 3<<20, 8, qemutest.Write, qemutest.Plain, qemutest.Nothing, qemutest.Discard)
	path := qemutest.Make(t, dir, "raw", qemutest.Recipe{Format: "raw", Size: size, Ops: ops})
	return qemutest.OpenRaw(t, path)
}

func writeFile(t *rapid.T, f create.Format, path string, raw *qemutest.RawDisk, opts create.Options) {
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	made, err := f.Write(context.Background(), out, raw.File, raw.Size(), opts)
	if err != nil {
		t.Fatal(err)
	}
	st, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() != made.FileSize {
		t.Fatalf("the file has %d bytes, the summary says %d", st.Size(), made.FileSize)
	}
}

func writeStream(t *rapid.T, f create.Format, path string, raw *qemutest.RawDisk, opts create.Options) {
	var out bytes.Buffer
	made, err := f.Write(context.Background(), &out, raw.File, raw.Size(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != made.FileSize {
		t.Fatalf("the stream has %d bytes, the summary says %d", out.Len(), made.FileSize)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func judge(t *rapid.T, k kind, dir, path string, raw *qemutest.RawDisk) {
	if k.bigger > 0 {
		if err := os.Truncate(raw.Name(), (raw.Size()+k.bigger-1)/k.bigger*k.bigger); err != nil {
			t.Fatal(err)
		}
	}
	if k.check {
		qemutest.Img(t, dir, "check", "-q", "-f", k.qemu, path)
	}
	if k.qemu != "" {
		qemutest.Img(t, dir, "compare", "-q", "-f", k.qemu, "-F", "raw", path, raw.Name())
		// A comparison takes zeros at the end of one disk alone for nothing.
		var info struct {
			Size int64 `json:"virtual-size"`
		}
		said := qemutest.Img(t, dir, "info", "--output=json", "-f", k.qemu, path)
		if err := json.Unmarshal([]byte(said), &info); err != nil {
			t.Fatal(err)
		}
		want, err := os.Stat(raw.Name())
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != want.Size() {
			t.Fatalf("QEMU sees a disk of %d bytes; the source has %d", info.Size, want.Size())
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := open.Open(open.Source{ReaderAt: file, Size: st.Size()}, k.format)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Open(raw.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	whole, err := want.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if disk.OrigSize != whole.Size() {
		t.Fatalf("the disk that was written has %d bytes, the source %d", disk.OrigSize, whole.Size())
	}
	a, b := make([]byte, whole.Size()), make([]byte, whole.Size())
	if err := errors.Join(diskformat.ReadFull(disk, a, 0), diskformat.ReadFull(want, b, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Fatal("the disk that was written differs from its source")
	}
}

// The same disk makes the same bytes, to a file and to a stream, where nothing in
// the file is drawn.
func TestFileAndStreamAgree(t *testing.T) {
	t.Parallel()
	f, err := create.Find("qcow2")
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, 3<<20)
	for i := range disk {
		disk[i] = byte(i*i>>8) | 1
	}
	var stream bytes.Buffer
	if _, err := f.Write(t.Context(), &stream, bytes.NewReader(disk), int64(len(disk)), create.Options{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := f.Write(t.Context(), out, bytes.NewReader(disk), int64(len(disk)), create.Options{}); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, stream.Bytes()) {
		t.Error("file and stream differ")
	}
}

// A compressed qcow2 cannot go to a stream, and the error says what to do.
func TestStreamOfCompressed(t *testing.T) {
	t.Parallel()
	f, err := create.Find("qcow2")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"zlib", "zstd"} {
		_, err := f.Write(t.Context(), io.Discard, bytes.NewReader(make([]byte, 512)), 512, create.Options{Set: map[string]string{"compression": c}})
		if !errors.Is(err, create.ErrNeedsFile) {
			t.Errorf("%s: %v", c, err)
		}
	}
}

// Options that a format does not have, or values that it does not take, are named
// with those that are right.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format string
		opts   create.Options
		words  string
	}{
		{"qcow2", create.Options{Set: map[string]string{"compression": "lzma"}}, "it must be one of none, zstd, zlib"},
		{"qcow2", create.Options{Set: map[string]string{"subformat": "x"}}, "it has compression"},
		{"raw", create.Options{Set: map[string]string{"subformat": "x"}}, "it has none"},
		{"vhd", create.Options{Level: 2}, "leave the level out"},
		{"zvhd2", create.Options{Level: 5}, "1 (fastest) to 4"},
		{"qcow2", create.Options{Level: 2, Set: map[string]string{"compression": "zlib"}}, "one level alone"},
	} {
		f, err := create.Find(c.format)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Check(c.opts); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s %+v: %v; it must say %q", c.format, c.opts, err, c.words)
		}
	}
	if _, err := create.Find("qed"); err == nil || !strings.Contains(err.Error(), "zvhd2, raw, qcow2") {
		t.Errorf("qed: %v", err)
	}
}

// What fails while a disk is written is an error, whichever write it is, and a
// disk of a size that is no disk's is refused.
func TestFailures(t *testing.T) {
	t.Parallel()
	disk := bytes.Repeat([]byte("quickims"), 3<<20/8)
	for _, f := range create.Formats {
		for _, size := range []int64{0, -512, 511, 1<<40 + 512} {
			if _, err := f.Write(t.Context(), io.Discard, bytes.NewReader(disk), size, create.Options{}); err == nil && f.Name != diskformat.Raw {
				t.Errorf("%s took a disk of %d bytes", f.Name, size)
			}
		}
		full := errors.New("no space left")
		for most := range int64(4) {
			_, err := f.Write(t.Context(), &short{left: most * 700_000, err: full}, bytes.NewReader(disk), int64(len(disk)), create.Options{})
			if !errors.Is(err, full) && most == 0 {
				t.Errorf("%s, after %d bytes: %v", f.Name, most*700_000, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Write(ctx, io.Discard, bytes.NewReader(disk), int64(len(disk)), create.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, canceled: %v", f.Name, err)
		}
		// A source that ends early.
		if _, err := f.Write(t.Context(), io.Discard, bytes.NewReader(disk), int64(len(disk))+1<<20, create.Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, a short source: %v", f.Name, err)
		}
	}
}

// short takes so many bytes.
type short struct {
	left int64
	err  error
}

func (s *short) Write(p []byte) (int, error) {
	if int64(len(p)) > s.left {
		return 0, s.err
	}
	s.left -= int64(len(p))
	return len(p), nil
}

func Example() {
	f, err := create.Find("qcow2")
	if err != nil {
		fmt.Println(err)
		return
	}
	disk := make([]byte, 1<<20)
	made, err := f.Write(context.Background(), io.Discard, bytes.NewReader(disk), int64(len(disk)), create.Options{})
	fmt.Println(made.Blocks, err)
	// Output: 16 <nil>
}

// However many cores there are, the blocks on their way stay within the memory.
func TestWorkersStayWithinMemory(t *testing.T) {
	t.Parallel()
	for level, most := range []int{16, 16, 12, 7, 3} {
		o := create.Options{Level: level, CopyOptions: sparse.CopyOptions{Concurrency: 64}}
		if n := o.Workers(); n < 1 || n > most {
			t.Errorf("level %d: %d workers", level, n)
		}
	}
}
