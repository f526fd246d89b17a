// Package fstest makes real file systems for tests, with the tools of Debian's
// e2fsprogs, xfsprogs, dosfstools and mtools, without mounting and without root,
// and compares what a reader makes of them with what went in.
package fstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/filesystem"
)

// packages says which Debian package has a tool.
var packages = map[string]string{
	"mke2fs": "e2fsprogs", "debugfs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "xfs_db": "xfsprogs",
	"mkfs.vfat": "dosfstools", "mcopy": "mtools", "mmd": "mtools", "sfdisk": "fdisk",
}

// Need skips the test if a tool is not installed.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian: %s)", tool, packages[tool])
		}
	}
}

// Run runs a tool and fails the test if the tool fails. stdin may be empty.
func Run(t testing.TB, stdin, tool string, args ...string) string {
	t.Helper()
	Need(t, tool)
	cmd := exec.Command(tool, args...)
	cmd.Stdin = strings.NewReader(stdin)
	// Small XFS volumes are for tests alone; mkfs.xfs makes them when it sees these.
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1", "TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Dir is like t.TempDir, but in memory where that is possible: the tools make
// every volume durable, which no test needs.
func Dir(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(memory, &st) == nil && int64(st.Bavail)*st.Bsize > 1<<30 {
		if dir, err := os.MkdirTemp(memory, "quickims-test-"); err == nil {
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// Blank makes a file of zeros.
func Blank(t testing.TB, size int64) string {
	t.Helper()
	f, err := os.CreateTemp(Dir(t), "disk")
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Ext makes an ext2, ext3 or ext4 volume of a folder; args are those of mke2fs,
// such as -t ext4 -b 1024.
func Ext(t testing.TB, folder string, size int64, args ...string) string {
	t.Helper()
	disk := Blank(t, size)
	Run(t, "", "mke2fs", append(append([]string{"-q", "-F", "-d", folder}, args...), disk)...)
	return disk
}

// XFS makes an XFS volume of a folder; args are those of mkfs.xfs. Names hold no
// spaces. mkfs.xfs 6.1 writes a file that does not fit into one free extent over
// what lies behind it, and, in version 5, links that do not fit into their inode
// without the head that belongs there; so files are small and links short.
func XFS(t testing.TB, folder string, size int64, args ...string) string {
	t.Helper()
	proto := filepath.Join(t.TempDir(), "proto")
	text := "/\n0 0\nd--755 0 0\n" + protoFolder(t, folder) + "$\n"
	if err := os.WriteFile(proto, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := Blank(t, size)
	Run(t, "", "mkfs.xfs", append(append([]string{"-q", "-f", "-p", proto}, args...), disk)...)
	return disk
}

// protoFolder describes a folder in the language of mkfs.xfs -p.
func protoFolder(t testing.TB, folder string) string {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list {
		at := filepath.Join(folder, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(at)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s l--777 0 0 %s\n", e.Name(), target)
		case e.IsDir():
			fmt.Fprintf(&b, "%s d--755 0 0\n%s$\n", e.Name(), protoFolder(t, at))
		default:
			fmt.Fprintf(&b, "%s ---644 0 0 %s\n", e.Name(), at)
		}
	}
	return b.String()
}

// FAT makes a FAT volume of a folder; args are those of mkfs.vfat.
func FAT(t testing.TB, folder string, size int64, args ...string) string {
	t.Helper()
	disk := Blank(t, size)
	Run(t, "", "mkfs.vfat", append(args, disk)...)
	Need(t, "mcopy")
	list, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: nothing to copy (%v)", folder, err)
	}
	Run(t, "", "mcopy", append(append([]string{"-s", "-Q", "-i", disk}, list...), "::")...)
	return disk
}

// Source opens a file as a Source with the budget given.
func Source(t testing.TB, name string, budget int64) *filesystem.Source {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return filesystem.NewSource(context.Background(), f, st.Size(), budget)
}

// Folder makes a folder with a file or directory of each kind that readers must
// know, with symbolic links of at most longest bytes, and if sparse with a file
// of many holes.
func Folder(t testing.TB, seed uint64, longest int, sparse bool) string {
	t.Helper()
	root := Dir(t)
	rnd := rand.New(rand.NewPCG(seed, seed))
	write := func(name string, size int) {
		t.Helper()
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		if err := os.WriteFile(at, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, size := range []int{0, 1, 59, 60, 61, 150, 511, 512, 513, 1024, 4095, 4096, 4097, 12 * 1024, 13*1024 + 1, 70_001, 300_000, 1_500_001} {
		write(fmt.Sprintf("sizes/file%d", i), size)
	}
	write("a/b/c/d/e/f/deep.txt", 10)
	write("Names/UPPER.TXT", 3)
	write("Names/lower.txt", 3)
	write("Names/Mixed Case with a long name.conf"[:10]+"Case-with-a-long-name.configuration", 3)
	write("Names/"+strings.Repeat("n", 250), 3)
	write("Names/umläut-日本", 3)
	for i := range 200 {
		write(fmt.Sprintf("many/entry-number-%04d", i), i%5)
	}
	for i := range 12 {
		write(fmt.Sprintf("few/e%d", i), 1)
	}
	if err := os.Mkdir(filepath.Join(root, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, target := range []string{
		"sizes/file1", "/sizes/file2", "../../..", "nowhere", strings.Repeat("x", 59), strings.Repeat("y", 60),
		"a/" + strings.Repeat("../a/", 60), "/" + strings.Repeat("z/", 150) + "z", strings.Repeat("w", 1000),
	} {
		if len(target) <= longest {
			if err := os.Symlink(target, filepath.Join(root, fmt.Sprintf("link%d", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if sparse {
		f, err := os.Create(filepath.Join(root, "sparse"))
		for i := 0; err == nil && i < 60; i++ {
			_, err = f.WriteAt([]byte(fmt.Sprintf("island %d", i)), int64(i)*100_000+int64(i))
		}
		if err == nil {
			err = errors.Join(f.Truncate(80_000_000), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Compare walks a volume and the folder it was made of and reports every
// difference. A directory lost+found in the volume's root is not compared.
func Compare(t testing.TB, v filesystem.Volume, folder string) {
	t.Helper()
	root, err := v.Node(v.Root())
	if err != nil {
		t.Fatal(err)
	}
	compareDir(t, v, root, folder, "")
}

func compareDir(t testing.TB, v filesystem.Volume, dir filesystem.Node, folder, name string) {
	t.Helper()
	seen := map[string]uint64{}
	for e, err := range v.Entries(dir) {
		if err != nil {
			t.Errorf("%s: listing: %v", name, err)
			return
		}
		if _, twice := seen[e.Name]; twice {
			t.Errorf("%s: %q is listed twice", name, e.Name)
		}
		seen[e.Name] = e.ID
	}
	if name == "" {
		delete(seen, "lost+found")
	}
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		at := name + "/" + e.Name()
		id, ok := seen[e.Name()]
		if !ok {
			t.Errorf("%s is missing", at)
			continue
		}
		delete(seen, e.Name())
		n, err := v.Node(id)
		if err != nil {
			t.Errorf("%s: %v", at, err)
			continue
		}
		compareNode(t, v, n, e, filepath.Join(folder, e.Name()), at)
	}
	for extra := range seen {
		t.Errorf("%s/%s is listed but was never put there", name, extra)
	}
}

func compareNode(t testing.TB, v filesystem.Volume, n filesystem.Node, e fs.DirEntry, file, at string) {
	t.Helper()
	switch {
	case e.IsDir():
		if n.Kind != filesystem.Directory {
			t.Errorf("%s is a %s, want a directory", at, n.Kind)
			return
		}
		compareDir(t, v, n, file, at)
	case e.Type()&fs.ModeSymlink != 0:
		want, err := os.Readlink(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Target(n); n.Kind != filesystem.Symlink || got != want || err != nil {
			t.Errorf("%s is a %s to %q (%v), want a link to %q", at, n.Kind, got, err, want)
		}
	default:
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		compareFile(t, v, n, want, at)
	}
}

// compareFile reads a file whole, and at offsets that cut blocks.
func compareFile(t testing.TB, v filesystem.Volume, n filesystem.Node, want []byte, at string) {
	t.Helper()
	if n.Kind != filesystem.Regular || n.Size != int64(len(want)) {
		t.Errorf("%s is a %s of %d bytes, want a file of %d", at, n.Kind, n.Size, len(want))
		return
	}
	got, err := io.ReadAll(io.NewSectionReader(readerAt{v, n}, 0, n.Size))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s does not read back: %v", at, err)
	}
	if len(want) > 100 {
		got := make([]byte, len(want)-100)
		for _, off := range []int64{1, 37, 99} {
			if _, err := v.ReadAt(n, got, off); err != nil || !bytes.Equal(got, want[off:off+int64(len(got))]) {
				t.Errorf("%s does not read back from %d on: %v", at, off, err)
			}
		}
	}
	if k, err := v.ReadAt(n, make([]byte, 10), n.Size); k != 0 || err != io.EOF {
		t.Errorf("%s: reading at its end gave %d bytes and %v", at, k, err)
	}
}

type readerAt struct {
	v filesystem.Volume
	n filesystem.Node
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.v.ReadAt(r.n, p, off) }
