package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/quickims/quickims/internal/objectstore"
)

// testExport: the object has the image's bytes, lives apart from it, and replaces nothing.
func testExport(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	content := pattern(11<<20+7, 3)
	h.Write(t, b, "source", content)
	img := h.adopt(t, at(b, "source"), h.stat(t, at(b, "source")), image("exported/1/disk"))
	opts := objectstore.ExportOptions{Token: "0123456789abcdef"}
	done := int64(-1)
	opts.Progress = func(n, total int64) {
		if n < done || total != int64(len(content)) {
			t.Errorf("progress %d of %d after %d", n, total, done)
		}
		done = n
	}
	dst := at(b, "deep/er/out.zvhd2")
	opts.Making = func(_ context.Context, mark string) error {
		h.wantAbsent(t, dst)
		opts.Made = mark
		return nil
	}
	for range 2 { // the second finds it complete
		if err := h.Store.Export(ctx, image("exported/1/disk"), img.Condition(), dst, opts); err != nil || done != int64(len(content)) {
			t.Fatalf("export: %v, %d bytes were told", err, done)
		}
		done = -1
	}
	h.wantBytes(t, dst, h.stat(t, dst), content)
	h.wantBytes(t, image("exported/1/disk"), img, content)
	opts.Making = nil
	fresh := objectstore.ExportOptions{Token: "fedcba9876543210"}
	wantErr(t, "export of another token", h.Store.Export(ctx, image("exported/1/disk"), img.Condition(), dst, fresh), objectstore.ErrExists)

	// What is there stays.
	h.Write(t, b, "mine", []byte("mine"))
	wantErr(t, "export over an object", h.Store.Export(ctx, image("exported/1/disk"), img.Condition(), at(b, "mine"), opts), objectstore.ErrExists)
	h.wantBytes(t, at(b, "mine"), h.stat(t, at(b, "mine")), []byte("mine"))

	// It can be imported again, and each lives without the others.
	again := h.adopt(t, dst, h.stat(t, dst), image("exported/2/disk"))
	h.Remove(t, b, "source")
	if err := h.Store.Delete(ctx, image("exported/1/disk")); err != nil {
		t.Fatal(err)
	}
	h.wantBytes(t, dst, h.stat(t, dst), content)
	h.Write(t, b, "deep/er/out.zvhd2", []byte("replaced"))
	h.wantBytes(t, image("exported/2/disk"), again, content)

	wantErr(t, "export of what is gone", h.Store.Export(ctx, image("exported/1/disk"), img.Condition(), at(b, "x"), opts), objectstore.ErrNotFound)
	wantErr(t, "export of other bytes", h.Store.Export(ctx, image("exported/2/disk"), objectstore.Condition{ETag: "other"}, at(b, "x"), opts), objectstore.ErrChanged)
	wantErr(t, "export nowhere", h.Store.Export(ctx, image("exported/2/disk"), again.Condition(), at("no-such-bucket", "x"), opts), objectstore.ErrNoBucket)
	wantErr(t, "export out of a bucket", h.Store.Export(ctx, at(b, "mine"), objectstore.Condition{}, at(b, "x"), opts), objectstore.ErrInvalid)
	wantErr(t, "export into the image area", h.Store.Export(ctx, image("exported/2/disk"), again.Condition(), image("x"), opts), objectstore.ErrInvalid)
	for _, name := range h.HiddenBuckets {
		if err := h.Store.Export(ctx, image("exported/2/disk"), again.Condition(), at(name, "x"), opts); err == nil {
			t.Errorf("export into %q succeeds", name)
		}
	}
	h.wantAbsent(t, at(b, "x"))
}

