package s3face

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/s3face/auth"
	"github.com/quickims/quickims/internal/s3face/checksum"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// server answers requests.
type server struct {
	cfg    Config
	store  *files.Store
	hosts  *hosts
	places *admit.Shares // of projects, for requests in progress
	// strangers are the requests that have shown no valid credentials, by address.
	strangers *admit.Shares
	forms     *admit.Shares // of strangers too, by address
	lookups   *admit.Shares // of access keys at once, by address
	requests  sync.WaitGroup
}

// request is one request on its way through the stages. What a stage has not
// filled in yet is zero.
type request struct {
	s   *server
	ctx context.Context
	r   *http.Request
	w   *watchedWriter
	id  string

	bucket, key string // as the host and the path name them
	query       auth.Query
	sig         *auth.Signature
	project     string
	readOnly    bool
	op          *operation
	b           *files.Bucket // of operations on a bucket or an object
	leave       func()        // gives back the place that the request has
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	defer s.requests.Done()
	start := time.Now()
	control := http.NewResponseController(w)
	body := watch(r, control)
	out := &watchedWriter{ResponseWriter: w, control: control, body: body, last: r.ContentLength < 0}
	_ = control.SetWriteDeadline(time.Time{}) // of the request before
	in := *r                                  // the server looks at its own request's body afterwards
	if r.ContentLength != 0 {
		in.Body = body
	}
	q := &request{s: s, ctx: r.Context(), r: &in, w: out, id: rand.Text()}
	h := out.Header()
	h.Set("Server", "quickims")
	h.Set("x-amz-request-id", q.id)
	h.Set("x-amz-id-2", q.id)
	if err := q.run(); err != nil {
		q.fail(err)
	}
	if q.b != nil {
		q.b.Close()
	}
	if body.left.Load() != 0 {
		out.giveTime()
		_ = control.Flush() // or there is nobody to answer
		body.drain(r.Header.Get("Expect") != "")
	}
	out.giveTime()
	s.cfg.Logger.Debug("S3 request", "method", r.Method, "path", shortPath(r), "from", r.RemoteAddr, "request_id", q.id,
		"status", out.status, "took", time.Since(start))
}

// run takes a request through its stages. Its error has not been answered.
func (q *request) run() error {
	if err := q.enter(q.s.strangers, admit.Network(admit.Caller(q.r))); err != nil {
		return err
	}
	defer func() { q.leave() }()
	if err := q.read(); err != nil {
		return err
	}
	if isPostForm(q) {
		return q.postForm()
	}
	if err := q.authenticate(); err != nil {
		return err
	}
	q.leave()
	if err := q.enter(q.s.places, q.project); err != nil {
		return err
	}
	if err := q.route(); err != nil {
		return err
	}
	if err := q.authorize(); err != nil {
		return err
	}
	defer q.watchAccess()()
	if !q.op.adds {
		return q.op.do(q)
	}
	release, err := q.hold()
	if err != nil {
		return err
	}
	defer release()
	return q.op.do(q)
}

// enter takes a place; leave gives it back.
func (q *request) enter(s *admit.Shares, party string) error {
	q.leave = func() {}
	if !s.Try(party, 1) {
		return wire.Err("SlowDown")
	}
	q.leave = sync.OnceFunc(func() { s.Give(party, 1) })
	return nil
}

// read reads what the request line and the host say.
func (q *request) read() error {
	r := q.r
	if !strings.HasPrefix(r.URL.Path, "/") {
		return wire.Errorf("InvalidURI", "The request's path must begin with a slash.")
	}
	var err *wire.Error
	if q.query, err = auth.ParseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	if q.bucket, err = q.s.hosts.bucket(r.Host); err != nil {
		return err
	}
	path := r.URL.Path[1:]
	if q.bucket != "" {
		q.key = path
	} else {
		q.bucket, q.key, _ = strings.Cut(path, "/")
		if q.bucket == "" && path != "" {
			return wire.Errorf("InvalidURI", "The request's path names no bucket: two slashes are at its beginning.")
		}
	}
	if n := len(r.Header["Content-Length"]); n > 1 {
		return wire.Errorf("InvalidArgument", "There is more than one Content-Length header.")
	}
	return nil
}

