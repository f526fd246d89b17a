package api_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/ims"
)

// diskBytes are bytes of which no two stretches are alike.
func diskBytes(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	return data
}

// withDisk is an active image with data.
func (c caller) withDisk(t testing.TB, data []byte, failAt int64, fault error) (path, id string) {
	t.Helper()
	job, id := c.accepted(t, systemDisk(nil))
	c.publish(t, job, id, int64(len(data)))
	c.disks.put(id, data, failAt, fault)
	return "/v2/images/" + id + "/file", id
}

func TestFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	const size = 3<<20 + 517
	data := diskBytes(size)
	path, _ := c.withDisk(t, data, -1, nil)

	a := c.send(t, "GET", path, "")
	if a.status != http.StatusOK || !bytes.Equal(a.body, data) {
		t.Fatalf("status %d, %d bytes, want %d", a.status, len(a.body), size)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/octet-stream" {
		t.Errorf("Content-Type %q", ct)
	}
	etag := a.header.Get("ETag")
	if len(etag) < 10 || a.header.Get("Accept-Ranges") != "bytes" || a.header.Get("Content-Length") != fmt.Sprint(size) {
		t.Errorf("header %v", a.header)
	}
	head := c.send(t, "HEAD", path, "")
	if head.status != http.StatusOK || len(head.body) != 0 || head.header.Get("Content-Length") != fmt.Sprint(size) || head.header.Get("ETag") != etag {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	head = c.send(t, "HEAD", path, "", "Range", "bytes=5-9")
	if head.status != http.StatusOK || head.header.Get("Content-Length") != fmt.Sprint(size) {
		t.Errorf("HEAD with a range: %d %v", head.status, head.header)
	}
	for _, tc := range []struct {
		asked    string
		from, to int // to is exclusive; from -1: the whole disk
	}{
		{"bytes=0-0", 0, 1}, {"bytes=0-511", 0, 512}, {"bytes=512-1023", 512, 1024}, {"bytes=1048575-1048576", 1<<20 - 1, 1<<20 + 1},
		{"bytes=-1", size - 1, size}, {"bytes=-517", size - 517, size}, {fmt.Sprintf("bytes=-%d", size+100), 0, size},
		{"bytes=3145728-", 3 << 20, size}, {"bytes=0-", 0, size}, {fmt.Sprintf("bytes=0-%d", size+5), 0, size},
		{"bytes=0-99999999999999999999", 0, size}, {"bytes=-99999999999999999999", 0, size}, {"Bytes=0-0", 0, 1}, {"bytes=00-01", 0, 2},
		// Several, another unit, malformed: not ranges, so the whole disk.
		{"bytes=0-1,5-6", -1, 0}, {"bytes=0-1,2-3,", -1, 0}, {"items=0-1", -1, 0}, {"lines=1-2", -1, 0}, {"bytes=a-b", -1, 0}, {"bytes=5-2", -1, 0},
		{"bytes=-", -1, 0}, {"bytes=", -1, 0}, {"bytes", -1, 0}, {"bytes=5", -1, 0}, {"bytes=+1-2", -1, 0}, {"bytes=--1", -1, 0}, {"bytes=0x1-2", -1, 0},
	} {
		a := c.send(t, "GET", path, "", "Range", tc.asked)
		want := data
		status := http.StatusOK
		if tc.from >= 0 {
			want, status = data[tc.from:tc.to], http.StatusPartialContent
			if r := a.header.Get("Content-Range"); r != fmt.Sprintf("bytes %d-%d/%d", tc.from, tc.to-1, size) {
				t.Errorf("%s: Content-Range %q", tc.asked, r)
			}
		}
		if a.status != status || !bytes.Equal(a.body, want) || a.header.Get("ETag") != etag {
			t.Errorf("%s: status %d, %d bytes, want %d with %d", tc.asked, a.status, len(a.body), status, len(want))
		}
	}
	for _, asked := range []string{fmt.Sprintf("bytes=%d-", size), "bytes=99999999999999-", "bytes=99999999999999999999-", "bytes=-0"} {
		a := c.send(t, "GET", path, "", "Range", asked)
		a.refused(t, http.StatusRequestedRangeNotSatisfiable, "IMG.0001")
		if a.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
			t.Errorf("%s: Content-Range %q", asked, a.header.Get("Content-Range"))
		}
	}
	if a := c.send(t, "GET", path, "", "If-None-Match", etag); a.status != http.StatusNotModified || len(a.body) != 0 {
		t.Errorf("If-None-Match: %d", a.status)
	}
	c.send(t, "GET", path, "", "If-Match", `"other"`).refused(t, http.StatusPreconditionFailed, "IMG.0001")
	if a := c.send(t, "GET", path, "", "If-Match", etag, "Range", "bytes=0-1"); a.status != http.StatusPartialContent {
		t.Errorf("If-Match: %d", a.status)
	}
	if a := c.send(t, "GET", path, "", "If-Range", `"other"`, "Range", "bytes=0-1"); a.status != http.StatusOK || len(a.body) != size {
		t.Errorf("If-Range of other bytes: %d", a.status)
	}
	// The ETag is the data's: it survives a change of the name, and is another image's never.
	id := strings.Split(path, "/")[3]
	c.expect(t, http.StatusOK, "PATCH", "/v2/cloudimages/"+id, `[{"op":"replace","path":"/name","value":"new"}]`)
	if got := c.send(t, "HEAD", path, "").header.Get("ETag"); got != etag {
		t.Errorf("after a rename the ETag is %s, it was %s", got, etag)
	}
	other, _ := c.withDisk(t, data, -1, nil)
	if got := c.send(t, "HEAD", other, "").header.Get("ETag"); got == etag {
		t.Error("two images have one ETag")
	}
	if n := w.disks.opened(); n != 0 {
		t.Errorf("%d disks were left open", n)
	}
}

