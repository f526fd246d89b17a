package importer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

func (b *bench) content(img ims.Image) []byte {
	b.t.Helper()
	body, err := b.Store.Open(b.t.Context(), objectstore.Location{Key: img.Data.Key}, objectstore.Condition{ETag: img.Data.ETag}, 0, img.Data.Size)
	must(b.t, err)
	defer body.Close()
	got, err := io.ReadAll(body)
	must(b.t, err)
	return got
}

// mayWrite lets the project export.
func mayWrite(_ context.Context, p, name string) (bool, error) {
	return p == project && name != "others", nil
}

// TestCopy: a copy has the bytes and what is said of the disk, a name of its own, and
// outlives its source, as the source outlives it.
func TestCopy(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.raw("d.raw", disk(1))
	id := b.accepted("d.raw")
	b.ended(id)
	src := b.image(id)
	name := "the copy"
	copied := func(from string) ims.Image {
		t.Helper()
		job, err := b.imp.Copy(t.Context(), owner, from, ims.CopyRequest{Name: &name})
		must(t, err)
		ended := b.ended(job)
		if ended.Status != ims.JobSuccess || ended.Type != ims.JobCopy {
			t.Fatalf("%+v\n%s", ended, b.log)
		}
		return b.image(job)
	}
	first := copied(src.ID)
	if first.ID == src.ID || first.Name != name || first.Status != ims.ImageActive || first.Env != src.Env || first.MinDiskGiB != src.MinDiskGiB ||
		first.SourceURL != src.SourceURL || first.FileSize != src.FileSize || first.Data.Key == src.Data.Key || first.Data.BitmapKey == "" || first.Data.Size != src.Data.Size {
		t.Errorf("copied %+v\nfrom %+v", first, src)
	}
	second := copied(first.ID)
	must(t, b.catalog.DeleteImage(t.Context(), project, src.ID, false))
	must(t, b.catalog.DeleteImage(t.Context(), project, second.ID, false))
	must(t, b.imp.CleanUp(t.Context()))
	if !bytes.Equal(b.content(first), disk(1)) {
		t.Error("the copy has other bytes")
	}
	if _, err := b.Store.Stat(t.Context(), objectstore.Location{Key: src.Data.Key}); !errors.Is(err, objectstore.ErrNotFound) {
		t.Errorf("the deleted source is there: %v", err)
	}

	// A source that goes away before the copy has begun fails it.
	job, err := b.imp.Copy(t.Context(), owner, first.ID, ims.CopyRequest{Name: &name})
	must(t, err)
	must(t, b.catalog.DeleteImage(t.Context(), project, first.ID, false))
	must(t, b.imp.CleanUp(t.Context()))
	if ended := b.ended(job); ended.Status != ims.JobFail || ended.ErrorCode != ims.CodeFile {
		t.Errorf("%+v", ended)
	}
	if img := b.image(job); img.Status != ims.ImageKilled {
		t.Errorf("the copy is %s", img.Status)
	}
	stranger := ims.Principal{ProjectID: "c0000000000000000000000000000003"}
	if _, err := b.imp.Copy(t.Context(), stranger, first.ID, ims.CopyRequest{Name: &name}); err == nil {
		t.Error("a stranger copied it")
	}
}