// signed is what the request's signature is computed over.
func (q *request) signed() *auth.Request {
	s := &auth.Request{Method: q.r.Method, RawPath: q.r.URL.EscapedPath(), Path: q.r.URL.Path, RawQuery: q.r.URL.RawQuery, Query: q.query, Host: q.r.Host,
		Header: q.r.Header, TransferEncoding: q.r.TransferEncoding}
	if b, err := q.s.hosts.bucket(q.r.Host); err == nil {
		s.Bucket = b
	}
	return s
}

// authenticate finds out which project the request is from.
func (q *request) authenticate() error {
	r := q.signed()
	sig, err := auth.Read(r)
	if err != nil {
		return err
	}
	if sig.Kind == auth.Anonymous {
		return wire.Errorf("AccessDenied", "The request is not signed. Nothing here is public.")
	}
	secret, project, readOnly, lerr := q.lookUp(sig.AccessKey)
	if lerr != nil {
		return lerr
	}
	if err := sig.Verify(r, secret, q.s.cfg.Region, time.Now()); err != nil {
		return err
	}
	admit.Known(q.r, project)
	q.sig, q.project, q.readOnly = sig, project, readOnly
	switch sig.Kind {
	case auth.V4Query:
		return q.fromQuery()
	case auth.OBSHeader, auth.OBSQuery:
		q.fromOBS()
	}
	return nil
}

// fromQuery makes headers of the parameters of a presigned URL that stand for
// headers: a client that signs a URL puts them there.
func (q *request) fromQuery() error {
	var rest auth.Query
	h := q.r.Header.Clone()
	for _, p := range q.query {
		lower := strings.ToLower(p.Name)
		if !strings.HasPrefix(lower, "x-amz-") || q.sig.IsParam(p.Name) {
			rest = append(rest, p)
			continue
		}
		if given, ok := h[http.CanonicalHeaderKey(lower)]; ok && (len(given) != 1 || given[0] != p.Value) {
			return wire.Errorf("InvalidArgument", "The URL and the header %.100s say different things.", xmlText(lower))
		}
		if q.r.ContentLength != 0 && ofNothing(lower, p.Value) {
			continue
		}
		if err := checkHeader(lower, p.Value); err != nil {
			return err
		}
		h.Set(lower, p.Value)
	}
	q.query, q.r.Header = rest, h
	return nil
}

// ofNothing reports whether a parameter is the checksum of an empty body. The AWS
// SDK for JavaScript puts it into the URLs that it signs for uploads, because
// it has no body then; there is one when the URL is used.
func ofNothing(header, value string) bool {
	name, _ := strings.CutPrefix(header, "x-amz-checksum-")
	a, ok := checksum.Parse(name)
	return ok && value == checksum.Encode(a.New().Sum(nil))
}

// lookUp asks what an access key stands for, in the turn of the client's address.
func (q *request) lookUp(accessKey string) (secret, project string, readOnly bool, err error) {
	address := admit.Network(admit.Caller(q.r))
	if err := q.s.lookups.Take(q.ctx, address, 1); err != nil {
		return "", "", false, wire.Err("SlowDown")
	}
	defer q.s.lookups.Give(address, 1)
	return q.s.lookUp(accessKey)
}

// lookUp returns what an access key stands for. A key without a secret or a
// project is as good as none: an empty secret is one that everybody knows.
func (s *server) lookUp(accessKey string) (secret, project string, readOnly bool, err error) {
	if len(accessKey) <= 256 {
		secret, project, readOnly, err = s.cfg.Accounts.SecretFor(accessKey)
	}
	switch {
	case errors.Is(err, ErrUnknownKey), err == nil && (secret == "" || project == ""):
		return "", "", false, wire.Err("InvalidAccessKeyId").With("AWSAccessKeyId", fmt.Sprintf("%.256s", accessKey))
	case err != nil:
		return "", "", false, fmt.Errorf("look up access key: %w", err)
	}
	return secret, project, readOnly, nil
}

