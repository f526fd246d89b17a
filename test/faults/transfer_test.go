package faults

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/test/harness"
)

// TestCopyAndExport: over the API of a running service, a copy and an export, imported
// again, have the bytes of their image, also after a kill and when the image is gone.
func TestCopyAndExport(t *testing.T) {
	t.Parallel()
	s, disk := sourceServer(t, harness.Options{})
	image := s.Import(t, harness.Request("one", bucket+":disk.raw"))
	job := func(path string, body any) harness.Job {
		t.Helper()
		j := s.Wait(t, accepted(t, s, path, body))
		if j.Status != "SUCCESS" {
			t.Fatalf("%s: %s", path, deref(j.FailReason))
		}
		return j
	}
	copied := job("/v1/cloudimages/"+image+"/copy", map[string]any{"name": "two"}).Entities.ImageID
	job("/v1/cloudimages/"+image+"/file", map[string]any{"bucket_url": bucket + ":out/three.raw", "is_quick_export": true})
	again := s.Import(t, harness.Request("three", bucket+":out/three.raw"))
	s.Kill(t)
	s.Restart(t, "")
	for _, id := range []string{image, copied, again} {
		s.CheckBytes(t, id, disk)
	}
	if a := s.Do(t, "DELETE", "/v2/images/"+image, nil); a.Status != 204 {
		t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	for _, id := range []string{copied, again} {
		s.CheckBytes(t, id, disk)
	}
}

// accepted sends a request for a job and returns the job's id.
func accepted(t *testing.T, s *harness.Server, path string, body any) string {
	t.Helper()
	var doc struct {
		JobID string `json:"job_id"`
	}
	if a := s.Do(t, "POST", path, body); a.Status != 200 || json.Unmarshal(a.Body, &doc) != nil || doc.JobID == "" {
		t.Fatalf("%s: %d %s", path, a.Status, a.Body)
	}
	return doc.JobID
}

// exportStore is a service and an outside client's way to its bucket.
type exportStore struct {
	*harness.Server
	put func(key string, data []byte)
	// exported are the objects below out/.
	exported func() map[string][]byte
}

// exportStores runs f at each point with the directory store and with an S3 store.
func exportStores(t *testing.T, points []string, f func(t *testing.T, s exportStore, point string)) {
	for _, point := range points {
		t.Run(point+"/directory", func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, harness.Options{})
			out := filepath.Join(s.Dir, "buckets", bucket, "out")
			f(t, exportStore{s, func(key string, data []byte) { s.PutFile(t, bucket, key, data) }, func() map[string][]byte {
				all := map[string][]byte{}
				for _, name := range harness.Files(t, out) {
					data, err := os.ReadFile(filepath.Join(out, name))
					if err != nil {
						t.Fatal(err)
					}
					all[name] = data
				}
				return all
			}}, point)
		})
		t.Run(point+"/s3", func(t *testing.T) {
			t.Parallel()
			s := newS3Store(t, "", inParts...)
			f(t, exportStore{s.Server, func(key string, data []byte) { s.upload(t, bucket, key, data) }, func() map[string][]byte {
				all := map[string][]byte{}
				for o := range s.client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: "out/"}) {
					if o.Err != nil {
						t.Fatal(o.Err)
					}
					body, err := s.client.GetObject(t.Context(), bucket, o.Key, minio.GetObjectOptions{})
					if err == nil {
						all[strings.TrimPrefix(o.Key, "out/")], err = io.ReadAll(body)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				for u := range s.client.ListIncompleteUploads(t.Context(), bucket, "out/", true) {
					all[u.Key+" in parts"] = nil
				}
				return all
			}}, point)
		})
	}
}

const quickExport = `{"bucket_url":"` + bucket + `:out/x.raw","is_quick_export":true}`

// killed imports a disk and exports it in a service that is killed at a point. between,
// if not nil, is called when the bitmap is there and the disk is not.
func (s exportStore) killed(t *testing.T, disk []byte, point, export string, between func()) {
	t.Helper()
	s.put("disk.raw", disk)
	s.put("disk.mf", mfOf(t, disk))
	image := s.Import(t, harness.Request("exported", bucket+":disk.raw"))
	s.Stop(t)
	faults := point + "=kill"
	if between != nil {
		faults += "," + faultpoint.ExportBitmap + "=stop"
	}
	s.Restart(t, faults)
	token, asked := s.Token(t), make(chan struct{})
	go func() {
		defer close(asked)
		// The answer may come or not.
		_, _ = s.Send("POST", "/v1/cloudimages/"+image+"/file", token, []byte(export))
	}()
	if between != nil {
		s.WaitStopped(t)
		between()
		s.Continue(t)
	}
	s.Ended(t)
	<-asked
}

// ended waits for the end of the one export.
func (s exportStore) ended(t *testing.T) harness.Job {
	t.Helper()
	var list struct{ Jobs []harness.Job }
	s.Get(t, "/v1/"+harness.ProjectID+"/jobs", &list)
	list.Jobs = slices.DeleteFunc(list.Jobs, func(j harness.Job) bool { return j.JobType != string(ims.JobExport) })
	if len(list.Jobs) != 1 {
		t.Fatalf("the exports %+v", list.Jobs)
	}
	return s.Wait(t, list.Jobs[0].JobID)
}

