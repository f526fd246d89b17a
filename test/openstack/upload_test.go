// Package openstack has the clients of OpenStack judge the service, and holds what uploads
// promise against a real server: its store, its database, its clean-up.
package openstack

import (
	"bytes"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestUploadComesBack: bytes of every length come back as they were sent, with their
// sums; so do those that were staged and imported.
func TestUploadComesBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, opts harness.Options) {
		s := server{harness.Start(t, opts)}
		disk := harness.Disk(7, 5)
		for i, data := range [][]byte{nil, {1}, disk[:511], disk[:513], disk, disk[:len(disk)-7]} {
			for _, way := range []string{"file", "stage"} {
				id := s.create(t, `{"name":"u","disk_format":"raw","container_format":"bare"}`)
				if a := s.put(t, images+"/"+id+"/"+way, bytes.NewReader(data)); a.Status != http.StatusNoContent {
					t.Fatalf("%d bytes by %s: %s", len(data), way, describe(a))
				}
				if way == "stage" {
					if img := s.show(t, id); img.Status != "uploading" || img.Size != nil {
						t.Errorf("staged: %+v", img)
					}
					for _, path := range []string{"/file", "/stage"} { // it is no longer queued
						if a := s.put(t, images+"/"+id+path, bytes.NewReader(data)); a.Status != http.StatusConflict {
							t.Errorf("PUT %s of a staged image: %s", path, describe(a))
						}
					}
					if a := s.Do(t, "POST", images+"/"+id+"/import", `{"method":{"name":"glance-direct"}}`); a.Status != http.StatusAccepted || len(a.Body) != 0 {
						t.Fatalf("import: %s", describe(a))
					}
				}
				short, long := md5.Sum(data), sha512.Sum512(data)
				img := s.show(t, id)
				if img.Status != "active" || img.Size == nil || *img.Size != int64(len(data)) || img.Checksum == nil || *img.Checksum != hex.EncodeToString(short[:]) ||
					img.HashValue == nil || *img.HashValue != hex.EncodeToString(long[:]) {
					t.Errorf("%d bytes by %s: %+v", len(data), way, img)
				}
				a := s.Do(t, "GET", images+"/"+id+"/file", nil)
				if a.Status != http.StatusOK || !bytes.Equal(a.Body, data) || a.Header.Get("Content-Md5") != hex.EncodeToString(short[:]) ||
					a.Header.Get("Content-Type") != "application/octet-stream" || a.Header.Get("Content-Length") != fmt.Sprint(len(data)) {
					t.Errorf("download %d of %d bytes: %d, %d bytes, %v", i, len(data), a.Status, len(a.Body), a.Header)
				}
				if a := s.put(t, images+"/"+id+"/file", bytes.NewReader(data)); a.Status != http.StatusConflict {
					t.Errorf("a second upload: %s", describe(a))
				}
				if a := s.Do(t, "DELETE", images+"/"+id, nil); a.Status != http.StatusNoContent {
					t.Errorf("delete: %s", describe(a))
				}
			}
		}
		s.noBytes(t)
	})
}

// TestUploadRefused: what is no RAW disk, or is not said to be one, leaves the image
// queued and no bytes, and the answer says what is wrong.
func TestUploadRefused(t *testing.T) {
	t.Parallel()
	s := server{harness.Start(t, harness.Options{})}
	qcow2 := t.TempDir() + "/disk.qcow2"
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", qcow2, "16M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v %s", err, out)
	}
	content, err := exec.Command("cat", qcow2).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		image  string
		body   io.Reader
		status int
		says   string
	}{
		{`{"disk_format":"raw","container_format":"bare"}`, bytes.NewReader(content), http.StatusUnsupportedMediaType, "qcow2"},
		{`{"disk_format":"qcow2","container_format":"bare"}`, bytes.NewReader(content), http.StatusUnsupportedMediaType, "qcow2"},
		{`{"disk_format":"raw"}`, strings.NewReader("x"), http.StatusBadRequest, "container_format"},
		{`{"container_format":"bare"}`, strings.NewReader("x"), http.StatusBadRequest, "disk_format"},
	} {
		id := s.create(t, c.image)
		a := s.put(t, images+"/"+id+"/file", c.body)
		_, message, _ := a.Error()
		if a.Status != c.status || !strings.Contains(message, c.says) {
			t.Errorf("%s: %s", c.image, describe(a))
		}
		if img := s.show(t, id); img.Status != "queued" {
			t.Errorf("%s: the image is %s", c.image, img.Status)
		}
	}
	if a := s.Do(t, "PUT", images+"/"+s.create(t, `{"disk_format":"raw","container_format":"bare"}`)+"/file", `{}`); a.Status != http.StatusUnsupportedMediaType {
		t.Errorf("a body of JSON: %s", describe(a))
	}
	s.noBytes(t)
}

