package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

const (
	// streamChunk is how much of a disk is read and sent at a time, in bytes.
	streamChunk = 1 << 20
	// chunkTimeout bounds reading and sending one chunk: a slower client is cut off.
	chunkTimeout = 30 * time.Second
	// rightEvery is how often it is asked whether the reader still may read the image.
	rightEvery = time.Second
)

var chunks = sync.Pool{New: func() any { b := make([]byte, streamChunk); return &b }}

// imageFile is GET and HEAD /v2/images/{image_id}/file: the disk's bytes, whole or by
// ranges. A read that fails breaks the connection; it never becomes zeros or an end
// that looks like the disk's.
func (s *server) imageFile(c *call) error {
	img, member, err := s.visibleImage(c)
	if err != nil {
		return err
	}
	if err := catalog.MayRead(member); err != nil {
		return err
	}
	if c.face == faceGlance && (img.Status == ims.ImageQueued || img.Status == ims.ImageUploading) {
		c.w.WriteHeader(http.StatusNoContent) // as the Image API says that there is no data
		return nil
	}
	if err := c.mayRead(img); err != nil {
		return err
	}
	leave := s.streams.enter(c.project())
	if leave == nil {
		return unavailable(fmt.Sprintf("too many disks are read at once (at most %d, %d by one project); try again", s.streams.max, s.streams.share()))
	}
	defer leave()
	reading, stop := context.WithCancel(c.Context())
	defer stop()
	disk, err := s.Disks.OpenDisk(reading, img)
	if err != nil {
		return s.diskFault(c, img, fmt.Errorf("open the disk of image %s: %w", img.ID, err))
	}
	defer disk.Close()

	r := ""
	if c.Method == http.MethodGet { // no other method has ranges (RFC 9110, section 14.2)
		r = byteRange(c.Header.Values("Range"), disk.Size())
	}
	if r != "" {
		c.Header.Set("Range", r)
	} else {
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
	if img.MD5 != "" {
		h.Set("Content-Md5", img.MD5) // as the Image API has it: hex
	}
	right := s.watchRight(reading, rightEvery, func(ctx context.Context) error { return s.stillReadable(ctx, c, img) },
		func() { stop(); rc.SetWriteDeadline(time.Now()) }) // ends reads and writes that hang
	defer right.stop()
	w := &streamWriter{ResponseWriter: c.w, deadline: func() { right.unless(func() { rc.SetWriteDeadline(time.Now().Add(chunkTimeout)) }) }}
	w.deadline() // for reading the first chunk
	source := &wholeReader{disk: disk, size: disk.Size(), mayRead: right.lost}
	http.ServeContent(w, c.Request, "", img.ActiveAt, source)
	right.stop()
	if lost := right.lost(); lost != nil {
		source.fault = lost
	}
	if source.fault != nil {
		source.fault = s.diskFault(c, img, source.fault)
	}
	return w.finish(source.fault)
}

// mayRead is the fault of reading an image in its state.
func (c *call) mayRead(img ims.Image) error {
	switch {
	case img.ReadableBy(c.principal.IsAdmin() && img.ProjectID == c.project()):
		return nil
	case img.Status == ims.ImageDeactivated:
		return ims.Faultf(ims.CodeNotAllowed, "the image is deactivated: only an admin of its project may read it").WithKind(ims.KindForbidden)
	}
	return ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active or a saving one has data to read", img.Status)
}

// stillReadable is the fault of going on with an image that was deleted or deactivated, or that the
// reader may no longer read: the image is no longer shared with its project, or its own
// access has ended. A database that does not answer ends no download.
func (s *server) stillReadable(ctx context.Context, c *call, img ims.Image) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	now, err := s.Auth.Holds(ctx, c.principal)
	switch {
	case ims.CodeOf(err) != "":
		return err
	case err == nil && !now.May(ims.ActionImagesGet):
		return forbidden(ims.ActionImagesGet)
	}
	seen, member, err := s.Catalog.VisibleImage(ctx, c.project(), img.ID)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		return unknownImage().Cause(errors.New("the image was deleted, or is no longer shared with the reader"))
	case err != nil:
		return nil
	case seen.Status == ims.ImageDeactivated:
		return errors.Join(c.mayRead(seen), catalog.MayRead(member))
	}
	return catalog.MayRead(member)
}

