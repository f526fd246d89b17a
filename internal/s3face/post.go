package s3face

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/s3face/auth"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// maxFields bounds what a form may have before its file, in bytes. S3 takes 20 KiB.
// formTime is how long a client may take to send it.
const (
	maxFields = 64 << 10
	formTime  = 30 * time.Second
)

// postObject is the upload of a browser's form. Its headers are the form's fields.
var postObject = operation{name: "PostObject", method: "POST", level: onObject, writes: true, adds: true,
	headers: slices.Concat([]string{"x-amz-meta-*", "x-amz-storage-class", "x-amz-algorithm", "x-amz-credential", "x-amz-signature"}, checksumHeaders)}

// form is a form up to its file.
type form struct {
	fields   map[string]string // by their names in lower case
	file     io.Reader
	filename string
}

// postForm stores the file of a form. The form's signature is among its fields,
// so these are read first, and nothing behind them before it is proven.
func (q *request) postForm() error {
	// Whoever it is sends bytes before anything is proven: that holds no other's place,
	// and takes its time once.
	q.leave()
	if err := q.enter(q.s.forms, admit.Network(admit.Caller(q.r))); err != nil {
		return err
	}
	q.w.body.endBy(time.Now().Add(q.s.cfg.formTime))
	f, err := readForm(q.r)
	q.w.body.endBy(time.Time{})
	if err != nil {
		return err
	}
	sig, serr := auth.ReadForm(f.fields)
	if serr != nil {
		return serr
	}
	secret, project, readOnly, err := q.lookUp(sig.AccessKey)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := sig.Verify(secret, q.s.cfg.Region, now); err != nil {
		return err
	}
	admit.Known(q.r, project)
	q.leave()
	if err := q.enter(q.s.places, project); err != nil {
		return err
	}
	q.sig, q.project, q.readOnly, q.op = &auth.Signature{AccessKey: sig.AccessKey}, project, readOnly, &postObject
	policy, perr := sig.Policy(now)
	if perr != nil {
		return perr
	}
	q.key = strings.ReplaceAll(f.fields["key"], "${filename}", f.filename)
	if q.key == "" {
		return wire.Errorf("InvalidArgument", "The form must have a field key, before its file.").With("ArgumentName", "key")
	}
	if err := q.authorize(); err != nil {
		return err
	}
	defer q.watchAccess()()
	if err := policy.Check(q.bucket, f.fields); err != nil {
		return err
	}
	if err := q.takeFields(f.fields); err != nil {
		return err
	}
	release, err := q.hold()
	if err != nil {
		return err
	}
	defer release()
	o, err := q.storeForm(f, policy)
	if err != nil {
		return err
	}
	return q.postAnswer(f.fields, o)
}

