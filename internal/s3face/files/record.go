package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/s3face/checksum"
)

// Record is what S3 knows of an object besides its bytes. It is kept with the
// file, in the extended attribute recordAttr; where it does not fit, or where
// files have no extended attributes, in a file of the store's own (sidecar.go).
type Record struct {
	// ETag is without quotes.
	ETag string `json:"etag,omitempty"`
	// Stamp is the state of the file that ETag, Checksum and Parts belong to.
	// They count for nothing once somebody wrote to the file.
	Stamp    string    `json:"stamp,omitempty"`
	Headers  Headers   `json:"headers,omitzero"`
	Meta     []Meta    `json:"meta,omitempty"`
	Checksum *Checksum `json:"checksum,omitempty"`
	// Parts are the sizes of the parts that the object was uploaded in.
	Parts Parts `json:"parts,omitzero"`
	// Upload is the id of the multipart upload that the object came from.
	Upload string `json:"upload,omitempty"`
}

// Headers are the headers of an object that its upload set, each empty if not.
type Headers struct {
	ContentType        text `json:"type,omitzero"`
	ContentEncoding    text `json:"encoding,omitzero"`
	ContentLanguage    text `json:"language,omitzero"`
	ContentDisposition text `json:"disposition,omitzero"`
	CacheControl       text `json:"cache,omitzero"`
	Expires            text `json:"expires,omitzero"`
}

// Meta is one name, in lower case, and value of user metadata.
type Meta struct {
	Name  text `json:"n"`
	Value text `json:"v"`
}

// Checksum is the checksum of an object that its upload brought.
type Checksum struct {
	Algorithm checksum.Algorithm `json:"a"`
	Type      checksum.Type      `json:"t"`
	// Value is base64, and for a composite one "-" and the number of parts.
	Value string `json:"v"`
}

// Parts are an object's parts in order.
type Parts struct {
	Runs []Run `json:"r,omitempty"`
	// Sums are the parts' checksums, one after the other; nil if there are none.
	Sums []byte `json:"s,omitempty"`
}

// Run is a number of parts of the same size in bytes.
type Run struct {
	Size  int64 `json:"s"`
	Count int   `json:"n"`
}

// Len is the number of parts, 0 for an object that was put as a whole.
func (p Parts) Len() int {
	n := 0
	for _, r := range p.Runs {
		n += r.Count
	}
	return n
}

// At returns where part i, counted from 1, lies in the object.
func (p Parts) At(i int) (offset, size int64) {
	for _, r := range p.Runs {
		if i <= r.Count {
			return offset + int64(i-1)*r.Size, r.Size
		}
		offset += int64(r.Count) * r.Size
		i -= r.Count
	}
	return offset, 0
}

// Sum returns the checksum of part i, counted from 1; nil if none is kept.
func (p Parts) Sum(i int) []byte {
	n := p.Len()
	if n == 0 || len(p.Sums) == 0 || i < 1 || i > n {
		return nil
	}
	size := len(p.Sums) / n
	return p.Sums[(i-1)*size : i*size]
}

// Add adds a part behind the others.
func (p *Parts) Add(size int64) {
	if n := len(p.Runs); n > 0 && p.Runs[n-1].Size == size {
		p.Runs[n-1].Count++
		return
	}
	p.Runs = append(p.Runs, Run{size, 1})
}

// text is a header's value: any bytes, though most often text.
type text string

// MarshalJSON implements json.Marshaler: a string, or an array of one base64
// string for what is no UTF-8.
func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal([1][]byte{[]byte(t)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		var raw [1][]byte
		err := json.Unmarshal(b, &raw)
		*t = text(raw[0])
		return err
	}
	return json.Unmarshal(b, (*string)(t))
}

// Set sets one of HeaderNames; it ignores any other.
func (h *Headers) Set(name, value string) {
	if f := h.field(name); f != nil {
		*f = text(value)
	}
}

// Each calls do for each header that is set, by its name.
func (h *Headers) Each(do func(name, value string)) {
	for _, name := range HeaderNames {
		if v := *h.field(name); v != "" {
			do(name, string(v))
		}
	}
}

// HeaderNames are the headers that Headers keeps.
var HeaderNames = []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control", "Expires"}

func (h *Headers) field(name string) *text {
	switch name {
	case "Content-Type":
		return &h.ContentType
	case "Content-Encoding":
		return &h.ContentEncoding
	case "Content-Language":
		return &h.ContentLanguage
	case "Content-Disposition":
		return &h.ContentDisposition
	case "Cache-Control":
		return &h.CacheControl
	case "Expires":
		return &h.Expires
	}
	return nil
}

// NewMeta makes a Meta of a name in lower case and a value.
func NewMeta(name, value string) Meta { return Meta{text(name), text(value)} }

const (
	recordAttr = "user.quickims.s3"
	// legacyPrefix and what stands behind it are the attributes that earlier
	// releases wrote through versitygw. They are read and never written.
	legacyPrefix = "user."
	legacyETag   = legacyPrefix + "etag"
	// maxRecord bounds a record that is read, in bytes: 10,000 parts with
	// SHA-256 sums in base64 have 430,000.
	maxRecord = 1 << 20
)