// fail answers with an error.
func (q *request) fail(err error) {
	e := q.wireError(err)
	if q.w.status >= 200 { // too late for an answer: no answer at all is better than half of one
		panic(http.ErrAbortHandler)
	}
	h := q.w.Header()
	for _, name := range []string{"Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control", "Expires", "Content-Range", "Accept-Ranges"} {
		h.Del(name)
	}
	if e.Status() == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if q.r.Method == http.MethodHead {
		q.w.WriteHeader(e.Status())
		return
	}
	q.write(e.Status(), e.Document(q.r.URL.Path, q.id))
}

// wireError is the error that the client is told. One that is none of S3's is
// logged, and the client is told its request's id.
func (q *request) wireError(err error) *wire.Error {
	var e *wire.Error
	var path *files.PathError
	var lost *files.LostPart
	switch {
	case errors.As(err, &e):
		return e
	case q.w.isLost():
		return wire.Errorf("AccessDenied", "The access key no longer gives access: it was revoked, or its user or its role has changed.")
	case errors.Is(err, buckets.ErrBusy):
		return wire.Err("SlowDown")
	case errors.Is(err, files.ErrNoBucket):
		return wire.Err("NoSuchBucket").With("BucketName", q.bucket)
	case errors.Is(err, files.ErrNoObject):
		return wire.Err("NoSuchKey").With("Key", xmlText(q.key))
	case errors.Is(err, files.ErrNoUpload):
		return wire.Err("NoSuchUpload").With("UploadId", xmlText(q.query.Value("uploadId")))
	case errors.As(err, &lost):
		return wire.Errorf("InvalidPart", "Part %d must be sent again.", lost.Number)
	case errors.As(err, &path):
		return pathError(path)
	case errors.Is(err, allowance.ErrQuota):
		return wire.Err("QuotaExceeded")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, allowance.ErrReserve):
		q.s.cfg.Logger.Error("the disk of the buckets is full", "request_id", q.id, "error", err)
		return wire.Err("InsufficientStorage")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		q.s.cfg.Logger.Warn("a bucket's file denies the service access", "path", shortPath(q.r), "request_id", q.id, "error", err)
		return wire.Errorf("AccessDenied", "The permissions of the file in the bucket's directory do not let the service do this.")
	case errors.Is(err, unix.EFBIG):
		return wire.Errorf("EntityTooLarge", "The file system of the store takes no file of this size.")
	case errors.Is(err, unix.ENAMETOOLONG):
		return wire.Errorf("KeyTooLongError", "A part of the key between slashes is longer than the file system of the store takes.")
	case errors.Is(err, files.ErrShort):
		return wire.Errorf("OperationAborted", "The source was changed while it was copied. Try again.")
	case q.ctx.Err() != nil, errors.Is(err, io.ErrUnexpectedEOF):
		return wire.Err("IncompleteBody")
	}
	if timeout := interface{ Timeout() bool }(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return wire.Err("RequestTimeout")
	}
	q.s.cfg.Logger.Error("S3 request failed", "method", q.r.Method, "path", shortPath(q.r), "request_id", q.id, "error", err)
	return wire.Err("InternalError")
}

// pathError explains what a file system cannot hold that S3 could.
func pathError(e *files.PathError) *wire.Error {
	var why string
	switch {
	case e.Strange:
		why = fmt.Sprintf("%q is neither a file nor a directory there", e.At)
	case e.Dir:
		why = fmt.Sprintf("there is a directory of this name, because there are keys that begin with \"%s/\"", e.At)
	default:
		why = fmt.Sprintf("there is a file %q, and it cannot be a directory too", e.At)
	}
	return wire.Errorf("InvalidRequest", "The key %q cannot be stored: each object is a file, and %s. Choose another key, or delete what is in the way.", e.Key, why)
}

// xmlText is s as an error document can hold it.
func xmlText(s string) string {
	if !wire.XMLSafe(s) {
		return wire.Escape(s, true)
	}
	return s
}