// Holes are sent without a read, wherever a range begins and ends.
func TestFileHoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	const size, from, to = 7<<20 + 100, 2<<20 - 3, 5<<20 + 1000
	data := diskBytes(size)
	path, id := c.withDisk(t, data, -1, nil)
	data = bytes.Clone(data)
	clear(data[from:to])
	var reads atomic.Int32
	w.disks.punch(id, [2]int64{from, to}, &reads)
	for _, r := range [][2]int{{0, size}, {from, to}, {from + 1, to - 1}, {from - 1, to + 1}, {from, from + 1}, {to - 1, size}, {0, from}, {to, size}} {
		a := c.send(t, "GET", path, "", "Range", fmt.Sprintf("bytes=%d-%d", r[0], r[1]-1))
		if a.status != http.StatusPartialContent || !bytes.Equal(a.body, data[r[0]:r[1]]) {
			t.Errorf("bytes %d to %d: status %d, %d bytes", r[0], r[1], a.status, len(a.body))
		}
	}
	if n := reads.Load(); n != 0 {
		t.Errorf("a hole was read %d times", n)
	}
}

// A download that was cut goes on where it ended, with the bytes of the same disk.
func TestFileResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	const size, end = 5 << 20, 3<<20 + 7
	data := diskBytes(size)
	path, id := c.withDisk(t, data, end, errors.New("the store went away"))
	etag := c.send(t, "HEAD", path, "").header.Get("ETag")
	got, _, err := c.readAll(t, path, "")
	if err == nil || len(got) == 0 || len(got) >= size {
		t.Fatalf("%d bytes came of a disk that can't be read behind %d", len(got), end)
	}
	w.disks.put(id, data, -1, nil)
	a := c.send(t, "GET", path, "", "Range", fmt.Sprintf("bytes=%d-", len(got)), "If-Range", etag)
	if a.status != http.StatusPartialContent || !bytes.Equal(append(got, a.body...), data) {
		t.Errorf("the rest: status %d, %d bytes after %d", a.status, len(a.body), len(got))
	}
}