// readForm reads a form up to its file.
func readForm(r *http.Request) (*form, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, wire.Errorf("MalformedPOSTRequest", "The Content-Type has no boundary.")
	}
	head := &headReader{r: r.Body, left: maxFields}
	parts := multipart.NewReader(head, params["boundary"])
	f := &form{fields: map[string]string{}}
	bad := func(err error) error {
		if head.left == 0 {
			return wire.Errorf("MaxMessageLengthExceeded", "The form has more than %d bytes before its file.", maxFields)
		}
		if timeout := interface{ Timeout() bool }(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return wire.Err("RequestTimeout")
		}
		return wire.Errorf("MalformedPOSTRequest", "The form cannot be read: %.100s.", err)
	}
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, wire.Errorf("InvalidArgument", "POST requires exactly one file upload per request: the form has no field file.").With("ArgumentName", "file")
		}
		if err != nil {
			return nil, bad(err)
		}
		disposition, values, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name := strings.ToLower(values["name"])
		if err != nil || disposition != "form-data" || name == "" {
			return nil, wire.Errorf("MalformedPOSTRequest", "A part of the form has no name.")
		}
		if name == "file" {
			head.left = -1
			f.file = part
			f.filename = values["filename"]
			if i := strings.LastIndexAny(f.filename, `/\`); i >= 0 { // old browsers send the path
				f.filename = f.filename[i+1:]
			}
			return f, nil
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, bad(err)
		}
		if _, twice := f.fields[name]; twice {
			return nil, wire.Errorf("InvalidArgument", "The form has the field %.60q more than once.", name)
		}
		f.fields[name] = string(value)
	}
}

// headReader fails when more than left bytes are read, unless left is negative.
type headReader struct {
	r    io.Reader
	left int
}

// Read implements io.Reader.
func (h *headReader) Read(p []byte) (int, error) {
	if h.left < 0 {
		return h.r.Read(p)
	}
	if h.left == 0 {
		return 0, errors.New("it is too large")
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}

// takeFields makes the request's headers of the form's fields, which say of the
// object what headers say elsewhere.
func (q *request) takeFields(fields map[string]string) error {
	h := http.Header{}
	for name, value := range fields {
		header := name
		switch {
		case name == "acl":
			header = "x-amz-acl"
		case name == "tagging":
			return wire.Errorf("NotImplemented", "The field tagging is not offered: objects have no tags.")
		case strings.HasPrefix(name, "x-amz-"):
			if !q.op.takes(name) {
				return wire.Errorf("NotImplemented", "The field %.100s is not offered.", xmlText(name))
			}
		case slices.Contains([]string{"content-type", "content-encoding", "content-language", "content-disposition", "cache-control", "expires", "content-md5"}, name):
		default:
			continue
		}
		if err := checkHeader(header, value); err != nil {
			return err
		}
		h.Set(header, value)
	}
	q.r.Header = h
	return nil
}

// checkHeader refuses what stands for a header and could not be one: no response could
// give it back.
func checkHeader(name, value string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return wire.Errorf("InvalidArgument", "%.100q is no name of a header: it may have letters, digits and hyphens.", name)
	}
	if !httpguts.ValidHeaderFieldValue(value) {
		return wire.Errorf("InvalidArgument", "The value of %.100s holds a control character.", name)
	}
	return nil
}

// storeForm stores the form's file.
func (q *request) storeForm(f *form, policy *auth.Policy) (*files.Object, error) {
	r, err := q.record()
	if err != nil {
		return nil, err
	}
	limit := int64(maxObject)
	if policy.Max >= 0 {
		limit = min(limit, policy.Max)
	}
	q.r.Body, q.r.ContentLength = io.NopCloser(f.file), -1
	c, err := q.content(limit, "")
	if err != nil {
		return nil, err
	}
	if err := q.b.CheckPlace(q.key); err != nil {
		return nil, err
	}
	c.least = policy.Min
	return q.store(c, q.key, r, nil)
}

// postAnswer answers as the form asks for it.
func (q *request) postAnswer(fields map[string]string, o *files.Object) error {
	h := q.w.Header()
	q.checksumHeader(o.Checksum)
	h.Set("ETag", wire.ETag(o.ETag))
	location := q.location()
	for _, name := range []string{"success_action_redirect", "redirect"} {
		u, err := url.Parse(fields[name])
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		more := "bucket=" + wire.Escape(q.bucket, false) + "&key=" + wire.Escape(q.key, false) + "&etag=" + wire.Escape(wire.ETag(o.ETag), false)
		if u.RawQuery != "" {
			more = u.RawQuery + "&" + more
		}
		u.RawQuery = more
		h.Set("Location", u.String())
		return q.empty(http.StatusSeeOther)
	}
	h.Set("Location", location)
	switch fields["success_action_status"] {
	case "200":
		return q.empty(http.StatusOK)
	case "201":
		q.write(http.StatusCreated, wire.Marshal(wire.PostResponse{Location: location, Bucket: q.bucket, Key: q.key, ETag: wire.ETag(o.ETag)}))
		return nil
	}
	return q.empty(http.StatusNoContent)
}

// location is the URL of the request's object.
func (q *request) location() string {
	u := url.URL{Scheme: "http", Host: q.r.Host, Path: "/" + q.bucket + "/" + q.key}
	if q.r.TLS != nil {
		u.Scheme = "https"
	}
	if b, _ := q.s.hosts.bucket(q.r.Host); b != "" {
		u.Path = "/" + q.key
	}
	return u.String()
}

// isPostForm reports whether a request is the upload of a browser's form, whose
// signature is in the form.
func isPostForm(q *request) bool {
	return q.r.Method == http.MethodPost && q.bucket != "" && q.key == "" && len(q.query) == 0 && q.r.Header.Get("Authorization") == "" &&
		bytes.HasPrefix(bytes.ToLower([]byte(q.r.Header.Get("Content-Type"))), []byte("multipart/form-data"))
}
