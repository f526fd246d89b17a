package files

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/s3face/checksum"
)

// A multipart upload is a directory, stateDir/uploads/ID, of
//
//	upload.json  what the upload is; without it there is no upload
//	lock         byte 0 guards the upload's state, byte n the slot of part n
//	stride       the size of the first part that came
//	data         the parts at their places: part n at (n-1)*stride, its slot
//	parts/N      what part N is, and where it lies: in its slot, or in
//	files/NAME   a file of its own
//
// Clients send parts of one size, but for the last, and number them from 1. So
// a part is written to its slot in data, and when the upload is completed data
// is the object already: nothing is copied, whatever its size. A part lies in a
// file of its own if it is larger than the stride, or sent again, or sent twice
// at the same time; a completion copies it to its slot. If the parts that the
// client lists do not lie side by side in data, all of them are copied.
//
// The locks are the kernel's (open file description locks), so that several
// processes may take parts of the same upload.

// UploadInfo is what a multipart upload was begun with.
type UploadInfo struct {
	Key     string    `json:"key"`
	Created time.Time `json:"created"`
	// Record has the headers and metadata of the object to be.
	Record    Record             `json:"record"`
	Algorithm checksum.Algorithm `json:"algorithm,omitempty"`
	Type      checksum.Type      `json:"type,omitempty"`
	// Project began it.
	Project string `json:"project"`
}

// Part is a part that was uploaded.
type Part struct {
	Number   int       `json:"-"`
	Size     int64     `json:"size"`
	MD5      []byte    `json:"md5"`
	Modified time.Time `json:"modified"`
	// Sum is the part's checksum by Algorithm; nil if it has none.
	Algorithm checksum.Algorithm `json:"algorithm,omitempty"`
	Sum       []byte             `json:"sum,omitempty"`
	// File is the part's own file in files, "" if it lies in its slot.
	File string `json:"file,omitempty"`
}

// ETag is the part's ETag without quotes.
func (p Part) ETag() string { return hex.EncodeToString(p.MD5) }

// maxData bounds the file that parts are put together in: ext4 takes 16 TiB.
const maxData = 15 << 40

// Upload is an open multipart upload.
type Upload struct {
	ID   string
	Info UploadInfo

	b      *Bucket
	dir    *os.File
	frozen *os.File // holds the exclusive lock of the state
}

// An upload's id has uploadIDLength letters and digits: the time at which it was begun
// in milliseconds since 1970, then 80 random bits. So ids in ascending order are uploads
// in the order of time, and where a listing goes on is known from an id whose upload is
// gone. Ids of earlier releases are random.
const (
	uploadIDLength = 26
	idDigits       = "234567abcdefghijklmnopqrstuvwxyz" // ascending
)

var idEncoding = base32.NewEncoding(idDigits).WithPadding(base32.NoPadding)

func newUploadID(begun time.Time) string {
	raw := make([]byte, 16)
	binary.BigEndian.PutUint64(raw, uint64(begun.UnixMilli())<<16)
	_, _ = rand.Read(raw[6:]) // never fails (crypto/rand)
	return idEncoding.EncodeToString(raw)
}

// IsUploadID reports whether s has the form of an upload's id.
func IsUploadID(s string) bool {
	return len(s) == uploadIDLength && strings.Trim(s, idDigits) == ""
}

// BeginUpload begins a multipart upload and returns its id.
func (b *Bucket) BeginUpload(info UploadInfo) (string, error) {
	id := newUploadID(info.Created)
	dir, err := makeDirs(b.dir, uploadsDir+"/"+id)
	if err != nil {
		return "", b.gone(err)
	}
	defer dir.Close()
	for _, name := range []string{"parts", "files"} {
		if err := mkdirAt(dir, name); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"lock", "data"} {
		f, err := openAt(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, fileMode)
		if err != nil {
			return "", err
		}
		f.Close()
	}
	return id, writeJSON(dir, "upload.json", info)
}

