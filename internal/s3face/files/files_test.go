package files_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/s3face/files"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open makes a store with the bucket "images", and returns the bucket's directory too.
func open(t *testing.T) (*files.Bucket, string) {
	t.Helper()
	return openWith(t, nil)
}

func openWith(t *testing.T, room func(int64) error) (*files.Bucket, string) {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "buckets", "images")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.Mkdir(filepath.Join(base, "meta"), 0o700))
	s, err := files.Open(files.Config{Buckets: filepath.Dir(dir), Meta: filepath.Join(base, "meta"), Log: slog.New(slog.DiscardHandler), Room: room})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	b, err := s.Bucket("images")
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b, dir
}

func put(b *files.Bucket, key string, content []byte) error {
	t, err := b.Create()
	if err != nil {
		return err
	}
	defer t.Discard()
	if _, err := t.Write(content); err != nil {
		return err
	}
	_, err = t.Publish(key, &files.Record{ETag: fmt.Sprintf("%x", md5.Sum(content))}, nil)
	return err
}

func read(t *testing.T, b *files.Bucket, key string) []byte {
	t.Helper()
	f, o, err := b.Open(key)
	must(t, err)
	defer f.Close()
	content, err := io.ReadAll(f)
	must(t, err)
	if o.Size != int64(len(content)) {
		t.Errorf("%s: %d bytes, the object says %d", key, len(content), o.Size)
	}
	return content
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

// TestHoles: runs of zeros take no place on the disk, wherever they are and however
// the bytes come.
func TestHoles(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	random := rand.New(rand.NewPCG(1, 1))
	for i, layout := range [][]int{{1 << 20}, {-1 << 20}, {4096, -1 << 20, 1}, {-1, 1, -4095, 1}, {1, -8 << 20}, {-4096, 5000, -100_000, 3}, {}} {
		var content []byte
		data := int64(0)
		for _, n := range layout {
			piece := make([]byte, max(n, -n))
			if n > 0 {
				for j := range piece {
					piece[j] = byte(random.IntN(255) + 1)
				}
				data += int64(n) + 2*4096
			}
			content = append(content, piece...)
		}
		key := fmt.Sprintf("k%d", i)
		temp, err := b.Create()
		must(t, err)
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(70_000))
			_, err := temp.Write(rest[:n])
			must(t, err)
			rest = rest[n:]
		}
		_, err = temp.Publish(key, &files.Record{ETag: "x"}, nil)
		must(t, err)
		temp.Discard()
		if got := read(t, b, key); !bytes.Equal(got, content) {
			t.Errorf("%v: other bytes", layout)
		}
		if on := allocated(t, filepath.Join(dir, key)); on > data+8192 {
			t.Errorf("%v: %d bytes on the disk for %d of data", layout, on, data)
		}
		// A copy keeps them.
		f, o, err := b.Open(key)
		must(t, err)
		temp, err = b.Create()
		must(t, err)
		must(t, temp.CopyRange(t.Context(), f, 0, o.Size))
		_, err = temp.Publish(key+"-copy", &files.Record{ETag: "x"}, nil)
		must(t, err)
		temp.Discard()
		f.Close()
		if got := read(t, b, key+"-copy"); !bytes.Equal(got, content) {
			t.Errorf("%v: the copy has other bytes", layout)
		}
		if on := allocated(t, filepath.Join(dir, key+"-copy")); on > data+8192 {
			t.Errorf("%v: the copy has %d bytes on the disk for %d of data", layout, on, data)
		}
	}
}

