package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/qcow2"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

// anyOps draws what happens to the disk.
func anyOps(t *rapid.T, size, cluster int64, compress bool) []qemutest.Op {
	kinds := []qemutest.Kind{qemutest.Write, qemutest.Write, qemutest.Plain, qemutest.Nothing, qemutest.Zero, qemutest.Unmap, qemutest.Discard}
	if compress {
		kinds = append(kinds, qemutest.Compress, qemutest.Compress, qemutest.Compress)
	}
	// Small clusters take QEMU long.
	return qemutest.DrawOps(t, size, cluster, min(4<<20, 2000*cluster), 12, kinds...)
}

// anyRecipe draws a way to make a qcow2 file of its own, and its cluster size.
func anyRecipe(t *rapid.T) (qemutest.Recipe, int64) {
	r := qemutest.Recipe{Format: "qcow2"}
	option := func(format string, args ...any) { r.Options = append(r.Options, fmt.Sprintf(format, args...)) }
	bits := rapid.IntRange(9, 21).Draw(t, "cluster bits")
	cluster := int64(1) << bits
	option("cluster_size=%d", cluster)
	sectors := int64(1 << 17) // 64 MiB
	if bits >= 16 && rapid.IntRange(0, 3).Draw(t, "large") == 0 {
		sectors = 1 << 30 // 512 GiB
	}
	r.Size = 512 * rapid.Int64Range(1, sectors).Draw(t, "sectors")

	extended := false
	if rapid.IntRange(0, 3).Draw(t, "compat") == 0 {
		option("compat=0.10")
	} else {
		option("compression_type=%s", rapid.SampledFrom([]string{"zlib", "zstd"}).Draw(t, "compression"))
		if bits >= 14 && rapid.Bool().Draw(t, "extended") {
			extended = true
			option("extended_l2=on")
		}
		if rapid.Bool().Draw(t, "lazy") {
			option("lazy_refcounts=on")
		}
		option("refcount_bits=%d", 1<<rapid.IntRange(0, 6).Draw(t, "refcount order"))
	}
	preallocated := false
	if r.Size <= 64<<20 && (!extended || r.Size%cluster == 0) && rapid.IntRange(0, 4).Draw(t, "preallocate") == 0 {
		preallocated = true
		option("preallocation=%s", rapid.SampledFrom([]string{"metadata", "falloc", "full"}).Draw(t, "preallocation"))
	}
	if r.Convert = rapid.IntRange(0, 3).Draw(t, "convert") == 0; r.Convert {
		if !preallocated && rapid.Bool().Draw(t, "compressed") {
			r.Args = append(r.Args, "-c")
		}
	}
	r.Ops = anyOps(t, r.Size, cluster, !r.Convert && !preallocated)
	return r, cluster
}

// openFile opens path until the check ends.
func openFile(t qemutest.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}