// writeJSON writes a small document in one step.
func writeJSON(dir *os.File, name string, doc any) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	temp := tempName()
	f, err := openAt(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err == nil {
		err = renameAt(dir, temp, dir, name)
	}
	if err != nil {
		_ = unlinkAt(dir, temp, 0)
	}
	return err
}

func readJSON(dir *os.File, name string, doc any) error {
	f, _, err := openPlain(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, doc)
}

// Upload opens the upload of a key by its id; ErrNoUpload if there is none. The
// caller closes it.
func (b *Bucket) Upload(key, id string) (*Upload, error) {
	if !IsUploadID(id) {
		return nil, ErrNoUpload
	}
	u, err := b.openUpload(id)
	if err != nil {
		return nil, err
	}
	if u.Info.Key != key {
		u.Close()
		return nil, ErrNoUpload
	}
	return u, nil
}

func (b *Bucket) openUpload(id string) (*Upload, error) {
	dir, err := openDir(b.dir, uploadsDir+"/"+id)
	if absent(err) {
		return nil, ErrNoUpload
	}
	if err != nil {
		return nil, err
	}
	u := &Upload{ID: id, b: b, dir: dir}
	if err := readJSON(dir, "upload.json", &u.Info); err != nil {
		dir.Close()
		if absent(err) {
			return nil, ErrNoUpload
		}
		return nil, fmt.Errorf("upload %s: %w", id, err)
	}
	return u, nil
}

// Close releases the upload, which goes on existing.
func (u *Upload) Close() {
	if u.frozen != nil {
		u.frozen.Close()
	}
	u.dir.Close()
}

// Uploads calls found for each of the bucket's uploads, in no order. What it holds in
// memory does not grow with their number.
func (b *Bucket) Uploads(ctx context.Context, found func(*Upload)) error {
	dir, err := openDir(b.dir, uploadsDir)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !IsUploadID(name) {
				continue
			}
			u, err := b.openUpload(name)
			if errors.Is(err, ErrNoUpload) {
				continue
			}
			if err != nil {
				return err
			}
			u.Close()
			found(&Upload{ID: u.ID, Info: u.Info})
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// The state of an upload is the first byte of its lock file: absent while parts
// are taken, stateClosed from the moment that its data is given away.
const stateClosed = 'x'

// lockByte locks a byte of the upload's lock file until the returned file is
// closed. wait says whether to wait for others; without, it is errLocked if
// somebody holds it.
func (u *Upload) lockByte(n int64, kind int16, wait bool) (*os.File, error) {
	f, err := openAt(u.dir, "lock", unix.O_RDWR, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNoUpload
	}
	if err != nil {
		return nil, err
	}
	if err := flock(f, n, kind, wait); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errLocked: somebody else holds the lock.
var errLocked = errors.New("locked")

func flock(f *os.File, n int64, kind int16, wait bool) error {
	cmd := unix.F_OFD_SETLK
	if wait {
		cmd = unix.F_OFD_SETLKW
	}
	err := retry(func() error {
		return unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: n, Len: 1})
	})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errLocked
	}
	return os.NewSyscallError("fcntl", err)
}

// withState runs do while the upload cannot be completed or aborted. f is an
// open lock file of the caller's own.
func withState(f *os.File, do func() error) error {
	if err := flock(f, 0, unix.F_RDLCK, true); err != nil {
		return err
	}
	defer flock(f, 0, unix.F_UNLCK, false)
	var state [1]byte
	if n, _ := f.ReadAt(state[:], 0); n == 1 && state[0] == stateClosed {
		return ErrNoUpload
	}
	return do()
}

// PartWriter writes one part. It is discarded unless it is committed.
type PartWriter struct {
	writer
	u      *Upload
	number int
	lock   *os.File // an open lock file; holds the slot's lock if there is one
	file   string   // the part's own file, "" for the slot
}

