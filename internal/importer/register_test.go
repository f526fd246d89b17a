package importer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

var owner = ims.Principal{ProjectID: project, DomainID: "d"}

// queued makes an image without data.
func (b *bench) queued(minDisk int64) string {
	b.t.Helper()
	request := ims.QueuedRequest{MinDisk: &minDisk}
	img, err := request.NewImage(project, ims.DefaultOSVersions())
	must(b.t, err)
	_, err = b.catalog.CreateImage(b.t.Context(), owner.Tenant, img, b.imp.opts.Limits)
	must(b.t, err)
	return img.ID
}

// TestRegister: a file becomes the data of an image that was made before; a failure kills
// the image, and an upload that came before leaves its numbers alone.
func TestRegister(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{MaxAttempts: 1}) // of the job, whatever came before
	b.file(bucket, "alone.raw", disk(1))      // it needs no bitmap
	b.raw("d.raw", disk(1))
	for _, key := range []string{"alone.raw", "d.raw"} {
		image := b.queued(1)
		if err := b.imp.Upload(t.Context(), project, image, strings.NewReader("QFI\xfb is no RAW disk"), -1, true); err == nil {
			t.Fatal("the upload was taken")
		}
		id, err := b.imp.Register(t.Context(), owner, image, bucket, key)
		must(t, err)
		_, err = b.imp.Register(t.Context(), owner, image, bucket, key)
		if ims.CodeOf(err) != ims.CodeConflict {
			t.Errorf("a second registration: %v", err)
		}
		job := b.ended(id)
		if job.Status != ims.JobSuccess || job.Type != ims.JobRegister || job.ImageID != image || job.Attempt < 2 {
			t.Fatalf("%+v\n%s", job, b.log)
		}
		img := b.image(id)
		if img.Status != ims.ImageActive || img.DiskFormat != "raw" || img.FileSize != 4<<20 || img.SourceURL != bucket+":"+key || (img.Data.BitmapKey != "") != (key == "d.raw") {
			t.Errorf("%+v", img)
		}
		if _, err := b.imp.Register(t.Context(), owner, image, bucket, key); ims.CodeOf(err) != ims.CodeConflict {
			t.Errorf("into an active image: %v", err)
		}
	}
	b.file(bucket, "bad.raw", []byte("\x00\x00\x00odd"))
	id, err := b.imp.Register(t.Context(), owner, b.queued(1), bucket, "bad.raw")
	must(t, err)
	if job := b.ended(id); job.Status != ims.JobFail || job.ErrorCode != ims.CodeFile {
		t.Errorf("%+v", job)
	}
	if img := b.image(id); img.Status != ims.ImageKilled {
		t.Errorf("the image is %s", img.Status)
	}
	if _, err := b.imp.Register(t.Context(), owner, b.queued(1), bucket, "none.raw"); ims.CodeOf(err) != ims.CodeFile {
		t.Errorf("no file: %v", err)
	}
	if _, err := b.imp.Register(t.Context(), owner, b.queued(1), "others", "d.raw"); ims.CodeOf(err) != ims.CodeBucketAccess {
		t.Errorf("another's bucket: %v", err)
	}
}

// TestCommonImport: what is not a quick import needs no bitmap, and says that nothing was
// adapted.
func TestCommonImport(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.file(bucket, "alone.raw", disk(1))
	b.file(bucket, "alone.zvhd2", disk(1)) // a RAW file of another name
	for _, key := range []string{"alone.raw", "alone.zvhd2"} {
		s := spec(key)
		s.Common, s.Config = true, true
		id, err := b.accept(s)
		must(t, err)
		job := b.ended(id)
		if job.Status != ims.JobSuccess || len(job.Source.Warnings) == 0 || job.Source.Warnings[0].ID != "not_configured" {
			t.Errorf("%s: %+v", key, job)
		}
	}
	if _, err := b.accept(spec("alone.raw")); ims.CodeOf(err) != ims.CodeFile {
		t.Errorf("quick, without a bitmap: %v", err)
	}
}

// TestMinDiskGreater: the setting asks for more than the system disk itself, and leaves
// data disks alone.
func TestMinDiskGreater(t *testing.T) {
	t.Parallel()
	for greater, code := range map[bool]ims.Code{false: "", true: ims.CodeDiskSize} {
		b := newBench(t, Options{MinDiskGreater: greater})
		b.file(bucket, "d.raw", nil)
		must(t, os.Truncate(filepath.Join(b.buckets, bucket, "d.raw"), ims.GiB))
		for env, want := range map[ims.EnvType]ims.Code{ims.EnvECS: code, ims.EnvBMS: code, ims.EnvData: ""} {
			s := spec("d.raw")
			s.Env, s.Common = env, true
			id, err := b.accept(s)
			must(t, err)
			job := b.ended(id)
			if job.ErrorCode != want || want != "" && !strings.Contains(job.FailReason, "at least 2 GiB") {
				t.Errorf("min_disk_greater %v, %s: %+v", greater, env, job)
			}
		}
	}
}