func openImage(t qemutest.TB, path string, opts qcow2.Options) *qcow2.File {
	t.Helper()
	f, size := openFile(t, path)
	img, err := qcow2.Open(f, size, opts)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// check compares img with what QEMU reads from the file at path.
func check(t *rapid.T, img *qcow2.File, path string) {
	t.Helper()
	raw := qemutest.Raw(t, path, "qcow2")
	if err := qemutest.Check(img, raw, rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
		t.Fatal(err)
	}
	for e, err := range img.Map(t.Context()) {
		if err != nil {
			t.Fatalf("%+v, %v", e, err)
		}
	}
}

// Whatever qemu-img and qemu-io make is read as qemu-img reads it: all cluster
// sizes, both versions, both compressions, subclusters, zero clusters,
// preallocation, internal snapshots, disks that grew or shrank.
func TestLikeQEMU(t *testing.T) {
	qemutest.Judge(t, "qcow2", func(t *rapid.T, dir string) {
		r, cluster := anyRecipe(t)
		path := qemutest.Make(t, dir, "disk", r)
		// A snapshot needs room in the refcounts of clusters that are shared already.
		narrow := slices.ContainsFunc(r.Options, func(o string) bool {
			return slices.Contains([]string{"refcount_bits=1", "refcount_bits=2", "refcount_bits=4", "refcount_bits=8"}, o)
		})
		if !r.Convert && !narrow && rapid.IntRange(0, 3).Draw(t, "snapshot") == 0 {
			qemutest.Img(t, dir, "snapshot", "-c", "before", "disk")
			qemutest.Apply(t, dir, "disk", "qcow2", anyOps(t, r.Size, cluster, false))
			if rapid.Bool().Draw(t, "go back") {
				qemutest.Img(t, dir, "snapshot", "-a", "before", "disk")
				qemutest.Apply(t, dir, "disk", "qcow2", anyOps(t, r.Size, cluster, false))
			}
		} else if rapid.IntRange(0, 5).Draw(t, "resize") == 0 {
			r.Size = 512 * rapid.Int64Range(1, 1<<17).Draw(t, "new sectors")
			qemutest.Img(t, dir, "resize", "-q", "-f", "qcow2", "--shrink", "disk", strconv.FormatInt(r.Size, 10))
			qemutest.Apply(t, dir, "disk", "qcow2", anyOps(t, r.Size, cluster, false))
		}
		img := openImage(t, path, qcow2.Options{})
		if info := img.Info(); info.ClusterSize != cluster || info.Size != r.Size ||
			!strings.Contains(strings.Join(r.Options, ","), "compat=0.10") != (info.Version == 3) {
			t.Fatalf("%+v", info)
		}
		check(t, img, path)
	})
}

// A disk over a backing disk that the caller opened reads as in QEMU, whether
// the one below is shorter or longer, RAW or qcow2 with another cluster size.
func TestBackingLikeQEMU(t *testing.T) {
	qemutest.Run(t, 5, func(t *rapid.T, dir string) {
		below, cluster := anyRecipe(t)
		if rapid.Bool().Draw(t, "raw below") {
			below = qemutest.Recipe{Format: "raw", Size: min(below.Size, 64<<20)}
			below.Ops = anyOps(t, below.Size, cluster, false)
		}
		base := qemutest.Make(t, dir, "base", below)

		r, cluster := anyRecipe(t)
		r.Convert = false
		r.Options = append(r.Options, "backing_file=base", "backing_fmt="+below.Format)
		r.Args = nil
		r.Ops = anyOps(t, r.Size, cluster, true)
		for i, o := range r.Options {
			if strings.HasPrefix(o, "preallocation") {
				// QEMU allows it over a backing file with subclusters only.
				r.Options = append(r.Options[:i], r.Options[i+1:]...)
				break
			}
		}
		path := qemutest.Make(t, dir, "disk", r)

		f, size := openFile(t, path)
		info, err := qcow2.ReadInfo(f, size)
		if err != nil || info.BackingFile != "base" || info.BackingFormat != below.Format {
			t.Fatalf("%+v, %v", info, err)
		}
		opts := qcow2.Options{}
		if below.Format == "raw" {
			opts.Backing = qemutest.OpenRaw(t, base)
		} else {
			opts.Backing = openImage(t, base, qcow2.Options{})
		}
		check(t, openImage(t, path, opts), path)
	})
}

// A disk whose clusters lie in a data file that the caller opened.
func TestDataFileLikeQEMU(t *testing.T) {
	qemutest.Run(t, 2, func(t *rapid.T, dir string) {
		r := qemutest.Recipe{Format: "qcow2", Size: 512 * rapid.Int64Range(1, 1<<15).Draw(t, "sectors")}
		cluster := int64(1) << rapid.IntRange(14, 21).Draw(t, "cluster bits")
		r.Options = []string{fmt.Sprintf("cluster_size=%d", cluster), "data_file=data"}
		for _, o := range []string{"data_file_raw=on", "extended_l2=on"} {
			if rapid.Bool().Draw(t, o) {
				r.Options = append(r.Options, o)
			}
		}
		r.Ops = anyOps(t, r.Size, cluster, false)
		path := qemutest.Make(t, dir, "disk", r)
		data, dataSize := openFile(t, filepath.Join(dir, "data"))
		img := openImage(t, path, qcow2.Options{Data: data, DataSize: dataSize})
		if info := img.Info(); !info.DataFile || info.DataFileName != "data" {
			t.Fatalf("%+v", info)
		}
		check(t, img, path)
	})
}

// A file that was cut anywhere is an error at opening or when the lost part is read,
// never zeros. If only the last cluster lacks its end, the file is read as QEMU reads it.
func TestCutFile(t *testing.T) {
	qemutest.Run(t, 3, func(t *rapid.T, dir string) {
		r, _ := anyRecipe(t)
		r.Size = min(r.Size, 64<<20)
		r.Ops = append(r.Ops[:0:0], qemutest.Op{Kind: qemutest.Write, Off: 0, Len: min(r.Size, 1<<20)})
		path := qemutest.Make(t, dir, "disk", r)
		whole, size := openFile(t, path)
		img, err := qcow2.Open(whole, size, qcow2.Options{})
		if err != nil {
			t.Fatal(err)
		}
		want, got := make([]byte, r.Size), make([]byte, r.Size)
		if _, err := img.ReadAt(want, 0); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			cut := rapid.Int64Range(0, size-1).Draw(t, "cut")
			img, err := qcow2.Open(whole, cut, qcow2.Options{})
			if err != nil {
				continue
			}
			n, err := img.ReadAt(got, 0)
			if len(img.Notes()) > 0 && err == nil {
				if !bytes.Equal(got[:n], cutDisk(t, dir, whole, cut)) {
					t.Fatalf("cut at %d of %d, within a cluster: QEMU reads other bytes", cut, size)
				}
				continue
			}
			if len(img.Notes()) == 0 && !bytes.Equal(got[:n], want[:n]) {
				t.Fatalf("cut at %d of %d: other bytes were read", cut, size)
			}
			if err == nil && int64(n) != r.Size {
				t.Fatalf("cut at %d of %d: %d bytes and no error", cut, size, n)
			}
		}
	})
}

