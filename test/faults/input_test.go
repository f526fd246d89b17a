package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
	"github.com/quickims/quickims/test/harness"
)

// sourceServer is a server whose bucket holds one good RAW and one good ZVHD2.
func sourceServer(t *testing.T, opts harness.Options) (*harness.Server, []byte) {
	t.Helper()
	s := harness.Start(t, opts)
	disk := harness.Disk(1, 4)
	place(t, s, "raw", disk)
	place(t, s, "zvhd2", disk)
	return s, disk
}

func mfOf(t *testing.T, disk []byte) []byte {
	t.Helper()
	m, err := bitmap.Build(context.Background(), bytes.NewReader(disk), int64(len(disk)), bitmap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := m.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zvhd2Of(t *testing.T, disk []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	if _, err := zvhd2.Convert(context.Background(), &buf, bytes.NewReader(disk), int64(len(disk)), zvhd2.ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sparse makes an object of a size without writing it.
func sparse(t *testing.T, s *harness.Server, key string, size int64) {
	t.Helper()
	s.PutFile(t, bucket, key, nil)
	if err := os.Truncate(filepath.Join(s.Dir, "buckets", bucket, key), size); err != nil {
		t.Fatal(err)
	}
}

// A fault of the source that shows without reading it is an answer, not a job.
func TestSourceFaultsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	s.PutFile(t, bucket, "empty.raw", nil)
	s.PutFile(t, bucket, "nomap.raw", disk)
	sparse(t, s, "huge.raw", ims.TiB+512)
	s.PutFile(t, bucket, "huge.mf", []byte("x"))
	outside := filepath.Join(t.TempDir(), "secret.raw")
	if err := os.WriteFile(outside, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(s.Dir, "buckets", bucket, "link.raw")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, url string
		code      ims.Code
		detail    string
	}{
		{"missing object", bucket + ":none.raw", ims.CodeFile, "none.raw"},
		{"missing bucket", "no-such-bucket:disk.raw", ims.CodeBucketAccess, "no-such-bucket"},
		{"empty object", bucket + ":empty.raw", ims.CodeFile, "empty"},
		{"RAW without a bitmap", bucket + ":nomap.raw", ims.CodeFile, "nomap.mf"},
		{"over 1 TiB", bucket + ":huge.raw", ims.CodeFileTooBig, "1 TiB"},
		{"the bitmap itself", bucket + ":disk.mf", ims.CodeFile, "bitmap"},
		{"a symbolic link", bucket + ":link.raw", ims.CodeFile, "link.raw"},
		{"a folder", bucket + ":.", ims.CodeURLFormat, "segment"},
		{"out of the bucket", bucket + ":../../credentials.env", ims.CodeURLFormat, "segment"},
		{"the image area", "images:x", ims.CodeBucketAccess, "images"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := s.Do(t, "POST", harness.QuickImportPath, harness.Request("bad", tt.url))
			code, message, details := a.Error()
			if a.Status != keystone.Status(tt.code.Kind()) || code != string(tt.code) || message != tt.code.Message() || !strings.Contains(details, tt.detail) {
				t.Errorf("status %d, body %s; want %d %s with a detail that names %q", a.Status, a.Body, keystone.Status(tt.code.Kind()), tt.code, tt.detail)
			}
		})
	}
	t.Cleanup(func() {
		if list := s.Images(t, "?status=killed"); len(list) != 0 {
			t.Errorf("%d images were made of refused requests", len(list))
		}
	})
}

// A fault of the content fails the job, says what is wrong, and leaves nothing.
func TestSourceFaultsFailTheJob(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	mf, z := mfOf(t, disk), zvhd2Of(t, disk)
	other := mfOf(t, disk[:len(disk)-1<<20])
	damaged := bytes.Clone(mf)
	damaged[4096] ^= 1
	badFooter := bytes.Clone(z)
	badFooter[len(badFooter)-4096+40] ^= 1
	pad := func(b []byte) []byte { return append(b, make([]byte, 1<<20-len(b))...) }
	files := map[string][]byte{
		"othersize.raw": disk, "othersize.mf": other,
		"damaged.raw": disk, "damaged.mf": damaged,
		"odd.raw": disk[:len(disk)-100], "odd.mf": []byte("unknown"),
		"cut.zvhd2":    z[:len(z)/2/4096*4096],
		"cutfoot.raw":  z[:len(z)-4096],
		"footer.zvhd2": badFooter,
		"qcow2.raw":    pad([]byte("QFI\xfb\x00\x00\x00\x03")), "qcow2.mf": mf,
		"vmdk.raw": pad([]byte("KDMV\x01\x00\x00\x00")), "vmdk.mf": mf,
		"vhdx.raw": pad([]byte("vhdxfile")), "vhdx.mf": mf,
		"gzip.raw": pad([]byte("\x1f\x8b\x08\x00")), "gzip.mf": mf,
	}
	for key, data := range files {
		s.PutFile(t, bucket, key, data)
	}
	sparse(t, s, "big.raw", 2*ims.GiB)
	s.PutFile(t, bucket, "big.mf", []byte("unknown"))
	tests := []struct {
		name, key string
		code      ims.Code
		reason    string
	}{
		{"bitmap of another size", "othersize.raw", ims.CodeFile, "othersize.mf"},
		{"damaged bitmap", "damaged.raw", ims.CodeFile, "damaged.mf"},
		{"size that is no disk's", "odd.raw", ims.CodeFile, "multiple of 512"},
		{"ZVHD2 cut off", "cut.zvhd2", ims.CodeFile, "incomplete"},
		{"ZVHD2 cut off before its footer, named raw", "cutfoot.raw", ims.CodeFile, "incomplete"},
		{"ZVHD2 with a damaged footer", "footer.zvhd2", ims.CodeFile, "checksum"},
		{"qcow2 named raw", "qcow2.raw", ims.CodeFile, "qcow2"},
		{"VMDK named raw", "vmdk.raw", ims.CodeFile, "vmdk"},
		{"VHDX named raw", "vhdx.raw", ims.CodeFile, "vhdx"},
		{"gzip named raw", "gzip.raw", ims.CodeFile, "gzip"},
		{"disk bigger than min_disk", "big.raw", ims.CodeDiskSize, "min_disk is 1 GiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := s.Do(t, "POST", harness.QuickImportPath, harness.Request("bad", bucket+":"+tt.key))
			var accepted struct {
				JobID string `json:"job_id"`
			}
			json.Unmarshal(a.Body, &accepted)
			if a.Status == 400 { // the missing bitmap of a cut ZVHD2 may be noticed at once
				t.Fatalf("refused at once: %s", a.Body)
			}
			job := s.Wait(t, accepted.JobID)
			if job.Status != "FAIL" || job.ErrorCode == nil || *job.ErrorCode != string(tt.code) ||
				!strings.Contains(*job.FailReason, tt.reason) || !strings.HasPrefix(*job.FailReason, tt.code.Message()) || job.EndTime == nil {
				t.Fatalf("job %+v (%v, %v), want FAIL %s naming %q", job, deref(job.ErrorCode), deref(job.FailReason), tt.code, tt.reason)
			}
			var image harness.Image
			s.Get(t, "/v2/images/"+job.Entities.ImageID, &image)
			if image.Status != "killed" {
				t.Errorf("the image is %s, want killed", image.Status)
			}
		})
	}
	t.Cleanup(func() { nothingLeft(t, s, 0) })
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Equal is enough: a disk of exactly min_disk fits.
func TestMinDiskEqualIsEnough(t *testing.T) {
	t.Parallel()
	s, _ := sourceServer(t, harness.Options{})
	sparse(t, s, "one.raw", ims.GiB)
	s.PutFile(t, bucket, "one.mf", []byte("of another tool"))
	s.Import(t, harness.Request("one", bucket+":one.raw"))
}

// Names do not matter, contents do: ZVHD2 under .raw, RAW under any ending, an
// unknown bitmap, a block map.
func TestContentDecides(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	s.PutFile(t, bucket, "z.raw", zvhd2Of(t, disk))
	s.PutFile(t, bucket, "deep/r.img", disk)
	s.PutFile(t, bucket, "deep/r.mf", bytes.Repeat([]byte("made elsewhere "), 1000))
	for _, key := range []string{"z.raw", "deep/r.img", "disk.raw", "disk.zvhd2"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			s.CheckBytes(t, s.Import(t, harness.Request("ok", bucket+":"+key)), disk)
		})
	}
}