// TestWalk compares listings with a sorted list: all keys, each page of them, prefixes,
// and groups.
func TestWalk(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	keys := []string{
		"a", "a-", "a.b/c", "b/", "b/a", "b/a.", "b/b/c/d", "b-", "b0", "c/d", "c d", "c+", "c%2Fd", "é/ü", "~", "!x", "z/" + strings.Repeat("x", 200) + "/y", "A/1", "A0", "A!",
	}
	for _, key := range keys {
		must(t, put(b, key, []byte(key)))
	}
	slices.Sort(keys)
	must(t, os.Symlink("a", filepath.Join(dir, "link")))
	must(t, os.MkdirAll(filepath.Join(dir, "empty", "er"), 0o700))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	list := func(prefix, after string, limit int) []string {
		t.Helper()
		var got []string
		must(t, b.Walk(t.Context(), prefix, after, func(key string, stat func() (*files.Object, error)) (string, bool, error) {
			if len(got) == limit {
				return "", false, nil
			}
			o, err := stat()
			if err != nil || o == nil || o.Key != key {
				t.Errorf("%q: %+v, %v", key, o, err)
			}
			got = append(got, key)
			return "", true, nil
		}))
		return got
	}
	if got := list("", "", 1000); !slices.Equal(got, keys) {
		t.Errorf("all: %q\nwant %q", got, keys)
	}
	for _, prefix := range []string{"", "a", "b", "b/", "b/b", "b/b/", "c", "z/x", "nothing", "nothing/", "A", "é", "é/", "/", "//", "..", "../", ".quickims", ".quickims/tmp", "link/", "b//"} {
		for _, after := range append([]string{"", "b/b", "b/b/zz", "c", "zzzz", "\x01"}, keys...) {
			for _, limit := range []int{1, 3, 1000} {
				var want []string
				for _, key := range keys {
					if strings.HasPrefix(key, prefix) && key > after && len(want) < limit {
						want = append(want, key)
					}
				}
				if got := list(prefix, after, limit); !slices.Equal(got, want) {
					t.Errorf("prefix %q after %q limit %d: %q, want %q", prefix, after, limit, got, want)
				}
			}
		}
	}
	// Passing over what begins with a prefix.
	var got []string
	must(t, b.Walk(t.Context(), "", "", func(key string, _ func() (*files.Object, error)) (string, bool, error) {
		got = append(got, key)
		if i := strings.IndexByte(key, '/'); i >= 0 {
			return key[:i+1], true, nil
		}
		return "", true, nil
	}))
	if want := []string{"!x", "A!", "A/1", "A0", "a", "a-", "a.b/c", "b-", "b/", "b0", "c d", "c%2Fd", "c+", "c/d"}; !slices.Equal(got[:len(want)], want) {
		t.Errorf("groups: %q", got)
	}
}

// TestManyNames lists a directory with more names than are sorted at a time.
func TestManyNames(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	const n = 9000
	for i := range n {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%05d", (i*7919)%n)))
		must(t, err)
		f.Close()
	}
	next := 0
	must(t, b.Walk(t.Context(), "", "", func(key string, _ func() (*files.Object, error)) (string, bool, error) {
		if want := fmt.Sprintf("%05d", next); key != want {
			return "", false, fmt.Errorf("%s, want %s", key, want)
		}
		next++
		return "", true, nil
	}))
	if next != n {
		t.Errorf("%d names", next)
	}
}

