// Package storetest holds the conformance suite of package objectstore, which
// every driver passes, and starts the real S3 server that its tests need.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/quickims/quickims/internal/objectstore"
)

// Harness is a store under test, and an outside client's way to its buckets.
type Harness struct {
	Store objectstore.Store
	// NewBucket makes an empty bucket.
	NewBucket func(t *testing.T) string
	// Write makes or replaces an object in a bucket as an upload does.
	Write func(t *testing.T, bucket, key string, content []byte)
	// Remove removes an object of a bucket.
	Remove func(t *testing.T, bucket, key string)
	// HiddenBuckets are names that lead to the image area, or near it, in this
	// driver, and that no caller may use.
	HiddenBuckets []string
}

// Run runs the whole suite. harness is called once for each test in it.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	for _, part := range []struct {
		name string
		test func(t *testing.T, h Harness)
	}{
		{"Buckets", testBuckets},
		{"Stat", testStat},
		{"Ranges", testRanges},
		{"BadRanges", testBadRanges},
		{"Conditions", testConditions},
		{"Keys", testKeys},
		{"HostileKeys", testHostileKeys},
		{"ConcurrentReads", testConcurrentReads},
		{"Cancel", testCancel},
		{"Adopt", testAdopt},
		{"AdoptTwice", testAdoptTwice},
		{"AdoptSameSourceTwice", testAdoptSameSourceTwice},
		{"AdoptChangedSource", testAdoptChangedSource},
		{"AdoptFromImageArea", testAdoptFromImageArea},
		{"AdoptNowhere", testAdoptNowhere},
		{"Export", testExport},
		{"ExportStream", testExportStream},
		{"Unexport", testUnexport},
		{"Put", testPut},
		{"PutWrongSize", testPutWrongSize},
		{"Swap", testSwap},
		{"SwapTogether", testSwapTogether},
		{"List", testList},
		{"Delete", testDelete},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.test(t, harness(t))
		})
	}
}

func at(bucket, key string) objectstore.Location {
	return objectstore.Location{Bucket: bucket, Key: key}
}

func image(key string) objectstore.Location { return at(objectstore.ImageArea, key) }