// breaks gives some bytes and then an error.
type breaks struct{ left int }

var errBroken = errors.New("the test breaks the upload off")

func (b *breaks) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errBroken
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, nil
}

// TestCutUpload: an upload that the client breaks off, announced or not, leaves the image
// queued and no bytes, and the next one works.
func TestCutUpload(t *testing.T) {
	t.Parallel()
	s := server{harness.Start(t, harness.Options{})}
	id := s.create(t, `{"disk_format":"raw","container_format":"bare"}`)
	failed := 0
	queuedAgain := func() {
		t.Helper()
		failed++
		harness.Eventually(t, "the upload has failed", func() bool {
			var list struct{ Tasks []struct{} }
			s.Get(t, "/image/v2/tasks?status=failure", &list)
			return len(list.Tasks) == failed
		})
		if img := s.show(t, id); img.Status != "queued" {
			t.Errorf("the image is %s", img.Status)
		}
	}
	for _, n := range []int{100_000, 3 << 20} {
		if a, err := s.tryPut(t, images+"/"+id+"/file", &breaks{n}); err == nil && a.Status != http.StatusBadRequest {
			t.Errorf("cut after %d bytes: %s", n, describe(a))
		}
		queuedAgain()
	}
	// With a length that is not reached.
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.API, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PUT %s/%s/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: 5000000\r\n\r\n%s",
		images, id, s.Token(t), strings.Repeat("x", 100_000))
	harness.Eventually(t, "the upload has begun", func() bool { return s.show(t, id).Status == "saving" })
	conn.Close()
	queuedAgain()
	s.noBytes(t)
	if a := s.put(t, images+"/"+id+"/file", strings.NewReader("whole")); a.Status != http.StatusNoContent {
		t.Errorf("the next upload: %s", describe(a))
	}
	if a := s.Do(t, "GET", images+"/"+id+"/file", nil); string(a.Body) != "whole" {
		t.Errorf("%s", describe(a))
	}
}

// TestKilledUpload: a server that dies in the middle of an upload, or when all bytes are
// there, finds the image queued again and removes the bytes.
func TestKilledUpload(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"adopt.data", "adopt.done"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := server{harness.Start(t, harness.Options{Faults: point + "=kill"})}
			id := s.create(t, `{"disk_format":"raw","container_format":"bare"}`)
			if a, err := s.tryPut(t, images+"/"+id+"/file", bytes.NewReader(harness.Disk(1, 2))); err == nil {
				t.Fatalf("answered %s", describe(a))
			}
			s.Ended(t)
			if len(s.imageFiles(t)) == 0 {
				t.Fatal("no bytes were there: the point is too early")
			}
			s.Restart(t, "")
			harness.Eventually(t, "the image is queued again", func() bool { return s.show(t, id).Status == "queued" })
			s.noBytes(t)
			if a := s.put(t, images+"/"+id+"/file", strings.NewReader("again")); a.Status != http.StatusNoContent {
				t.Errorf("the next upload: %s", describe(a))
			}
		})
	}
}

// TestUploadBeyondTheQuota: what a project may not store is refused with 413, whether
// the length was announced or not.
func TestUploadBeyondTheQuota(t *testing.T) {
	t.Parallel()
	s := server{harness.Start(t, harness.Options{Config: "limits: { bytes: 1MiB }\n"})}
	for _, known := range []bool{true, false} {
		id := s.create(t, `{"disk_format":"raw","container_format":"bare"}`)
		req, err := http.NewRequestWithContext(t.Context(), "PUT", s.API+images+"/"+id+"/file", bytes.NewReader(make([]byte, 2<<20)))
		if err != nil {
			t.Fatal(err)
		}
		if !known {
			req.Body, req.ContentLength = io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, 2<<20)))), -1
		}
		req.Header.Set("X-Auth-Token", s.Token(t))
		req.Header.Set("Content-Type", "application/octet-stream")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), "IMG.0015") {
			t.Errorf("length known %v: %d %s", known, res.StatusCode, body)
		}
		if img := s.show(t, id); img.Status != "queued" {
			t.Errorf("the image is %s", img.Status)
		}
	}
	s.noBytes(t)
	if a := s.put(t, images+"/"+s.create(t, `{"disk_format":"raw","container_format":"bare"}`)+"/file", strings.NewReader("fits")); a.Status != http.StatusNoContent {
		t.Errorf("what fits: %s", describe(a))
	}
}