// TestPutAgainstDelete: while the last object of a directory is deleted, others are put
// under it. No put fails, and none is lost.
func TestPutAgainstDelete(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			key := fmt.Sprintf("d/e/f%d", worker)
			for range 60 {
				if err := put(b, key, []byte(key)); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if _, err := b.Stat(key); err != nil {
					t.Errorf("stat: %v", err)
				}
				if err := b.Delete(key, nil); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := os.Lstat(filepath.Join(dir, "d")); !os.IsNotExist(err) {
		t.Errorf("the empty directory: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".quickims", "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestConflicts: a key cannot be stored beside what is in its way, and says what that
// is; nothing is lost.
func TestConflicts(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	must(t, put(b, "file", []byte("1")))
	must(t, put(b, "dir/file", []byte("2")))
	must(t, put(b, "marked/", nil))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	for key, at := range map[string]files.PathError{
		"file/x": {At: "file"}, "file/": {At: "file"}, "dir": {At: "dir", Dir: true}, "dir/file/x/y": {At: "dir/file"}, "marked": {At: "marked", Dir: true},
		"link": {At: "link", Strange: true}, "link/x": {At: "link", Strange: true},
	} {
		var e *files.PathError
		if err := put(b, key, []byte("new")); !errors.As(err, &e) || e.At != at.At || e.Dir != at.Dir || e.Strange != at.Strange {
			t.Errorf("%s: %v", key, err)
		}
		if err := b.CheckPlace(key); !errors.As(err, &e) {
			t.Errorf("%s: CheckPlace: %v", key, err)
		}
	}
	if string(read(t, b, "file")) != "1" || string(read(t, b, "dir/file")) != "2" || len(read(t, b, "marked/")) != 0 {
		t.Error("an object was lost")
	}
	must(t, b.Delete("marked/", nil))
	must(t, put(b, "marked", []byte("now a file")))
}

// upload sends parts in the order given, each with content that its number decides,
// and returns what it sent.
type partSent struct {
	number  int
	content []byte
}

func content(seed, size int) []byte {
	random := rand.New(rand.NewPCG(uint64(seed), 2))
	out := make([]byte, size)
	for i := range out {
		if i/5000%3 != 0 { // holes, too
			out[i] = byte(random.Uint32())
		}
	}
	return out
}

func sendPart(t *testing.T, u *files.Upload, p partSent, announce bool) {
	t.Helper()
	size := int64(-1)
	if announce {
		size = int64(len(p.content))
	}
	w, err := u.WritePart(p.number, size)
	must(t, err)
	defer w.Discard()
	_, err = w.Write(p.content)
	must(t, err)
	sum := md5.Sum(p.content)
	must(t, w.Commit(files.Part{MD5: sum[:]}))
}

// TestUploads sends parts in every way that clients do, and completes with some or all
// of them: the object is the parts, one behind the other. Where they have one size, it
// is the very file that they were written to.
func TestUploads(t *testing.T) {
	t.Parallel()
	const s = 100_000
	for name, c := range map[string]struct {
		sent     []partSent
		complete []int
		inPlace  bool
	}{
		"in order":                   {[]partSent{{1, content(1, s)}, {2, content(2, s)}, {3, content(3, 777)}}, []int{1, 2, 3}, true},
		"backwards":                  {[]partSent{{2, content(2, s)}, {1, content(1, s)}}, []int{1, 2}, true},
		"one":                        {[]partSent{{1, content(1, 5)}}, []int{1}, true},
		"the last one first":         {[]partSent{{3, content(3, 777)}, {1, content(1, s)}, {2, content(2, s)}}, []int{1, 2, 3}, false},
		"numbers with gaps":          {[]partSent{{5, content(5, s)}, {17, content(17, s)}, {10000, content(9, 3)}}, []int{5, 17, 10000}, false},
		"other sizes":                {[]partSent{{1, content(1, s)}, {2, content(2, s/2)}, {3, content(3, 2*s)}, {4, content(4, s)}}, []int{1, 2, 3, 4}, false},
		"one twice":                  {[]partSent{{1, content(1, s)}, {2, content(2, s)}, {1, content(11, s)}, {3, content(3, 9)}}, []int{1, 2, 3}, true},
		"one twice, shorter":         {[]partSent{{1, content(1, s)}, {2, content(2, s)}, {2, content(12, 55)}}, []int{1, 2}, true},
		"the last one left out":      {[]partSent{{1, content(1, s)}, {2, content(2, s)}, {3, content(3, s)}}, []int{1, 2}, true},
		"one in the middle left out": {[]partSent{{1, content(1, s)}, {2, content(2, s)}, {3, content(3, s)}}, []int{1, 3}, false},
		"empty":                      {[]partSent{{1, nil}}, []int{1}, true},
		"zeros alone":                {[]partSent{{1, make([]byte, s)}, {2, make([]byte, s)}, {3, make([]byte, 10)}}, []int{1, 2, 3}, true},
	} {
		for _, announce := range []bool{true, false} {
			b, dir := open(t)
			id, err := b.BeginUpload(files.UploadInfo{Key: "k"})
			must(t, err)
			u, err := b.Upload("k", id)
			must(t, err)
			defer u.Close()
			last := map[int][]byte{}
			for _, p := range c.sent {
				sendPart(t, u, p, announce)
				last[p.number] = p.content
			}
			// A transfer that is cut leaves nothing that shows.
			w, err := u.WritePart(c.sent[0].number, s)
			must(t, err)
			_, err = w.Write(bytes.Repeat([]byte{0xff}, s/2))
			must(t, err)
			w.Discard()
			var data unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, ".quickims", "uploads", id, "data"), &data))

			must(t, u.Freeze())
			have, err := u.Parts()
			must(t, err)
			var parts []files.Part
			var want []byte
			for _, n := range c.complete {
				i := slices.IndexFunc(have, func(p files.Part) bool { return p.Number == n })
				parts, want = append(parts, have[i]), append(want, last[n]...)
			}
			_, err = u.Complete(t.Context(), parts, &files.Record{ETag: "e"}, nil)
			must(t, err)
			if got := read(t, b, "k"); !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, want %d; or others", name, len(got), len(want))
			}
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, "k"), &st))
			if announce && (st.Ino == data.Ino) != c.inPlace {
				t.Errorf("%s: in place is %v", name, st.Ino == data.Ino)
			}
			if _, err := os.Lstat(filepath.Join(dir, ".quickims", "uploads", id)); !os.IsNotExist(err) {
				t.Errorf("%s: the upload is left: %v", name, err)
			}
		}
	}
}

