package s3face

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Limits of a connection.
const (
	headerTimeout = 30 * time.Second // from a request's first byte to its header's last
	idleTimeout   = 2 * time.Minute  // between requests
	maxHeader     = 16 << 10         // versitygw takes 8 KiB
)

// front is the HTTP server before the gateway. It passes requests on as they
// came, since they are signed: method, path, query, host, headers.
type front struct {
	server *http.Server
}

func newFront(cfg Config, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *front {
	transport := &http.Transport{
		DialContext: dial,
		// One connection for each request: of one that the gateway answers
		// before its body's end, it takes the rest for the next request.
		DisableKeepAlives:     true,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
	errorLog := slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn)
	buffers := &sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}
	proxy := &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: bufferPool{buffers},
		ErrorLog:   errorLog,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "gateway"
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Server", "quickims")
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // nobody is left to be told; and no answer at all would be a 200
			}
			cfg.Logger.Warn("S3 request failed", "method", r.Method, "path", shortPath(r), "error", err)
			writeError(w, http.StatusServiceUnavailable, "ServiceUnavailable", "The request could not be carried out now. Try again.")
		},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		control := http.NewResponseController(w)
		body := watch(r, control)
		out := &watchedWriter{ResponseWriter: w, control: control, body: body, last: r.ContentLength < 0}
		_ = control.SetWriteDeadline(time.Time{}) // of the request before
		in := *r                                  // the server looks at its own request's body afterwards
		if r.ContentLength != 0 {
			in.Body = body
		}
		if err := measure(&in); err != nil {
			cfg.Logger.Warn("S3 request failed", "method", r.Method, "path", shortPath(r), "error", err)
			writeError(out, http.StatusBadRequest, "IncompleteBody", "The request's body could not be read.")
		} else if !refuse(out, &in) {
			proxy.ServeHTTP(out, &in)
		}
		if body.left.Load() != 0 {
			out.giveTime()
			_ = control.Flush() // or there is nobody to answer
			body.drain(r.Header.Get("Expect") != "")
		}
		out.giveTime()
		cfg.Logger.Debug("S3 request", "method", r.Method, "path", shortPath(r), "from", r.RemoteAddr,
			"status", out.status, "took", time.Since(start))
	})
	return &front{
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          errorLog,
		},
	}
}

// refuse answers the requests that the gateway must not see.
func refuse(w http.ResponseWriter, r *http.Request) bool {
	query, err := url.ParseQuery(r.URL.RawQuery)
	status, tooLarge := bodyTooLarge(r)
	switch {
	case err != nil: // what this side cannot read, the gateway may read in a way of its own
		writeError(w, http.StatusBadRequest, "InvalidURI", "The request's query is not well formed.")
	case namesBadUpload(query):
		writeError(w, http.StatusNotFound, "NoSuchUpload", "There is no multipart upload with this id.")
	case r.ContentLength < 0: // the gateway does not look for the end of chunks
		writeError(w, http.StatusLengthRequired, "MissingContentLength", "The request's body needs a Content-Length.")
	case tooLarge:
		writeError(w, status, "EntityTooLarge", "The request's body is larger than its kind may be.")
	default:
		return false
	}
	return true
}

// shortPath is a request's path for the log. The query stays out of it: that of
// a presigned URL is as good as a password.
func shortPath(r *http.Request) string { return fmt.Sprintf("%.200s", r.URL.Path) }

// carriesObject reports whether a request's body is an object or a part of
// one: a PUT to a key that asks for nothing else. versitygw streams those, and
// holds them to 5 GiB; every other body it takes into memory.
func carriesObject(r *http.Request) bool {
	if r.Method != http.MethodPut {
		return false
	}
	for name := range r.URL.Query() {
		switch http.CanonicalHeaderKey(name) {
		case "Partnumber", "Uploadid", "X-Id",
			"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signedheaders", "X-Amz-Signature", "X-Amz-Security-Token":
		default:
			return false
		}
	}
	bucket, key, ok := cutBucket(r.URL.Path)
	return ok && bucket != "" && key != ""
}

// cutBucket splits a path into bucket and key.
func cutBucket(path string) (bucket, key string, ok bool) {
	if path == "" || path[0] != '/' {
		return "", "", false
	}
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			return path[1:i], path[i+1:], true
		}
	}
	return path[1:], "", true
}

// writeError answers in S3's form.
func writeError(w http.ResponseWriter, status int, code, message string) {
	answer := `<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer) // of HEAD, the server drops it
}

type bufferPool struct{ *sync.Pool }

func (p bufferPool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p bufferPool) Put(b []byte) { p.Pool.Put(&b) }
