package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

const (
	// streamChunk is how much of a disk is read and sent at a time, in bytes.
	streamChunk = 1 << 20
	// chunkTimeout bounds reading and sending one chunk: a slower client is cut off.
	chunkTimeout = 2 * time.Minute
)

var chunks = sync.Pool{New: func() any { b := make([]byte, streamChunk); return &b }}

// imageFile is GET and HEAD /v2/images/{image_id}/file: the disk's bytes, whole or by
// ranges. A read that fails breaks the connection; it never becomes zeros or an end
// that looks like the disk's.
func (s *server) imageFile(c *call) error {
	img, err := s.image(c)
	if err != nil {
		return err
	}
	if img.Status != ims.ImageActive {
		return ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active one has data to read", img.Status)
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return unavailable("too many disks are read at once; try again")
	}
	disk, err := s.Disks.OpenDisk(c.Context(), img)
	if err != nil {
		return fmt.Errorf("open the disk of image %s: %w", img.ID, err)
	}
	defer disk.Close()

	// Several ranges at once would be read by a goroutine that outlives the answer.
	// The whole disk is a right answer to them.
	if strings.Contains(c.Header.Get("Range"), ",") {
		c.Header.Del("Range")
	}
	// The server's deadlines are those of short answers.
	rc := http.NewResponseController(c.w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("lift the read deadline: %w", err)
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Etag", diskETag(img))
	h.Set("Cache-Control", "private, no-cache")
	w := &streamWriter{ResponseWriter: c.w, deadline: func() { rc.SetWriteDeadline(time.Now().Add(chunkTimeout)) }}
	w.deadline() // for reading the first chunk
	source := &wholeReader{disk: disk}
	http.ServeContent(w, c.Request, "", img.ActiveAt, io.NewSectionReader(source, 0, disk.Size()))
	return w.finish(source.fault)
}

// diskETag names the bytes: an image's data never changes once it is active.
func diskETag(img ims.Image) string {
	sum := sha256.Sum256([]byte(img.ID + "\x00" + img.Data.Key + "\x00" + img.Data.ETag))
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// wholeReader keeps the first read that failed. An end before the disk's size is a
// failure too.
type wholeReader struct {
	disk  Disk
	fault error
}

// ReadAt is called by one goroutine at a time.
func (r *wholeReader) ReadAt(p []byte, off int64) (int, error) {
	if r.fault != nil {
		return 0, r.fault
	}
	n, err := r.disk.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	r.fault = fmt.Errorf("read %d bytes at %d of the disk: %w", len(p), off, err)
	return n, r.fault
}

// streamWriter holds the header back until the first byte of the disk is there, so
// that a disk that can't be read at all is an error and not a broken answer.
type streamWriter struct {
	http.ResponseWriter
	deadline func()
	status   int  // held back, 0: none was set
	sent     bool // the header went out
}

func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *streamWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// refused reports whether the range or the condition was refused: the text that
// goes with it is replaced by an error of our form.
func (w *streamWriter) refused() bool { return w.status >= http.StatusBadRequest }

func (w *streamWriter) send() {
	if w.sent {
		return
	}
	w.sent = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.deadline()
	w.ResponseWriter.WriteHeader(w.status)
}

func (w *streamWriter) Write(p []byte) (int, error) {
	if w.refused() {
		return len(p), nil
	}
	w.send()
	w.deadline()
	return w.ResponseWriter.Write(p)
}

// ReadFrom copies in chunks that suit a disk.
func (w *streamWriter) ReadFrom(src io.Reader) (total int64, err error) {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	for {
		n, err := io.ReadFull(src, *buf)
		end := err == io.EOF || err == io.ErrUnexpectedEOF // ReadFull's own words
		if err != nil && !end {
			return total, err
		}
		if n > 0 {
			m, err := w.Write((*buf)[:n])
			total += int64(m)
			if err != nil {
				return total, err
			}
		}
		if end {
			return total, nil
		}
	}
}

// finish ends the answer: with the header when nothing else went out, with an error
// when nothing could be read, with a broken connection when a read failed in the
// middle.
func (w *streamWriter) finish(fault error) error {
	switch {
	case fault != nil && w.sent:
		return fmt.Errorf("send a disk: %w", fault) // half an answer is out: the connection breaks
	case fault != nil:
		w.clear()
		return fmt.Errorf("send a disk: %w", fault)
	case w.refused():
		size := w.Header().Get("Content-Range") // "bytes */SIZE" says what would be in range
		w.clear()
		e := ims.Faultf(ims.CodeBadFormat, "the condition of the request does not hold")
		if w.status == http.StatusRequestedRangeNotSatisfiable {
			e = ims.Faultf(ims.CodeBadFormat, "the disk has no byte in the range asked for")
			w.Header().Set("Content-Range", size)
		}
		e.HTTPStatus = w.status
		return e
	}
	w.send()
	return nil
}

// clear takes back the header of an answer that is not given.
func (w *streamWriter) clear() {
	for _, name := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified", "Content-Type"} {
		w.Header().Del(name)
	}
}