// want compares the objects below out/.
func (s exportStore) want(t *testing.T, want map[string][]byte) {
	t.Helper()
	got := s.exported()
	if !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("below out/ are %q with other names or bytes than %q", slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want)))
	}
}

// TestKillWhileAnImageIsExported: the export goes on to its end, once.
func TestKillWhileAnImageIsExported(t *testing.T) {
	t.Parallel()
	exportStores(t, faultpoint.Export, func(t *testing.T, s exportStore, point string) {
		disk := harness.Disk(21, 8)
		mf := mfOf(t, disk)
		s.killed(t, disk, point, quickExport, nil)
		switch point {
		case faultpoint.ExportMarked:
			s.want(t, nil)
		case faultpoint.ExportBitmap:
			s.want(t, map[string][]byte{"x.mf": mf})
		}
		s.Restart(t, "")
		if job := s.ended(t); job.Status != "SUCCESS" {
			t.Errorf("the export failed: %s", deref(job.FailReason))
		}
		s.want(t, map[string][]byte{"x.mf": mf, "x.raw": disk})
		s.CheckBytes(t, s.Import(t, harness.Request("again", bucket+":out/x.raw")), disk)
	})
}

// TestKillWhileAnExportFails: of an export that fails nothing is left in the bucket, and
// what another one wrote there is as it was.
func TestKillWhileAnExportFails(t *testing.T) {
	t.Parallel()
	exportStores(t, faultpoint.ExportFailure, func(t *testing.T, s exportStore, point string) {
		disk := harness.Disk(22, 8)
		s.killed(t, disk, point, quickExport, func() {
			s.put("out/x.raw", []byte("mine"))
			s.want(t, map[string][]byte{"x.mf": mfOf(t, disk), "x.raw": []byte("mine")})
		})
		s.Restart(t, "")
		if job := s.ended(t); job.Status != "FAIL" || deref(job.ErrorCode) != string(ims.CodeFileExists) {
			t.Errorf("the export ended as %s: %s", job.Status, deref(job.FailReason))
		}
		s.want(t, map[string][]byte{"x.raw": []byte("mine")})
		images := s.Images(t, "?status=active")
		if len(images) != 1 {
			t.Fatalf("the images %+v", images)
		}
		s.CheckBytes(t, images[0].ID, disk)
	})
}

// TestKillWhileAnImageIsConverted: an export that converts goes on from the front, and
// what it and others make is what qemu-img reads as the disk.
func TestKillWhileAnImageIsConverted(t *testing.T) {
	t.Parallel()
	exportStores(t, faultpoint.ExportConversion, func(t *testing.T, s exportStore, point string) {
		disk := harness.Disk(23, 40)
		s.killed(t, disk, point, `{"bucket_url":"`+bucket+`:out/x.qcow2","file_format":"qcow2"}`, nil)
		if point != faultpoint.ExportDone {
			for name := range s.exported() {
				if !strings.HasSuffix(name, " in parts") {
					t.Errorf("%s is there before it is whole", name)
				}
			}
		}
		s.Restart(t, "")
		if job := s.ended(t); job.Status != "SUCCESS" {
			t.Fatalf("the export failed: %s", deref(job.FailReason))
		}
		image := s.Images(t, "?status=active")[0].ID
		for _, format := range []string{"vhd", "vmdk", "zvhd"} {
			body := map[string]any{"bucket_url": bucket + ":out/x." + format, "file_format": format}
			if job := s.Wait(t, accepted(t, s.Server, "/v1/cloudimages/"+image+"/file", body)); job.Status != "SUCCESS" {
				t.Fatalf("%s: %s", format, deref(job.FailReason))
			}
		}
		dir, made := t.TempDir(), s.exported()
		if len(made) != 4 {
			t.Errorf("below out/ are %q", slices.Collect(maps.Keys(made)))
		}
		for name, data := range made {
			file, raw := filepath.Join(dir, name), filepath.Join(dir, name+".raw")
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			format := strings.TrimPrefix(filepath.Ext(name), ".")
			cmd := exec.Command("qemu-img", "convert", "-f", format, "-O", "raw", file, raw)
			switch format {
			case "vhd":
				cmd = exec.Command("qemu-img", "convert", "-f", "vpc", "-O", "raw", file, raw)
			case "zvhd": // qemu knows none
				cmd = exec.Command(harness.Binary(t), "convert", "-O", "raw", file, raw)
			case "qcow2":
				if out, err := exec.Command("qemu-img", "check", "-f", "qcow2", file).CombinedOutput(); err != nil {
					t.Errorf("qemu-img check: %v: %s", err, out)
				}
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
				continue
			}
			if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, disk) {
				t.Errorf("%s is another disk (%v)", name, err)
			}
		}
	})
}