// WritePart begins to write a part of the given size in bytes, -1 if it is not
// known. An earlier part of the number stays until Commit.
func (u *Upload) WritePart(number int, size int64) (*PartWriter, error) {
	stride, err := u.stride(size)
	if err != nil {
		return nil, err
	}
	lock, err := openAt(u.dir, "lock", unix.O_RDWR, 0)
	if err != nil {
		return nil, u.gone(err)
	}
	w := &PartWriter{u: u, number: number, lock: lock}
	if err = w.open(stride, size); err != nil {
		lock.Close()
		return nil, u.gone(err)
	}
	return w, nil
}

func (u *Upload) gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return ErrNoUpload
	}
	return err
}

func (w *PartWriter) open(stride, size int64) error {
	base := int64(w.number-1) * stride
	if stride > 0 && size > 0 && size <= stride && base+stride <= maxData {
		err := flock(w.lock, int64(w.number), unix.F_WRLCK, false)
		if err == nil {
			if _, serr := statAt(w.u.dir, "parts/"+strconv.Itoa(w.number)); errors.Is(serr, unix.ENOENT) {
				return w.openSlot(base, stride)
			}
			err = flock(w.lock, int64(w.number), unix.F_UNLCK, false)
		}
		if err != nil && !errors.Is(err, errLocked) && !errors.Is(err, unix.ENOLCK) {
			return err
		}
	}
	w.file = tempName()
	f, err := openAt(w.u.dir, "files/"+w.file, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, fileMode)
	w.writer = writer{f: f}
	return err
}

