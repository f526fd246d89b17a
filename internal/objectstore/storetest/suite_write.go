package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/quickims/quickims/internal/objectstore"
)

func (h Harness) adopt(t *testing.T, src objectstore.Location, info objectstore.ObjectInfo, dst objectstore.Location) objectstore.ObjectInfo {
	t.Helper()
	made, err := h.Store.Adopt(t.Context(), src, info.Condition(), dst, objectstore.AdoptOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func testAdopt(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	for _, size := range []int{0, 1, 100000} {
		src, dst := at(b, fmt.Sprint("size-", size)), image(fmt.Sprint("adopt/", size, "/data"))
		content := pattern(size, 1)
		h.Write(t, b, src.Key, content)
		info := h.stat(t, src)
		last := int64(-1)
		made, err := h.Store.Adopt(t.Context(), src, info.Condition(), dst, objectstore.AdoptOptions{
			Progress: func(done, total int64) {
				if done < last || total != int64(size) {
					t.Errorf("progress went from %d to %d of %d", last, done, total)
				}
				last = done
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != int64(size) || made.Size != int64(size) || made.ETag == "" {
			t.Errorf("size %d: progress ended at %d, made %+v", size, last, made)
		}
		if now := h.stat(t, dst); now.Condition() != made.Condition() {
			t.Errorf("Stat says %+v, Adopt said %+v", now, made)
		}
		h.Write(t, b, src.Key, pattern(size, 2)) // an upload over the source
		h.wantBytes(t, dst, made, content)
		h.Remove(t, b, src.Key)
		h.wantBytes(t, dst, made, content)
	}
}

func testAdoptTwice(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	src, dst := at(b, "k"), image("twice/data")
	h.Write(t, b, "k", pattern(5000, 1))
	info := h.stat(t, src)
	h.adopt(t, src, info, dst)
	made := h.adopt(t, src, info, dst) // as a worker does whose first answer was lost
	h.wantBytes(t, dst, made, pattern(5000, 1))

	h.Write(t, b, "other", pattern(4000, 2)) // another source to the same place
	made = h.adopt(t, at(b, "other"), h.stat(t, at(b, "other")), dst)
	h.wantBytes(t, dst, made, pattern(4000, 2))
}

func testAdoptSameSourceTwice(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	src, content := at(b, "k"), pattern(5000, 1)
	h.Write(t, b, "k", content)
	info := h.stat(t, src)
	var wg sync.WaitGroup
	made := make([]objectstore.ObjectInfo, 4)
	dst := func(i int) objectstore.Location { return image(fmt.Sprintf("same-source/%d/data", i)) }
	for i := range made {
		wg.Go(func() {
			var err error
			if made[i], err = h.Store.Adopt(ctx, src, info.Condition(), dst(i), objectstore.AdoptOptions{}); err != nil {
				t.Errorf("adoption %d: %v", i, err)
			}
			h.wantBytes(t, src, info, content) // the pin holds while others adopt
		})
	}
	wg.Wait()
	left := []int{0, 1, 2, 3}
	for len(left) > 1 {
		for _, i := range left {
			h.wantBytes(t, dst(i), made[i], content)
		}
		if err := h.Store.Delete(ctx, dst(left[0])); err != nil {
			t.Fatal(err)
		}
		h.wantAbsent(t, dst(left[0]))
		left = left[1:]
		if len(left) == 2 {
			h.Remove(t, b, "k")
		}
	}
	h.wantBytes(t, dst(3), made[3], content)
}

func testAdoptChangedSource(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	src, dst := at(b, "k"), image("changed/data")
	h.Write(t, b, "k", pattern(1000, 1))
	old := h.stat(t, src)
	h.Write(t, b, "k", pattern(1000, 2))
	_, err := h.Store.Adopt(ctx, src, old.Condition(), dst, objectstore.AdoptOptions{})
	wantErr(t, "source overwritten", err, objectstore.ErrChanged)
	now := h.stat(t, src)
	h.Write(t, b, "k", pattern(400, 2))
	_, err = h.Store.Adopt(ctx, src, now.Condition(), dst, objectstore.AdoptOptions{})
	wantErr(t, "source truncated", err, objectstore.ErrChanged)
	now = h.stat(t, src)
	h.Remove(t, b, "k")
	_, err = h.Store.Adopt(ctx, src, now.Condition(), dst, objectstore.AdoptOptions{})
	wantErr(t, "source vanished", err, objectstore.ErrNotFound)
	h.wantAbsent(t, dst)
	if all, err := h.Store.List(ctx, objectstore.ImageArea, "changed/", "", 10); err != nil || len(all) != 0 {
		t.Errorf("left in the image area: %v, %v", all, err)
	}
}

func testAdoptFromImageArea(t *testing.T, h Harness) {
	b := h.NewBucket(t)
	h.Write(t, b, "k", pattern(3000, 1))
	first := h.adopt(t, at(b, "k"), h.stat(t, at(b, "k")), image("again/1"))
	second := h.adopt(t, image("again/1"), first, image("again/2"))
	if err := h.Store.Delete(t.Context(), image("again/1")); err != nil {
		t.Fatal(err)
	}
	h.Remove(t, b, "k")
	h.wantBytes(t, image("again/2"), second, pattern(3000, 1))
	_, err := h.Store.Adopt(t.Context(), image("again/2"), second.Condition(), image("again/2"), objectstore.AdoptOptions{})
	wantErr(t, "adopt as itself", err, objectstore.ErrInvalid)
	h.wantBytes(t, image("again/2"), second, pattern(3000, 1))
}

func testAdoptNowhere(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	h.Write(t, b, "k", []byte("x"))
	_, err := h.Store.Adopt(ctx, at(b, "k"), objectstore.Condition{}, at(b, "copy"), objectstore.AdoptOptions{})
	wantErr(t, "adopt into a bucket", err, objectstore.ErrDenied)
	_, err = h.Store.Put(ctx, at(b, "put"), strings.NewReader("x"), 1, objectstore.PutOptions{})
	wantErr(t, "put into a bucket", err, objectstore.ErrDenied)
	h.wantAbsent(t, at(b, "copy"))
	h.wantAbsent(t, at(b, "put"))
	_, err = h.Store.Adopt(ctx, at(b, "missing"), objectstore.Condition{}, image("nowhere"), objectstore.AdoptOptions{})
	wantErr(t, "adopt what is not there", err, objectstore.ErrNotFound)
}

func testPut(t *testing.T, h Harness) {
	ctx := t.Context()
	loc := image("put/state.json")
	for i, size := range []int{100, 0, 70000, 1, 40<<20 + 7} {
		content := pattern(size, byte(i))
		clear(content[size/3 : size/2]) // a hole
		for _, known := range []int64{int64(size), objectstore.UnknownSize} {
			uploads := 0
			began := func(_ context.Context, id string) error { uploads++; return nil }
			// A reader that gives its end with its last bytes, in odd pieces.
			r := iotest.DataErrReader(io.MultiReader(bytes.NewReader(content[:size/2]), bytes.NewReader(content[size/2:])))
			info, err := h.Store.Put(ctx, loc, r, known, objectstore.PutOptions{Began: began})
			if err != nil || info.Size != int64(size) {
				t.Fatalf("Put of %d bytes as %d: %+v, %v", size, known, info, err)
			}
			if left, err := h.Store.Uploads(ctx, ""); err != nil || len(left) > 0 || uploads > 1 {
				t.Errorf("Put of %d bytes: uploads %v, %v, %d were begun", size, left, err, uploads)
			}
			h.wantBytes(t, loc, info, content)
			if err := h.Store.Delete(ctx, loc); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := h.Store.Put(ctx, loc, bytes.NewReader(pattern(70000, 2)), 70000, objectstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	// A reader sees one whole generation while they replace each other.
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 5 {
				if _, err := h.Store.Put(ctx, loc, bytes.NewReader(bytes.Repeat([]byte{byte('a' + i)}, 4096)), 4096, objectstore.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	h.stat(t, loc)
	for range 20 {
		body, err := h.Store.Open(ctx, loc, objectstore.Condition{}, 0, 4096)
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil && !errors.Is(err, objectstore.ErrChanged) || err == nil && got[0] >= 'a' && bytes.Count(got, got[:1]) != 4096 && got[0] != pattern(1, 2)[0] {
			t.Errorf("a mixed read: %v", err)
		}
	}
	wg.Wait()
}

func testPutWrongSize(t *testing.T, h Harness) {
	ctx, loc := t.Context(), image("put-wrong/size")
	for _, c := range []struct {
		content string
		size    int64
		want    error
	}{
		{"four", 5, io.ErrUnexpectedEOF}, {"", 1, io.ErrUnexpectedEOF}, {"four", 3, objectstore.ErrInvalid},
		{"x", 0, objectstore.ErrInvalid}, {"x", -2, objectstore.ErrInvalid},
	} {
		_, err := h.Store.Put(ctx, loc, strings.NewReader(c.content), c.size, objectstore.PutOptions{})
		wantErr(t, fmt.Sprintf("Put %q as %d bytes", c.content, c.size), err, c.want)
		h.wantAbsent(t, loc)
	}
	// A reader that breaks leaves nothing, whatever its error looks like: a cut request
	// gives the very error that some readers give at an early end.
	for _, broken := range []error{errors.New("the source of the bytes broke"), io.ErrUnexpectedEOF} {
		for _, n := range []int{2, 0, 17 << 20, 32 << 20} {
			for _, size := range []int64{int64(n) + 2, objectstore.UnknownSize} {
				_, err := h.Store.Put(ctx, loc, io.MultiReader(bytes.NewReader(make([]byte, n)), errReader{broken}), size, objectstore.PutOptions{})
				wantErr(t, fmt.Sprintf("Put of a reader that breaks after %d bytes", n), err, broken)
				h.wantAbsent(t, loc)
				if left, err := h.Store.Uploads(ctx, ""); err != nil || len(left) > 0 {
					t.Errorf("uploads %v, %v", left, err)
				}
			}
		}
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func testList(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	keys := []string{"a!", "a-b", "a/1", "a/2", "a/b/c", "a0", "b/x", "ba", "z/y/x/w", "ä/ö"}
	for _, key := range keys {
		h.Write(t, b, key, []byte(key))
	}
	slices.Sort(keys)
	list := func(bucket, prefix, after string, limit int) []string {
		t.Helper()
		found, err := h.Store.List(ctx, bucket, prefix, after, limit)
		if err != nil {
			t.Errorf("List(%q, %q, %d): %v", prefix, after, limit, err)
		}
		var names []string
		for _, o := range found {
			names = append(names, o.Key)
			if bucket == b && o.Size != int64(len(o.Key)) {
				t.Errorf("%s has size %d in the listing", o.Key, o.Size)
			}
		}
		return names
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "b", "z/y", "nothing", "ä"} {
		for _, after := range append([]string{"", "a/", "a/b/", "zz", "a/1x"}, keys...) {
			for _, limit := range []int{1, 2, 3, objectstore.MaxList} {
				var want []string
				for _, key := range keys {
					if strings.HasPrefix(key, prefix) && key > after && len(want) < limit {
						want = append(want, key)
					}
				}
				if got := list(b, prefix, after, limit); !slices.Equal(got, want) {
					t.Errorf("List(%q, after %q, %d) = %q, want %q", prefix, after, limit, got, want)
				}
			}
		}
	}
	for _, limit := range []int{0, -1, objectstore.MaxList + 1} {
		_, err := h.Store.List(ctx, b, "", "", limit)
		wantErr(t, fmt.Sprint("limit ", limit), err, objectstore.ErrInvalid)
	}
	for _, key := range []string{"list/2", "list/1/deep"} {
		if _, err := h.Store.Put(ctx, image(key), strings.NewReader("x"), 1, objectstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(objectstore.ImageArea, "list/", "", 10); !slices.Equal(got, []string{"list/1/deep", "list/2"}) {
		t.Errorf("in the image area: %q", got)
	}
}

func testDelete(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	h.Write(t, b, "k", []byte("x"))
	wantErr(t, "delete in a bucket", h.Store.Delete(ctx, at(b, "k")), objectstore.ErrDenied)
	h.wantBytes(t, at(b, "k"), h.stat(t, at(b, "k")), []byte("x"))

	for _, key := range []string{"delete/a/b/1", "delete/a/b/2"} {
		if _, err := h.Store.Put(ctx, image(key), strings.NewReader("x"), 1, objectstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time it is gone already
		if err := h.Store.Delete(ctx, image("delete/a/b/1")); err != nil {
			t.Error(err)
		}
	}
	h.wantAbsent(t, image("delete/a/b/1"))
	h.wantBytes(t, image("delete/a/b/2"), h.stat(t, image("delete/a/b/2")), []byte("x"))
	if err := h.Store.Delete(ctx, image("delete/a")); err != nil { // a folder is no object
		t.Error(err)
	}
	h.wantBytes(t, image("delete/a/b/2"), h.stat(t, image("delete/a/b/2")), []byte("x"))
	if err := h.Store.Delete(ctx, image("never/was/here")); err != nil {
		t.Error(err)
	}
}