func TestSourceChangedAfterPin(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, s *harness.Server, disk []byte){
		"replaced": func(t *testing.T, s *harness.Server, disk []byte) {
			s.PutFile(t, bucket, "disk.raw", append(disk[512:], disk[:512]...))
		},
		"written in place": func(t *testing.T, s *harness.Server, disk []byte) {
			f, err := os.OpenFile(filepath.Join(s.Dir, "buckets", bucket, "disk.raw"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("other bytes"), 4096); err != nil {
				t.Fatal(err)
			}
		},
		"truncated": func(t *testing.T, s *harness.Server, disk []byte) {
			if err := os.Truncate(filepath.Join(s.Dir, "buckets", bucket, "disk.raw"), 512); err != nil {
				t.Fatal(err)
			}
		},
		"deleted": func(t *testing.T, s *harness.Server, disk []byte) {
			if err := os.Remove(filepath.Join(s.Dir, "buckets", bucket, "disk.raw")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, disk := sourceServer(t, harness.Options{Faults: "inspect.done=stop"})
			job := s.Accept(t, harness.Request("changed", bucket+":disk.raw"))
			s.WaitStopped(t)
			change(t, s, bytes.Clone(disk))
			s.Continue(t)
			got := s.Wait(t, job)
			if got.Status != "FAIL" || deref(got.ErrorCode) != string(ims.CodeFile) || !strings.Contains(deref(got.FailReason), "source") {
				t.Errorf("job %s %s %q, want FAIL %s that speaks of the source", got.Status, deref(got.ErrorCode), deref(got.FailReason), ims.CodeFile)
			}
			nothingLeft(t, s, 0)
		})
	}
}