// TestUploadTogether sends parts, each of them twice, from many sides while the upload
// is completed: the object is made of whole parts, and whoever comes too late does not
// change it.
func TestUploadTogether(t *testing.T) {
	t.Parallel()
	b, _ := open(t)
	const s, n = 64 << 10, 16
	id, err := b.BeginUpload(files.UploadInfo{Key: "k"})
	must(t, err)
	send := func(number, seed int) error {
		u, err := b.Upload("k", id)
		if err != nil {
			return err
		}
		defer u.Close()
		w, err := u.WritePart(number, s)
		if err != nil {
			return err
		}
		defer w.Discard()
		body := bytes.Repeat([]byte{byte(seed)}, s)
		for i := 0; i < s; i += 4096 {
			if _, err := w.Write(body[i : i+4096]); err != nil {
				return err
			}
		}
		sum := md5.Sum(body)
		return w.Commit(files.Part{MD5: sum[:]})
	}
	for i := range n {
		must(t, send(i+1, i+1))
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range 5 {
				if err := send(i+1, 100+i); err != nil {
					if !errors.Is(err, files.ErrNoUpload) {
						t.Errorf("part %d: %v", i+1, err)
					}
					return
				}
			}
		})
	}
	u, err := b.Upload("k", id)
	must(t, err)
	defer u.Close()
	must(t, u.Freeze())
	parts, err := u.Parts()
	must(t, err)
	_, err = u.Complete(context.Background(), parts, &files.Record{ETag: "e"}, nil)
	must(t, err)
	before := read(t, b, "k")
	wg.Wait()
	after := read(t, b, "k")
	if !bytes.Equal(before, after) {
		t.Error("a part changed the object after the upload was completed")
	}
	for i := range n {
		part := after[i*s : (i+1)*s]
		sum := md5.Sum(part)
		if !bytes.Equal(sum[:], parts[i].MD5) {
			t.Errorf("part %d is not the one that the completion saw", i+1)
		}
	}
}