// cutDisk is the disk that QEMU reads of the first n bytes of a file.
func cutDisk(t qemutest.TB, dir string, file io.ReaderAt, n int64) []byte {
	t.Helper()
	path := filepath.Join(dir, "cut")
	data, err := io.ReadAll(io.NewSectionReader(file, 0, n))
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err == nil {
		data, err = os.ReadFile(qemutest.Raw(t, path, "qcow2"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A file that QEMU did not close is read as QEMU reads it: what is marked dirty
// are refcounts.
func TestDirtyLikeQEMU(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	path := qemutest.Make(t, dir, "disk", qemutest.Recipe{Format: "qcow2", Size: 8 << 20, Options: []string{"lazy_refcounts=on"}})
	abort := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P 0x77 1M 3M", "-c", "flush", "-c", "abort", path)
	if out, err := abort.CombinedOutput(); err == nil {
		t.Fatalf("qemu-io did not abort:\n%s", out)
	}
	img := openImage(t, path, qcow2.Options{})
	if !img.Info().Dirty {
		t.Errorf("%+v", img.Info())
	}
	if err := qemutest.Check(img, qemutest.Raw(t, path, "qcow2"), 1, qemutest.Reads); err != nil {
		t.Error(err)
	}
}

// A persistent bitmap does not matter; encryption does.
func TestExtensionsOfQEMU(t *testing.T) {
	t.Parallel()
	qemutest.Need(t)
	dir := t.TempDir()
	path := qemutest.Make(t, dir, "bitmap", qemutest.Recipe{Format: "qcow2", Size: 1 << 20, Ops: []qemutest.Op{{Kind: qemutest.Plain, Len: 70000}}})
	qemutest.Img(t, dir, "bitmap", "--add", "-f", "qcow2", "bitmap", "changes")
	if err := qemutest.Check(openImage(t, path, qcow2.Options{}), qemutest.Raw(t, path, "qcow2"), 1, qemutest.Reads); err != nil {
		t.Error(err)
	}

	qemutest.Img(t, dir, "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=made up",
		"-o", "encrypt.format=aes,encrypt.key-secret=s", "aes", "1M")
	f, size := openFile(t, filepath.Join(dir, "aes"))
	if _, err := qcow2.Open(f, size, qcow2.Options{}); !errors.Is(err, diskformat.ErrUnsupported) || !strings.Contains(err.Error(), "aes") {
		t.Error(err)
	}
	if info, err := qcow2.ReadInfo(f, size); err != nil || info.Encryption != "aes" {
		t.Errorf("%+v, %v", info, err)
	}
}