// getAttr returns an extended attribute of a name in a directory, or of the
// open file dir itself when name is empty; nil if there is none.
func getAttr(dir *os.File, name, attr string) ([]byte, error) {
	get := func(buf []byte) (int, error) {
		if name == "" {
			return unix.Fgetxattr(int(dir.Fd()), attr, buf)
		}
		return unix.Lgetxattr(procPath(dir, name), attr, buf)
	}
	buf := make([]byte, 1024)
	for {
		n, err := get(buf)
		switch {
		case err == nil:
			return buf[:n], nil
		case errors.Is(err, unix.ERANGE):
			if len(buf) >= maxRecord {
				return nil, fmt.Errorf("attribute %s of %q has more than %d bytes", attr, name, maxRecord)
			}
			buf = make([]byte, 8*len(buf))
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM):
			return nil, nil
		case errors.Is(err, unix.EINTR):
		default:
			return nil, &os.PathError{Op: "getxattr", Path: name, Err: err}
		}
	}
}

// record reads what is kept of the file with the state st at a name in a
// directory; name is empty for dir itself.
func (b *Bucket) record(dir *os.File, name, key string, st unix.Stat_t) (Record, error) {
	var r Record
	if b.store.attributes {
		raw, err := getAttr(dir, name, recordAttr)
		if err != nil {
			return r, err
		}
		if raw != nil {
			return r, b.decode(raw, &r, key)
		}
	}
	raw, err := b.store.readSidecar(b.name, key, st)
	if err != nil || raw != nil {
		if err == nil {
			err = b.decode(raw, &r, key)
		}
		return r, err
	}
	return b.legacyRecord(dir, name, key)
}

// decode reads a record. One that cannot be read, which somebody else wrote, is
// as good as none.
func (b *Bucket) decode(raw []byte, r *Record, key string) error {
	if err := json.Unmarshal(raw, r); err != nil {
		b.store.log.Warn("S3 metadata of an object cannot be read", "bucket", b.name, "key", key, "error", err)
		*r = Record{}
	}
	return nil
}

// legacyRecord reads what versitygw's back end kept.
func (b *Bucket) legacyRecord(dir *os.File, name, key string) (Record, error) {
	get := func(attr string) ([]byte, error) {
		if b.store.attributes {
			return getAttr(dir, name, legacyPrefix+attr)
		}
		return b.store.legacySidecar(b.name, key, attr)
	}
	var r Record
	raw, err := get("etag")
	if err != nil || raw == nil {
		return r, err
	}
	etag, at, _ := bytes.Cut(raw, []byte("\x00"))
	r.ETag, r.Stamp = strings.Trim(string(etag), `"`), string(at)
	for attr, header := range map[string]string{
		"content-type": "Content-Type", "content-encoding": "Content-Encoding", "content-language": "Content-Language",
		"content-disposition": "Content-Disposition", "cache-control": "Cache-Control", "expires": "Expires",
	} {
		v, err := get(attr)
		if err != nil {
			return r, err
		}
		r.Headers.Set(header, string(v))
	}
	raw, err = get("metadata")
	if err != nil {
		return r, err
	}
	var meta map[string]string
	if json.Unmarshal(raw, &meta) == nil {
		for name, v := range meta {
			r.Meta = append(r.Meta, NewMeta(strings.ToLower(name), v))
		}
	}
	raw, err = get("checksums")
	if err != nil {
		return r, err
	}
	var sums map[string]any
	if json.Unmarshal(raw, &sums) == nil {
		name, _ := sums["Algorithm"].(string)
		kind, _ := sums["Type"].(string)
		value, _ := sums[name].(string)
		if a, ok := checksum.Parse(name); ok && value != "" {
			r.Checksum = &Checksum{a, checksum.Type(kind), value}
		}
	}
	return r, nil
}

// writeRecord keeps a record with an open file of the bucket's, which is then
// published at key: as an extended attribute, or else in a sidecar.
func (b *Bucket) writeRecord(f *os.File, key string, r *Record) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: key, Err: err}
	}
	r.Stamp = stamp(st)
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if b.store.attributes {
		err = retry(func() error { return unix.Fsetxattr(int(f.Fd()), recordAttr, raw, 0) })
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EOPNOTSUPP):
			// ext4 has room for 4 KiB in all, or the disk is full: the sidecar finds out.
		default:
			return &os.PathError{Op: "fsetxattr", Path: key, Err: err}
		}
	}
	return b.store.writeSidecar(b.name, key, st, raw)
}

// etag is the ETag of a file in the state st: the one that an upload left, as
// long as the file is as the upload left it, or else one that is made of what
// the file system says. That one is not 32 hexadecimal digits, so that no
// client takes it for an MD5 sum.
func (r *Record) etag(st unix.Stat_t) string {
	if r.intact(st) {
		return r.ETag
	}
	return fmt.Sprintf("%x-%s", st.Ino, stamp(st))
}

// intact reports whether the file is as its upload left it.
func (r *Record) intact(st unix.Stat_t) bool { return r.ETag != "" && r.Stamp == stamp(st) }