// TestRecord: what does not fit beside the file is kept apart, goes with the object,
// and a write by other means makes the checksum and the ETag void.
func TestRecord(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	for _, size := range []int{10, 3000, 300_000} {
		key := fmt.Sprintf("d/k%d", size)
		temp, err := b.Create()
		must(t, err)
		_, err = temp.Write([]byte("content"))
		must(t, err)
		r := files.Record{ETag: "etag", Meta: []files.Meta{files.NewMeta("n", "\xff\xfe "+strings.Repeat("v", size))}}
		_, err = temp.Publish(key, &r, nil)
		must(t, err)
		temp.Discard()
		o, err := b.Stat(key)
		must(t, err)
		if o.ETag != "etag" || len(o.Meta) != 1 || o.Meta[0] != r.Meta[0] {
			t.Errorf("%d: ETag %q, %d values", size, o.ETag, len(o.Meta))
		}
		records := filepath.Join(dir, "..", "..", "meta", "records")
		apart := func() int {
			all, err := filepath.Glob(filepath.Join(records, "images", "*", "*"))
			must(t, err)
			return len(all)
		}
		if n := apart(); size > 10_000 && n != 1 || size < 100 && n != 0 {
			t.Errorf("%d: %d records apart", size, n)
		}
		must(t, os.WriteFile(filepath.Join(dir, key), []byte("written by hand"), 0o600))
		if o, err = b.Stat(key); err != nil || o.ETag == "etag" {
			t.Errorf("%d: the ETag survived a write: %v", size, err)
		}
		must(t, b.Delete(key, nil))
		if n := apart(); n != 0 {
			t.Errorf("%d: %d records are left", size, n)
		}
	}
}

// BenchmarkComplete completes an upload of 10,000 parts of 64 KiB.
func BenchmarkComplete(b *testing.B) {
	base := b.TempDir()
	dir := filepath.Join(base, "buckets", "images")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Mkdir(filepath.Join(base, "meta"), 0o700)); err != nil {
		b.Fatal(err)
	}
	s, err := files.Open(files.Config{Buckets: filepath.Dir(dir), Meta: filepath.Join(base, "meta"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	bucket, err := s.Bucket("images")
	if err != nil {
		b.Fatal(err)
	}
	defer bucket.Close()
	part := bytes.Repeat([]byte{1}, 64<<10)
	sum := md5.Sum(part)
	for b.Loop() {
		b.StopTimer()
		id, err := bucket.BeginUpload(files.UploadInfo{Key: "k"})
		if err != nil {
			b.Fatal(err)
		}
		u, err := bucket.Upload("k", id)
		if err != nil {
			b.Fatal(err)
		}
		for n := 1; n <= 10_000; n++ {
			w, err := u.WritePart(n, int64(len(part)))
			if err == nil {
				_, err = w.Write(part)
			}
			if err == nil {
				err = w.Commit(files.Part{MD5: sum[:]})
			}
			if err != nil {
				b.Fatal(err)
			}
			w.Discard()
		}
		b.StartTimer()
		err = u.Freeze()
		parts, perr := u.Parts()
		if err = errors.Join(err, perr); err != nil {
			b.Fatal(err)
		}
		if _, err := u.Complete(b.Context(), parts, &files.Record{ETag: "e"}, nil); err != nil {
			b.Fatal(err)
		}
		u.Close()
	}
}

// TestCompletionAsksForRoom: an upload whose parts do not lie side by side is copied when
// it is completed. That ends when there is no room, and works later.
func TestCompletionAsksForRoom(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	var room error
	b, dir := openWith(t, func(int64) error { return room })
	id, err := b.BeginUpload(files.UploadInfo{Key: "disk"})
	must(t, err)
	u, err := b.Upload("disk", id)
	must(t, err)
	defer u.Close()
	want := bytes.Repeat([]byte("data"), 3000)
	for _, p := range []struct{ number, from, to int }{{2, 0, 5001}, {3, 5001, len(want)}} { // at odd places: nothing is cloned
		w, err := u.WritePart(p.number, int64(p.to-p.from))
		must(t, err)
		_, err = w.Write(want[p.from:p.to])
		must(t, err)
		must(t, w.Commit(files.Part{}))
		w.Discard()
	}
	must(t, u.Freeze())
	parts, err := u.Parts()
	must(t, err)
	room = full
	if _, err := u.Complete(t.Context(), parts, &files.Record{ETag: "e"}, nil); !errors.Is(err, full) {
		t.Errorf("without room: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "disk")); err == nil {
		t.Error("there is an object")
	}
	room = nil
	_, err = u.Complete(t.Context(), parts, &files.Record{ETag: "e"}, nil)
	must(t, err)
	if got := read(t, b, "disk"); !bytes.Equal(got, want) {
		t.Errorf("the object has %d bytes, other ones than the parts", len(got))
	}
}