// openSlot opens the part's slot, and clears it of what a cut transfer left.
func (w *PartWriter) openSlot(base, stride int64) error {
	f, err := openAt(w.u.dir, "data", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := withState(w.lock, func() error { return clear(f, base, stride) }); err != nil {
		f.Close()
		return err
	}
	w.writer = writer{f: f, base: base}
	return nil
}

// clear makes a range of a file zeros.
func clear(f *os.File, off, n int64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if n = min(n, fi.Size()-off); n <= 0 {
		return nil
	}
	err = retry(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) {
		return os.NewSyscallError("fallocate", err)
	}
	for end := off + n; off < end; {
		m, err := f.WriteAt(zeros[:min(page, end-off)], off)
		if err != nil {
			return err
		}
		off += int64(m)
	}
	return nil
}

// stride returns the distance of the slots. The first part that comes says it.
func (u *Upload) stride(size int64) (int64, error) {
	for range 3 {
		var stride int64
		err := readJSON(u.dir, "stride", &stride)
		if err == nil {
			return stride, nil
		}
		if !absent(err) {
			return 0, err
		}
		if size <= 0 {
			return 0, nil
		}
		temp := tempName()
		f, err := openAt(u.dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, fileMode)
		if err != nil {
			return 0, u.gone(err)
		}
		_, err = f.WriteString(strconv.FormatInt(size, 10))
		if err = errors.Join(err, f.Close()); err == nil {
			err = retry(func() error { return unix.Linkat(int(u.dir.Fd()), temp, int(u.dir.Fd()), "stride", 0) })
			if errors.Is(err, unix.EEXIST) { // another part was quicker
				err = nil
			}
		}
		if err = errors.Join(err, unlinkAt(u.dir, temp, 0)); err != nil {
			return 0, u.gone(err)
		}
	}
	return 0, ErrNoUpload
}

// Write implements io.Writer. It fails with ErrNoUpload once the upload was
// completed or aborted.
func (w *PartWriter) Write(p []byte) (n int, err error) {
	if w.file != "" {
		return w.writer.Write(p)
	}
	err = withState(w.lock, func() error {
		n, err = w.writer.Write(p)
		return err
	})
	return n, err
}

// CopyRange appends n bytes of src, from off. Holes stay holes.
func (w *PartWriter) CopyRange(ctx context.Context, src *os.File, off, n int64) error {
	for n > 0 {
		step := min(n, copyStep)
		do := func() error { return w.u.b.store.copyRange(ctx, w.f, w.base+w.off, src, off, step) }
		var err error
		if w.file != "" {
			err = do()
		} else {
			err = withState(w.lock, do)
		}
		if err != nil {
			return err
		}
		w.off += step
		w.flushed = w.off
		off += step
		n -= step
	}
	return nil
}

// Commit makes what was written the upload's part of its number, in place of
// an earlier one.
func (w *PartWriter) Commit(p Part) error {
	p.Size, p.File, p.Modified = w.off, w.file, time.Now().UTC().Truncate(time.Millisecond)
	if w.file != "" {
		if err := w.f.Truncate(w.off); err != nil {
			return err
		}
	}
	dir, err := openDir(w.u.dir, "parts")
	if err != nil {
		return w.u.gone(err)
	}
	defer dir.Close()
	name := strconv.Itoa(w.number)
	return withState(w.lock, func() error {
		if w.file == "" {
			if err := w.reach(); err != nil {
				return err
			}
		}
		var before Part
		if err := readJSON(dir, name, &before); err != nil && !absent(err) {
			return err
		}
		if err := writeJSON(dir, name, p); err != nil {
			return w.u.gone(err)
		}
		w.file = "" // it is the part's now
		if before.File != "" {
			_ = unlinkAt(w.u.dir, "files/"+before.File, 0)
		}
		return nil
	})
}

// reach makes data reach to the slot's end, though that may be zeros: a file
// that ends before a slot does has lost it.
func (w *PartWriter) reach() error {
	fi, err := w.f.Stat()
	if err != nil || w.off == 0 || fi.Size() >= w.base+w.off {
		return err
	}
	_, err = w.f.WriteAt(zeros[:1], w.base+w.off-1)
	return err
}

// Discard releases the writer. What was written and not committed is given up.
func (w *PartWriter) Discard() {
	if w.file != "" {
		_ = unlinkAt(w.u.dir, "files/"+w.file, 0)
	}
	w.f.Close()
	w.lock.Close()
}

// Parts lists the upload's parts by number.
func (u *Upload) Parts() ([]Part, error) {
	dir, err := openDir(u.dir, "parts")
	if err != nil {
		return nil, u.gone(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	parts := make([]Part, 0, len(names))
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil {
			continue // being written
		}
		p := Part{Number: n}
		if err := readJSON(dir, name, &p); err != nil {
			if absent(err) {
				continue
			}
			return nil, err
		}
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b Part) int { return a.Number - b.Number })
	return parts, nil
}

// Freeze keeps others from changing the upload until Close. Parts that are
// being written wait. It is ErrNoUpload when the upload was completed or
// aborted meanwhile.
func (u *Upload) Freeze() error {
	f, err := u.lockByte(0, unix.F_WRLCK, true)
	if err != nil {
		return err
	}
	fail := func(err error) error { f.Close(); return u.gone(err) }
	if _, err := statAt(u.dir, "upload.json"); err != nil {
		return fail(err)
	}
	var state [1]byte
	if n, _ := f.ReadAt(state[:], 0); n == 1 && state[0] == stateClosed {
		// A process was killed when it gave data away. If data is still here, it
		// was killed before.
		if _, err := statAt(u.dir, "data"); err != nil {
			return fail(err)
		}
		if _, err := f.WriteAt([]byte{0}, 0); err != nil {
			return fail(err)
		}
	}
	u.frozen = f
	return nil
}

// Abort removes the upload with its parts.
func (u *Upload) Abort() error {
	if err := u.Freeze(); err != nil {
		return err
	}
	return u.remove()
}

// remove removes the upload, which is frozen or that nobody uses.
func (u *Upload) remove() error {
	if u.frozen != nil {
		if _, err := u.frozen.WriteAt([]byte{stateClosed}, 0); err != nil {
			return err
		}
	}
	if err := unlinkAt(u.dir, "upload.json", 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	dir, err := openDir(u.b.dir, uploadsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return removeTree(dir, u.ID)
}