// checkKey says why an object cannot have a key. A slash may end it.
func checkKey(key string) *wire.Error {
	name := strings.TrimSuffix(key, "/")
	switch err := objectstore.CheckKey(name); {
	case len(key) > objectstore.MaxKey:
		return wire.Err("KeyTooLongError").With("Size", strconv.Itoa(len(key))).With("MaxSizeAllowed", strconv.Itoa(objectstore.MaxKey))
	case err != nil:
		reason := strings.TrimPrefix(err.Error(), objectstore.ErrInvalid.Error()+": ")
		return wire.Errorf("InvalidArgument", "The key cannot be stored as a path of a directory: %s.", xmlText(reason)).With("ArgumentName", "key")
	case strings.Contains(name, `\`) && slices.ContainsFunc(strings.FieldsFunc(name, isSlash), func(part string) bool { return part == "." || part == ".." }):
		return wire.Errorf("InvalidArgument", "The key cannot be stored: with a backslash as a separator it would lead elsewhere.").With("ArgumentName", "key")
	case objectstore.ReservedKey(name):
		return wire.Errorf("InvalidArgument", "The key %q is reserved: the store uses this name for itself.", key).With("ArgumentName", "key")
	}
	return nil
}

func isSlash(r rune) bool { return r == '/' || r == '\\' }

// write answers with an XML document.
func (q *request) write(status int, document []byte) {
	h := q.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(document)))
	q.w.WriteHeader(status)
	_, _ = q.w.Write(document) // of HEAD, the server drops it
}

// respond answers 200 with a document.
func (q *request) respond(doc any) error {
	q.write(http.StatusOK, wire.Marshal(doc))
	return nil
}

// empty answers without a body.
func (q *request) empty(status int) error {
	if status != http.StatusNoContent {
		q.w.Header().Set("Content-Length", "0")
	}
	q.w.WriteHeader(status)
	return nil
}

func (q *request) owner() wire.Owner { return wire.Owner{ID: q.project, DisplayName: q.project} }

// shortPath is a request's path for the log. The query stays out of it: that of
// a presigned URL is as good as a password.
func shortPath(r *http.Request) string { return fmt.Sprintf("%.200s", r.URL.Path) }

// keepAlive is after how long a request that takes its time gets the first byte
// of its answer, and how long it is from then on to the next.
const keepAlive = 10 * time.Second

// patiently answers with the document that do returns. While do takes its time
// the client is sent spaces, so that nothing between takes the connection for
// dead; the status is 200 then, and an error is in the document, as in S3.
func (q *request) patiently(do func(ctx context.Context) (any, error)) error {
	type result struct {
		doc any
		err error
	}
	// The work goes on when the client is gone: it would only have to do it again. It
	// ends with the client's right to it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(q.ctx))
	defer cancel()
	gone := q.ctx.Done()
	done := make(chan result, 1)
	go func() {
		doc, err := do(ctx)
		done <- result{doc, err}
	}()
	tick := time.NewTicker(q.s.keepAlive())
	defer tick.Stop()
	begun := false
	for {
		select {
		case r := <-done:
			switch {
			case r.err != nil && !begun:
				return r.err
			case !begun:
				return q.respond(r.doc)
			case r.err != nil:
				_, _ = q.w.Write(withoutHeader(q.wireError(r.err).Document(q.r.URL.Path, q.id)))
			default:
				_, _ = q.w.Write(withoutHeader(wire.Marshal(r.doc)))
			}
			return nil
		case <-gone:
			if gone = nil; q.w.isLost() {
				cancel()
			}
		case <-tick.C:
			if !begun {
				begun = true
				q.w.Header().Set("Content-Type", "application/xml")
				q.w.WriteHeader(http.StatusOK)
				_, _ = io.WriteString(q.w, wire.Header)
			} else {
				_, _ = io.WriteString(q.w, " ")
			}
			_ = q.w.control.Flush() // the client may be gone
		}
	}
}

func (s *server) keepAlive() time.Duration { return keepAlive }

func withoutHeader(document []byte) []byte { return document[len(wire.Header):] }