// testUnexport: what an export made goes, and nothing else: not what another one made, or
// wrote there since, or the image.
func testUnexport(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	content := pattern(1<<20+5, 7)
	h.Write(t, b, "source", content)
	img := h.adopt(t, at(b, "source"), h.stat(t, at(b, "source")), image("unexported/1/disk"))
	h.Remove(t, b, "source")
	dst := at(b, "a/out.zvhd2")
	export := func(token string) objectstore.ExportOptions {
		t.Helper()
		opts := objectstore.ExportOptions{Token: token}
		opts.Making = func(_ context.Context, mark string) error {
			opts.Made = mark
			return nil
		}
		if err := h.Store.Export(ctx, image("unexported/1/disk"), img.Condition(), dst, opts); err != nil || opts.Made == "" {
			t.Fatalf("export: %v, the mark is %q", err, opts.Made)
		}
		return opts
	}
	undo := func(loc objectstore.Location, opts objectstore.ExportOptions) {
		t.Helper()
		if err := h.Store.Unexport(ctx, loc, opts); err != nil {
			t.Fatal(err)
		}
	}
	stop := errors.New("stop")
	wantErr(t, "export that is stopped", h.Store.Export(ctx, image("unexported/1/disk"), img.Condition(), dst,
		objectstore.ExportOptions{Token: "0", Making: func(context.Context, string) error { return stop }}), stop)
	h.wantAbsent(t, dst)

	first := export("1")
	undo(dst, objectstore.ExportOptions{Token: "1"}) // that did not come to it
	undo(dst, objectstore.ExportOptions{Token: "2", Made: "2"})
	h.wantBytes(t, dst, h.stat(t, dst), content)
	for range 2 {
		undo(dst, first)
		h.wantAbsent(t, dst)
	}
	again := export("3")
	h.Write(t, b, "a/out.zvhd2", content)
	undo(dst, again)
	h.wantBytes(t, dst, h.stat(t, dst), content)
	h.wantBytes(t, image("unexported/1/disk"), img, content)

	undo(at(b, "a/out.zvhd2/below"), first)
	undo(at(b, "none"), first)
	undo(at("no-such-bucket", "x"), first)
	wantErr(t, "undo in the image area", h.Store.Unexport(ctx, image("unexported/1/disk"), first), objectstore.ErrInvalid)
}

// testExportStream: what a reader gives becomes an object, whole or not at all, that
// replaces nothing.
func testExportStream(t *testing.T, h Harness) {
	ctx, b := t.Context(), h.NewBucket(t)
	for _, size := range []int{0, 5, 33<<20 + 1} {
		content, dst := pattern(size, 9), at(b, fmt.Sprintf("of/%d", size))
		var opts objectstore.ExportOptions
		opts.Token = "a"
		opts.Making = func(_ context.Context, mark string) error {
			h.wantAbsent(t, dst)
			opts.Made = mark
			return nil
		}
		stop := errors.New("stop")
		cut := io.MultiReader(bytes.NewReader(content), iotest.ErrReader(stop))
		wantErr(t, "export of a reader that fails", h.Store.ExportStream(ctx, cut, dst, opts), stop)
		h.wantAbsent(t, dst)
		if err := h.Store.ExportStream(ctx, bytes.NewReader(content), dst, opts); err != nil {
			t.Fatal(err)
		}
		h.wantBytes(t, dst, h.stat(t, dst), content)
		if err := h.Store.ExportStream(ctx, iotest.ErrReader(stop), dst, opts); err != nil {
			t.Errorf("found again: %v", err)
		}
		opts.Making = nil
		if err := h.Store.Unexport(ctx, dst, opts); err != nil {
			t.Error(err)
		}
		h.wantAbsent(t, dst)
		h.Write(t, b, dst.Key, []byte("mine"))
		wantErr(t, "export over an object", h.Store.ExportStream(ctx, bytes.NewReader(content), dst, opts), objectstore.ErrExists)
		h.wantBytes(t, dst, h.stat(t, dst), []byte("mine"))
	}
	wantErr(t, "export nowhere", h.Store.ExportStream(ctx, bytes.NewReader([]byte("x")), at("no-such-bucket", "x"), objectstore.ExportOptions{Token: "a"}), objectstore.ErrNoBucket)
	wantErr(t, "export into the image area", h.Store.ExportStream(ctx, bytes.NewReader(nil), image("x"), objectstore.ExportOptions{Token: "a"}), objectstore.ErrInvalid)
}