// TestFileFaults: a read that fails is a broken connection once bytes went out, an
// error before that, and never zeros or a short answer that looks whole.
func TestFileFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	data := diskBytes(4 << 20)
	for name, fault := range map[string]error{"an I/O error": errors.New("bad block on /secret/disk"), "an early end": io.EOF} {
		path, _ := c.withDisk(t, data, 2<<20+100, fault)
		for _, asked := range []string{"", "bytes=1-", "bytes=0-3145727", "bytes=-3145728"} {
			got, status, err := c.readAll(t, path, asked)
			if err == nil {
				t.Errorf("%s, %q: the answer ended well: %d, %d bytes", name, asked, status, len(got))
			}
			from := 0
			if asked == "bytes=1-" {
				from = 1
			} else if strings.HasPrefix(asked, "bytes=-") {
				from = 1 << 20
			}
			if !bytes.HasPrefix(data[from:], got) {
				t.Errorf("%s, %q: %d bytes are not the disk's", name, asked, len(got))
			}
		}
		// What lies before the fault can be read.
		if a := c.send(t, "GET", path, "", "Range", "bytes=0-1048575"); a.status != http.StatusPartialContent || !bytes.Equal(a.body, data[:1<<20]) {
			t.Errorf("%s: a range before it: %d", name, a.status)
		}
		// What can't be read at all is an error like any other.
		details := c.send(t, "GET", path, "", "Range", "bytes=3000000-").refused(t, http.StatusInternalServerError, "IMG.0061")
		if details != "" {
			t.Errorf("%s: details %q", name, details)
		}
	}
	gone, _ := c.withDisk(t, data, 0, ims.Faultf(ims.CodeInternal, "the object store does not answer").WithKind(ims.KindUnavailable))
	a := c.send(t, "GET", gone, "")
	a.refused(t, http.StatusServiceUnavailable, "IMG.0061")
	for _, name := range []string{"ETag", "Accept-Ranges", "Last-Modified", "Content-Range"} {
		if a.header.Get(name) != "" {
			t.Errorf("the error carries %s", name)
		}
	}
	job, id := c.accepted(t, systemDisk(nil))
	c.publish(t, job, id, 4096)
	c.refused(t, http.StatusInternalServerError, "IMG.0061", "GET", "/v2/images/"+id+"/file", "")
	if n := w.disks.opened(); n != 0 {
		t.Errorf("%d disks were left open", n)
	}
	if !strings.Contains(w.logs.text(), "bad block") {
		t.Error("the log does not say why")
	}
}

// TestFileDamaged: the client reads that the data is no longer what was imported, and
// nothing of where it lies.
func TestFileDamaged(t *testing.T) {
	t.Parallel()
	changed := errors.New("object changed")
	w := newWorld(t, func(c *api.Config) { c.Damaged = func(err error) bool { return errors.Is(err, changed) } })
	c := w.newProject(t)
	path, _ := c.withDisk(t, diskBytes(4096), 0, fmt.Errorf("read /secret/disk: %w", changed))
	details := c.refused(t, http.StatusInternalServerError, "IMG.0061", "GET", path, "")
	if !strings.Contains(details, "data was changed") || strings.Contains(details, "secret") {
		t.Errorf("details %q", details)
	}
	if !strings.Contains(w.logs.text(), "/secret/disk") {
		t.Error("the log does not say why")
	}
}

// TestDeletedWhileRead: the reader's connection breaks, which is a warning and no
// failed request; where nothing was sent yet the image is as unknown as it is now.
func TestDeletedWhileRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	data := diskBytes(4 << 20)
	for _, failAt := range []int64{2 << 20, 0} {
		path, id := c.withDisk(t, data, failAt, errors.New("object not found"))
		w.disks.hold(id, func() { c.delete(t, id) })
		requestID := fmt.Sprintf("read-%d", failAt)
		req, err := http.NewRequestWithContext(t.Context(), "GET", c.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", c.token)
		req.Header.Set("X-Request-Id", requestID)
		resp, err := c.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if failAt == 0 {
			(answer{status: resp.StatusCode, header: resp.Header, body: got}).refused(t, http.StatusNotFound, "IMG.0027")
		} else if err == nil || !bytes.HasPrefix(data, got) {
			t.Errorf("%d bytes, and the answer ended well: %v", len(got), err)
		}
		var levels []string
		for _, line := range waitForLog(t, w, requestID) {
			levels = append(levels, fmt.Sprint(line["level"], " ", line["msg"], " ", line["status"], " ", line["aborted"]))
		}
		want := "WARN answer broken off <nil> <nil>,INFO request 200 true"
		if failAt == 0 {
			want = "INFO request 404 <nil>"
		}
		if got := strings.Join(levels, ","); got != want {
			t.Errorf("the log says %s, want %s", got, want)
		}
	}
}