// diskFault says what a disk that can't be opened or read means to the client. An image
// that was deleted meanwhile is as unknown as it is to the next request.
func (s *server) diskFault(c *call, img ims.Image, err error) error {
	if ims.CodeOf(err) != "" || c.Context().Err() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), s.Timeout)
	defer cancel()
	now, gone := s.Catalog.Image(ctx, img.ProjectID, img.ID)
	switch {
	case errors.Is(gone, catalog.ErrNotFound):
		return unknownImage().Cause(fmt.Errorf("the image was deleted meanwhile: %w", err))
	case gone == nil && !now.ReadableBy(true):
		return ims.Faultf(ims.CodeImageNotActive, "the image became %s, it has no data to read", now.Status).Cause(err)
	case gone == nil && now.Status == ims.ImageSaving && s.Damaged != nil && s.Damaged(err):
		// Its job will say the same, in its own words.
		return ims.Faultf(ims.CodeInternal, "the file that the image is being made of was changed or removed; the import will fail, import it again").
			WithKind(ims.KindInternal).Cause(err)
	}
	if s.Missing != nil && s.Missing(err) {
		return ims.Faultf(ims.CodeInternal, "the data of image %s is missing in the image area and can't be served; the operator may restore it from a backup; else delete the image and import it again", img.ID).
			WithKind(ims.KindInternal).Cause(err)
	}
	if s.Damaged != nil && s.Damaged(err) {
		return ims.Faultf(ims.CodeInternal, "the image's data was changed, damaged or removed behind the service's back and can't be served; delete the image and import it again").
			WithKind(ims.KindInternal).Cause(err)
	}
	return err
}

// byteRange reads a Range header and writes it as http.ServeContent understands it,
// with both ends on the disk; "" asks for the whole disk, which is a right answer to
// every request. So it is to a range that is malformed or in another unit, which must
// be ignored (RFC 9110, section 14.2), and to several ranges at once: they would be
// read by a goroutine that outlives the answer. A range that begins behind the disk
// stays one.
func byteRange(values []string, size int64) string {
	if len(values) != 1 {
		return ""
	}
	unit, text, ok := strings.Cut(values[0], "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return ""
	}
	from, to, ok := strings.Cut(strings.Trim(text, " \t"), "-")
	first, firstOK := position(from)
	last, lastOK := position(to)
	switch {
	case !ok || !firstOK && from != "" || !lastOK && to != "" || !firstOK && !lastOK:
		return ""
	case !firstOK: // the last bytes
		if last == 0 {
			first = size
		} else {
			first = size - min(last, size)
		}
		last = size
	case !lastOK:
		last = size
	case last < first:
		return ""
	}
	if first >= size {
		return fmt.Sprintf("bytes=%d-", size)
	}
	return fmt.Sprintf("bytes=%d-%d", first, min(last, size-1))
}

// position reads a number of any length; beyond all disks it is the largest int64.
func position(s string) (int64, bool) {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, false
	}
	n, _ := strconv.ParseInt(s, 10, 64) // out of range, the only error left, gives the largest
	return n, true
}

// diskETag names the bytes. An image has one disk in all its life: all attempts at
// making it read one pinned source, and publication moves its bytes without changing
// them. So a download that was begun while it was saving can be gone on with.
func diskETag(img ims.Image) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", img.ID, img.Data.VirtualSize))
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// wholeReader reads a disk from where it was sought to, and keeps the first read that
// failed. An end before the disk's size is a failure too.
type wholeReader struct {
	disk     Disk
	at, size int64
	fault    error

	mayRead func() error // the fault of reading on
}

// Seek implements io.Seeker.
func (r *wholeReader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.at
	case io.SeekEnd:
		off += r.size
	}
	if off < 0 {
		return 0, fmt.Errorf("seek to %d of a disk", off)
	}
	r.at = off
	return off, nil
}

// Read fills p as far as the disk goes.
func (r *wholeReader) Read(p []byte) (int, error) {
	if r.fault != nil {
		return 0, r.fault
	}
	if r.at >= r.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.size-r.at)]
	n, err := r.disk.ReadAt(p, r.at)
	if n == len(p) {
		r.at += int64(n)
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	r.fault = fmt.Errorf("read %d bytes at %d of the disk: %w", len(p), r.at, err)
	return 0, r.fault
}

// next gives up to most bytes of the disk, in buf or, where it has a hole, in zeros that
// nobody had to make.
func (r *wholeReader) next(buf []byte, most int64) ([]byte, error) {
	if r.fault == nil {
		r.fault = r.mayRead()
	}
	if n := min(r.disk.Hole(r.at), most, streamChunk); n > 0 && r.fault == nil {
		r.at += n
		return zeros[:n], nil
	}
	n, err := r.Read(buf[:min(int64(len(buf)), most)])
	return buf[:n], err
}

var zeros = make([]byte, streamChunk)

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

// ReadFrom copies a part of a disk, as http.ServeContent limits it, in chunks that suit
// one.
func (w *streamWriter) ReadFrom(src io.Reader) (total int64, err error) {
	part, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	disk, ok := part.R.(*wholeReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	for part.N > 0 {
		p, err := disk.next(*buf, part.N)
		if err != nil {
			return total, err
		}
		n, err := w.Write(p)
		total += int64(n)
		part.N -= int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
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
		return &statusFault{e, w.status}
	}
	w.send()
	return nil
}

// clear takes back the header of an answer that is not given.
func (w *streamWriter) clear() {
	for _, name := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified", "Content-Type", "Content-Md5"} {
		w.Header().Del(name)
	}
}