// TestExport: the stored data and its bitmap become objects that an import takes, nothing
// that was there is touched, and the image is as it was, also when the export fails.
func TestExport(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{MayWrite: mayWrite})
	b.raw("d.raw", disk(1))
	id := b.accepted("d.raw")
	b.ended(id)
	img := b.image(id)
	to := ims.Export{Bucket: bucket, Key: "out/web.raw"}
	job, err := b.imp.Export(t.Context(), owner, img.ID, to)
	must(t, err)
	if _, err := b.imp.Export(t.Context(), owner, img.ID, ims.Export{Bucket: bucket, Key: "again.raw"}); ims.CodeOf(err) != ims.CodeExporting {
		t.Errorf("a second export: %v", err)
	}
	if err := b.catalog.DeleteImage(t.Context(), project, img.ID, true); ims.CodeOf(err) != ims.CodeImageBeingMade {
		t.Errorf("deleted while it is exported: %v", err)
	}
	if ended := b.ended(job); ended.Status != ims.JobSuccess || ended.Type != ims.JobExport || ended.ImageID != img.ID || ended.Percent != 100 {
		t.Fatalf("%+v\n%s", ended, b.log)
	}
	if got := b.image(id); got.Status != ims.ImageActive || got.Data != img.Data || !bytes.Equal(b.content(got), disk(1)) {
		t.Errorf("exported, the image is %+v", got)
	}
	again := b.accepted("out/web.raw")
	if ended := b.ended(again); ended.Status != ims.JobSuccess || b.image(again).Data.BitmapKey == "" || !bytes.Equal(b.content(b.image(again)), disk(1)) {
		t.Errorf("imported again: %+v", ended)
	}

	// What is there is left alone, whether it shows at once or later.
	for _, key := range []string{"out/web.raw", "out/web.img"} { // the second has the bitmap of the first
		if _, err := b.imp.Export(t.Context(), owner, img.ID, ims.Export{Bucket: bucket, Key: key}); ims.CodeOf(err) != ims.CodeFileExists {
			t.Errorf("export over %s: %v", key, err)
		}
	}
	job, err = b.imp.Export(t.Context(), owner, img.ID, ims.Export{Bucket: bucket, Key: "late.raw"})
	must(t, err)
	b.file(bucket, "late.raw", []byte("mine"))
	if ended := b.ended(job); ended.Status != ims.JobFail || ended.ErrorCode != ims.CodeFileExists {
		t.Errorf("%+v", ended)
	}
	if got, err := os.ReadFile(filepath.Join(b.buckets, bucket, "late.raw")); err != nil || string(got) != "mine" {
		t.Errorf("the other's object is %q (%v)", got, err)
	}
	job, err = b.imp.Export(t.Context(), owner, img.ID, ims.Export{Bucket: bucket, Key: "late.raw/below.raw"})
	must(t, err)
	if ended := b.ended(job); ended.Status != ims.JobFail || ended.ErrorCode != ims.CodeFileExists {
		t.Errorf("below an object: %+v", ended)
	}
	if _, err := os.Stat(filepath.Join(b.buckets, bucket, "late.mf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bitmap of the failed export: %v", err)
	}
	if got := b.image(id); got.Status != ims.ImageActive || got.Data != img.Data {
		t.Errorf("the export failed, and the image is %+v", got)
	}
	for _, tt := range []struct {
		to   ims.Export
		want ims.Code
	}{
		{ims.Export{Bucket: "others", Key: "x.raw"}, ims.CodeBucketAccess}, {ims.Export{Bucket: "none", Key: "x.raw"}, ims.CodeBucketAccess},
		{ims.Export{Bucket: bucket, Key: "x.mf"}, ims.CodeExportNameFormat}, {ims.Export{Bucket: bucket, Key: ".quickims/x"}, ims.CodeExportNameFormat},
		{ims.Export{Bucket: bucket, Key: "a/.quickims.folder"}, ims.CodeExportNameFormat}, {ims.Export{Bucket: bucket, Key: strings.Repeat("𝒳", 64)}, ims.CodeExportNameFormat},
	} {
		if _, err := b.imp.Export(t.Context(), owner, img.ID, tt.to); ims.CodeOf(err) != tt.want {
			t.Errorf("export to %v: %v, want %s", tt.to, err, tt.want)
		}
	}
	nobody := newBench(t, Options{})
	nobody.raw("d.raw", disk(1))
	id = nobody.accepted("d.raw")
	nobody.ended(id)
	if _, err := nobody.imp.Export(t.Context(), owner, nobody.image(id).ID, to); ims.CodeOf(err) != ims.CodeBucketAccess {
		t.Errorf("nobody may export: %v", err)
	}
}