// delete deletes an image, in the middle of another request.
func (c caller) delete(t testing.TB, id string) {
	if err := c.catalog.DeleteImage(t.Context(), c.project, id, false); err != nil {
		t.Error(err)
	}
}

// readAll reads a file as a client does that wants to know how it ended.
func (c caller) readAll(t testing.TB, path, asked string) ([]byte, int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", c.token)
	if asked != "" {
		req.Header.Set("Range", asked)
	}
	resp, err := c.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return got, resp.StatusCode, err
}

// TestTooManyStreams: more readers than allowed are told to come back.
func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) { c.MaxStreams = 1 })
	c := w.newProject(t)
	path, id := c.withDisk(t, diskBytes(1<<20), -1, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	w.disks.hold(id, func() { close(reached); <-release })
	done := make(chan answer, 1)
	go func() {
		got, status, _ := c.readAll(t, path, "")
		done <- answer{status: status, body: got}
	}()
	<-reached
	a := c.send(t, "GET", path, "")
	a.refused(t, http.StatusServiceUnavailable, "IMG.0061")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(release)
	if a := <-done; a.status != http.StatusOK || len(a.body) != 1<<20 {
		t.Errorf("the first reader: %d, %d bytes", a.status, len(a.body))
	}
	if a := c.send(t, "GET", path, ""); a.status != http.StatusOK {
		t.Errorf("afterwards: %d", a.status)
	}
}

// TestReaderHangsUp: the disk is closed, and nothing is logged as a fault.
func TestReaderHangsUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	path, _ := c.withDisk(t, diskBytes(64<<20), -1, nil)
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("X-Request-Id", "hangs-up")
	resp, err := (&http.Client{Transport: &http.Transport{}, Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, resp.Body, 1000)
	resp.Body.Close()
	for _, line := range waitForLog(t, w, "hangs-up") {
		if line["level"] == "ERROR" {
			t.Errorf("logged as a fault: %v", line)
		}
	}
	if n := w.disks.opened(); n != 0 {
		t.Errorf("%d disks were left open", n)
	}
}

// TestFileOfASavingImage is read from its source. A download that was begun then is gone
// on with after the publication.
func TestFileOfASavingImage(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	_, queued := c.accepted(t, systemDisk(nil))
	c.refused(t, http.StatusBadRequest, "IMG.0046", "GET", "/v2/images/"+queued+"/file", "")
	job, image := c.saving(t, systemDisk(nil))
	data := bytes.Repeat([]byte("0123456789abcdef"), 256)
	c.disks.put(image, data, -1, nil)
	path := "/v2/images/" + image + "/file"
	first := c.send(t, "GET", path, "", "Range", "bytes=0-99")
	if first.status != http.StatusPartialContent || !bytes.Equal(first.body, data[:100]) {
		t.Fatalf("while it is saving: %d, %d bytes", first.status, len(first.body))
	}
	if err := c.catalog.Publish(t.Context(), job, ims.Data{Key: image + "/1/disk", ETag: "e", Format: "zvhd2", Size: 2048, VirtualSize: 4096}); err != nil {
		t.Fatal(err)
	}
	rest := c.send(t, "GET", path, "", "Range", "bytes=100-", "If-Range", first.header.Get("ETag"))
	if rest.status != http.StatusPartialContent || !bytes.Equal(rest.body, data[100:]) {
		t.Errorf("the rest of it after the publication: %d, %d bytes", rest.status, len(rest.body))
	}
}

// TestSourceOfASavingImageChanges: the answer says so, and what became of the image.
func TestSourceOfASavingImageChanges(t *testing.T) {
	t.Parallel()
	changed := errors.New("changed")
	w := newWorld(t, func(c *api.Config) { c.Damaged = func(err error) bool { return errors.Is(err, changed) } })
	c := w.newProject(t)
	job, image := c.saving(t, systemDisk(nil))
	c.disks.put(image, make([]byte, 4096), 0, changed)
	path := "/v2/images/" + image + "/file"
	if details := c.refused(t, http.StatusInternalServerError, "IMG.0061", "GET", path, ""); !strings.Contains(details, "import it again") {
		t.Errorf("details %q", details)
	}
	if err := c.catalog.Fail(t.Context(), job, ims.CodeFile, "the source changed"); err != nil {
		t.Fatal(err)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0046", "GET", path, "")
}