// pattern returns n bytes of which no two stretches are alike.
func pattern(n int, salt byte) []byte {
	b := make([]byte, n)
	x := uint32(salt)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func (h Harness) stat(t *testing.T, loc objectstore.Location) objectstore.ObjectInfo {
	t.Helper()
	info, err := h.Store.Stat(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// read returns the whole object under a condition.
func (h Harness) read(t *testing.T, loc objectstore.Location, info objectstore.ObjectInfo) ([]byte, error) {
	t.Helper()
	body, err := h.Store.Open(t.Context(), loc, info.Condition(), 0, info.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (h Harness) wantBytes(t *testing.T, loc objectstore.Location, info objectstore.ObjectInfo, want []byte) {
	t.Helper()
	got, err := h.read(t, loc, info)
	if err != nil {
		t.Errorf("read %s: %v", loc, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s holds %d other bytes than the %d expected", loc, len(got), len(want))
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
	var known *objectstore.Error
	if got != nil && !errors.As(got, &known) {
		t.Errorf("%s: %T is no *objectstore.Error", what, got)
	}
}

func (h Harness) wantAbsent(t *testing.T, loc objectstore.Location) {
	t.Helper()
	_, err := h.Store.Stat(t.Context(), loc)
	wantErr(t, "stat "+loc.String(), err, objectstore.ErrNotFound)
}

func testBuckets(t *testing.T, h Harness) {
	ctx := t.Context()
	name := h.NewBucket(t)
	info, err := h.Store.StatBucket(ctx, name)
	if err != nil || info.Name != name || info.Class != objectstore.ClassStandard {
		t.Errorf("StatBucket(%q) = %+v, %v", name, info, err)
	}
	if _, err := h.Store.StatBucket(ctx, objectstore.ImageArea); err != nil {
		t.Errorf("image area: %v", err)
	}
	bad := append([]string{"not-there", "..", ".", "/", "a", "UPPER", "a/b", "a..b", ".hidden", "nul\x00nul", strings.Repeat("x", 64), "-x-"}, h.HiddenBuckets...)
	for _, name := range bad {
		_, err := h.Store.StatBucket(ctx, name)
		wantErr(t, fmt.Sprintf("StatBucket(%q)", name), err, objectstore.ErrNoBucket)
		_, err = h.Store.Stat(ctx, at(name, "k"))
		wantErr(t, fmt.Sprintf("Stat in %q", name), err, objectstore.ErrNoBucket)
		_, err = h.Store.Open(ctx, at(name, "k"), objectstore.Condition{}, 0, 1)
		wantErr(t, fmt.Sprintf("Open in %q", name), err, objectstore.ErrNoBucket)
		_, err = h.Store.List(ctx, name, "", "", 1)
		wantErr(t, fmt.Sprintf("List of %q", name), err, objectstore.ErrNoBucket)
		_, err = h.Store.Adopt(ctx, at(name, "k"), objectstore.Condition{}, image("never"), objectstore.AdoptOptions{})
		wantErr(t, fmt.Sprintf("Adopt from %q", name), err, objectstore.ErrNoBucket)
	}
}

func testStat(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	h.Write(t, b, "one", pattern(1000, 1))
	info := h.stat(t, at(b, "one"))
	if info.Size != 1000 || info.ETag == "" || strings.Contains(info.ETag, `"`) || info.Class != objectstore.ClassStandard || info.ModTime.IsZero() {
		t.Errorf("Stat = %+v", info)
	}
	if again := h.stat(t, at(b, "one")); again.Condition() != info.Condition() {
		t.Errorf("a second Stat says %+v, the first said %+v", again, info)
	}
	h.Write(t, b, "one", pattern(1000, 2))
	if other := h.stat(t, at(b, "one")); other.ETag == info.ETag {
		t.Error("other bytes of the same length have the same ETag")
	}
	h.Write(t, b, "empty", nil)
	if info := h.stat(t, at(b, "empty")); info.Size != 0 || info.ETag == "" {
		t.Errorf("Stat of an empty object = %+v", info)
	}
	h.Write(t, b, "folder/one", []byte("x"))
	h.wantAbsent(t, at(b, "folder"))
	h.wantAbsent(t, at(b, "two"))
	h.wantAbsent(t, at(b, "one/two"))
}

// testRanges reads the product of size, offset and length.
func testRanges(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	for _, size := range []int64{0, 1, 4095, 4096, 70000} {
		content := pattern(int(size), 3)
		key := fmt.Sprintf("size-%d", size)
		h.Write(t, b, key, content)
		info := h.stat(t, at(b, key))
		edges := []int64{0, 1, 4095, 4096, size - 1, size}
		for _, off := range edges {
			for _, end := range edges {
				if off < 0 || end < off || end > size {
					continue
				}
				body, err := h.Store.Open(t.Context(), at(b, key), info.Condition(), off, end-off)
				if err != nil {
					t.Errorf("size %d, [%d,%d): %v", size, off, end, err)
					continue
				}
				if err := iotest.TestReader(body, content[off:end]); err != nil {
					t.Errorf("size %d, [%d,%d): %v", size, off, end, err)
				}
				body.Close()
			}
		}
	}
}

func testBadRanges(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	content := pattern(1000, 4)
	h.Write(t, b, "k", content)
	info := h.stat(t, at(b, "k"))
	open := func(off, n int64) (io.ReadCloser, error) {
		return h.Store.Open(t.Context(), at(b, "k"), info.Condition(), off, n)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {1, 1<<63 - 1}} {
		_, err := open(r[0], r[1])
		wantErr(t, fmt.Sprint("range ", r), err, objectstore.ErrInvalid)
	}
	for _, r := range [][2]int64{{1000, 1}, {5000, 10}} {
		_, err := open(r[0], r[1])
		wantErr(t, fmt.Sprint("range ", r, " past the end"), err, io.ErrUnexpectedEOF)
	}
	body, err := open(900, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	wantErr(t, "range over the end", err, io.ErrUnexpectedEOF)
	if errors.Is(err, objectstore.ErrUnavailable) {
		t.Errorf("range over the end: %v asks for a retry", err)
	}
	if !bytes.Equal(got, content[900:]) {
		t.Errorf("range over the end gave %d bytes", len(got))
	}
}

func testConditions(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	loc := at(b, "k")
	h.Write(t, b, "k", pattern(100, 5))
	old := h.stat(t, loc)
	h.Write(t, b, "k", pattern(100, 6))
	_, err := h.Store.Open(ctx, loc, old.Condition(), 0, 10)
	wantErr(t, "open after a change", err, objectstore.ErrChanged)
	_, err = h.Store.Open(ctx, loc, old.Condition(), 0, 0)
	wantErr(t, "open of nothing after a change", err, objectstore.ErrChanged)
	_, err = objectstore.NewReaderAt(ctx, h.Store, loc, old).ReadAt(make([]byte, 10), 0)
	wantErr(t, "ReadAt after a change", err, objectstore.ErrChanged)
	h.wantBytes(t, loc, objectstore.ObjectInfo{Size: 100}, pattern(100, 6)) // unconditional

	now := h.stat(t, loc)
	h.Remove(t, b, "k")
	_, err = h.Store.Open(ctx, loc, now.Condition(), 0, 10)
	wantErr(t, "open after removal", err, objectstore.ErrNotFound)
	_, err = h.Store.Open(ctx, at(b, "never"), objectstore.Condition{}, 0, 10)
	wantErr(t, "open of what never was", err, objectstore.ErrNotFound)
}

func testKeys(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	keys := []string{
		"plain.raw", "a/b/c/d.raw", "with space.raw", "two  spaces/ x", "ünïcödé/日本語.zvhd2", "plus+percent%20&eq=q?h#.raw",
		"a..b", ".hidden", "...", "dash-", "-dash", "tilde~", "quote'\"", "back\\slash", "co:lon", "new\tab", strings.Repeat("n", 200), "%2e%2e",
	}
	for i, key := range keys {
		content := pattern(50+i, byte(i))
		h.Write(t, b, key, content)
		info := h.stat(t, at(b, key))
		h.wantBytes(t, at(b, key), info, content)
		dst := image("keys/" + key)
		made, err := h.Store.Adopt(t.Context(), at(b, key), info.Condition(), dst, objectstore.AdoptOptions{})
		if err != nil {
			t.Errorf("%q: %v", key, err)
			continue
		}
		h.wantBytes(t, dst, made, content)
	}
}

// hostileKeys can be no object's key.
var hostileKeys = []string{
	"", ".", "..", "../escape", "a/../../escape", "a/../b", "./a", "a/.", "a/..", "/etc/passwd", "//x", "a//b", "a/", "nul\x00nul",
	"\xff\xfe", strings.Repeat("x", 256), strings.Repeat("x/", 512) + "x",
}

func testHostileKeys(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	h.Write(t, b, "a/b", []byte("x"))
	h.Write(t, b, "b", []byte("x"))
	for _, key := range append([]string{".sgwtmp", ".sgwtmp/multipart", "a/.b.sgwtmp.123"}, hostileKeys...) {
		_, err := h.Store.Stat(ctx, at(b, key))
		wantErr(t, fmt.Sprintf("Stat %.40q", key), err, objectstore.ErrNotFound)
		_, err = h.Store.Open(ctx, at(b, key), objectstore.Condition{}, 0, 1)
		wantErr(t, fmt.Sprintf("Open %.40q", key), err, objectstore.ErrNotFound)
		_, err = h.Store.Adopt(ctx, at(b, key), objectstore.Condition{}, image("never"), objectstore.AdoptOptions{})
		wantErr(t, fmt.Sprintf("Adopt from %.40q", key), err, objectstore.ErrNotFound)
	}
	for _, key := range append([]string{".pins/1", ".tmp/1", ".pins"}, hostileKeys...) {
		_, err := h.Store.Stat(ctx, image(key))
		wantErr(t, fmt.Sprintf("Stat %.40q in the image area", key), err, objectstore.ErrNotFound)
		_, err = h.Store.Adopt(ctx, at(b, "b"), objectstore.Condition{}, image(key), objectstore.AdoptOptions{})
		wantErr(t, fmt.Sprintf("Adopt to %.40q", key), err, objectstore.ErrInvalid)
		_, err = h.Store.Put(ctx, image(key), strings.NewReader("x"), 1, objectstore.PutOptions{})
		wantErr(t, fmt.Sprintf("Put %.40q", key), err, objectstore.ErrInvalid)
		wantErr(t, fmt.Sprintf("Delete %.40q", key), h.Store.Delete(ctx, image(key)), objectstore.ErrInvalid)
	}
	h.wantAbsent(t, image("never"))
}

func testConcurrentReads(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	content := pattern(300000, 7)
	h.Write(t, b, "k", content)
	counter := objectstore.Count(h.Store)
	r := objectstore.NewReaderAt(t.Context(), counter, at(b, "k"), h.stat(t, at(b, "k")))
	if r.Size() != int64(len(content)) {
		t.Errorf("Size = %d", r.Size())
	}
	var wg sync.WaitGroup
	const readers, reads = 8, 10
	for i := range readers {
		wg.Go(func() {
			for j := range reads {
				off := (i*37777 + j*9999) % (len(content) - 5000)
				p := make([]byte, 5000)
				if n, err := r.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, content[off:off+n]) {
					t.Errorf("ReadAt(%d): %d bytes, %v", off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := counter.SourceReads(), (objectstore.Reads{Opens: readers * reads, Bytes: readers * reads * 5000}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if got := counter.ImageReads(); got != (objectstore.Reads{}) {
		t.Errorf("counted %+v in the image area", got)
	}

	p := make([]byte, 100)
	if n, err := r.ReadAt(p, int64(len(content)-40)); n != 40 || err != io.EOF || !bytes.Equal(p[:n], content[len(content)-40:]) {
		t.Errorf("ReadAt over the end: %d, %v", n, err)
	}
	if n, err := r.ReadAt(p, int64(len(content))); n != 0 || err != io.EOF {
		t.Errorf("ReadAt at the end: %d, %v", n, err)
	}
	if _, err := r.ReadAt(p, -1); !errors.Is(err, objectstore.ErrInvalid) {
		t.Errorf("ReadAt(-1): %v", err)
	}
}

func testCancel(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	h.Write(t, b, "k", pattern(1<<20, 8))
	info := h.stat(t, at(b, "k"))
	ctx, cancel := context.WithCancel(t.Context())
	body, err := h.Store.Open(ctx, at(b, "k"), info.Condition(), 0, info.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.Copy(io.Discard, body)
	wantErr(t, "read on", err, context.Canceled)
	_, err = h.Store.Stat(ctx, at(b, "k"))
	wantErr(t, "stat", err, context.Canceled)
	_, err = h.Store.StatBucket(ctx, b)
	wantErr(t, "stat bucket", err, context.Canceled)
	_, err = h.Store.Open(ctx, at(b, "k"), info.Condition(), 0, 1)
	wantErr(t, "open", err, context.Canceled)
	_, err = h.Store.List(ctx, b, "", "", 10)
	wantErr(t, "list", err, context.Canceled)
	_, err = h.Store.Adopt(ctx, at(b, "k"), info.Condition(), image("cancelled"), objectstore.AdoptOptions{})
	wantErr(t, "adopt", err, context.Canceled)
	_, err = h.Store.Put(ctx, image("cancelled"), strings.NewReader("x"), 1, objectstore.PutOptions{})
	wantErr(t, "put", err, context.Canceled)
	wantErr(t, "delete", h.Store.Delete(ctx, image("cancelled")), context.Canceled)
	h.wantAbsent(t, image("cancelled"))
}