// After the import the source may go; what is written into it in place makes reads
// of the image fail, never lie.
func TestSourceAfterImport(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	s.PutFile(t, bucket, "plain.raw", disk)
	s.PutFile(t, bucket, "plain.mf", []byte("of another tool"))
	kept := s.Import(t, harness.Request("kept", bucket+":disk.zvhd2"))
	written := s.Import(t, harness.Request("written", bucket+":plain.raw"))
	if err := os.Remove(filepath.Join(s.Dir, "buckets", bucket, "disk.zvhd2")); err != nil {
		t.Fatal(err)
	}
	s.CheckBytes(t, kept, disk)
	s.CheckBytes(t, written, disk)
	f, err := os.OpenFile(filepath.Join(s.Dir, "buckets", bucket, "plain.raw"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("other bytes"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := s.Send("GET", "/v2/images/"+written+"/file", s.Token(t), nil)
	if err == nil && a.Status == 200 && !bytes.Equal(a.Body, disk) {
		t.Error("the image gives other bytes than were imported, with status 200")
	}
	if err == nil && a.Status == 200 && bytes.Equal(a.Body, disk) {
		return // a reflink: the image has its own bytes
	}
	s.CheckBytes(t, kept, disk)
}

func TestQuotaAndRunningImports(t *testing.T) {
	t.Parallel()
	s, _ := sourceServer(t, harness.Options{Config: "limits: {images: 2, imports: 10}\n"})
	request := harness.Request("quota", bucket+":disk.zvhd2")
	first := s.Import(t, request)
	s.Import(t, request)
	refused(t, s, request, ims.CodeQuota)
	if a := s.Do(t, "DELETE", "/v2/images/"+first, nil); a.Status != 204 {
		t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	s.Import(t, request)

	busy, _ := sourceServer(t, harness.Options{Config: "limits: {images: 100, imports: 1}\n", Faults: "adopt.begun=stop"})
	job := busy.Accept(t, request)
	busy.WaitStopped(t)
	busy.Kill(t)
	// The job is RUNNING and its worker is dead; the next one gives up and keeps the lease.
	busy.Restart(t, "job.claimed=error")
	refused(t, busy, request, ims.CodeTooManyJobs)
	busy.Kill(t)
	busy.Restart(t, "")
	if got := busy.Wait(t, job); got.Status != "SUCCESS" {
		t.Errorf("the first job is %s: %s", got.Status, deref(got.FailReason))
	}
	busy.Import(t, request)
}

func refused(t *testing.T, s *harness.Server, request any, want ims.Code) {
	t.Helper()
	a := s.Do(t, "POST", harness.QuickImportPath, request)
	if code, message, _ := a.Error(); a.Status != keystone.Status(want.Kind()) || code != string(want) || message != want.Message() {
		t.Errorf("status %d: %s; want %d %s", a.Status, a.Body, keystone.Status(want.Kind()), want)
	}
}

// cloudimages/action means the same import, with is_quick_import and without.
func TestCommonImport(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	top := harness.Request("top", bucket+":disk.raw")
	top["is_quick_import"] = true
	nested := map[string]any{"data_images": []any{map[string]any{
		"name": "nested", "image_url": bucket + ":disk.zvhd2", "min_disk": 1, "is_quick_import": true}}}
	for name, body := range map[string]any{"top": top, "nested": nested} {
		a := s.Do(t, "POST", "/v2/cloudimages/action", body)
		var accepted struct {
			JobID string `json:"job_id"`
		}
		if json.Unmarshal(a.Body, &accepted); a.Status != 200 {
			t.Fatalf("%s: %d %s", name, a.Status, a.Body)
		}
		job := s.Wait(t, accepted.JobID)
		if job.Status != "SUCCESS" {
			t.Fatalf("%s: %s", name, deref(job.FailReason))
		}
		s.CheckBytes(t, job.Entities.ImageID, disk)
	}
	without := maps.Clone(top)
	delete(without, "is_quick_import")
	delete(without, "os_version")
	var accepted struct {
		JobID string `json:"job_id"`
	}
	if a := s.Do(t, "POST", "/v2/cloudimages/action", without); a.Status != 200 || json.Unmarshal(a.Body, &accepted) != nil {
		t.Fatalf("without is_quick_import: %d %s", a.Status, a.Body)
	}
	job := s.Wait(t, accepted.JobID)
	if job.Status != "SUCCESS" {
		t.Fatalf("without is_quick_import: %s", deref(job.FailReason))
	}
	s.CheckBytes(t, job.Entities.ImageID, disk)
}
