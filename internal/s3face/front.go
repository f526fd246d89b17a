package s3face

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Limits of a connection.
const (
	headerTimeout = 30 * time.Second // from a request's first byte to its header's last
	idleTimeout   = 2 * time.Minute  // between requests
	stallTimeout  = 2 * time.Minute  // between two bytes of a body, either way
	maxHeader     = 16 << 10         // versitygw takes 8 KiB
	// maxDocument bounds every body that is no object's: the XML of a deletion
	// of 1000 keys, or of a completion of 10,000 parts, has less.
	maxDocument = 4 << 20
)

// front is the HTTP server before the gateway. It passes requests on as they
// came, since they are signed: method, path, query, host, headers.
type front struct {
	server  *http.Server
	proxied *http.Transport
}

func newFront(cfg Config, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *front {
	transport := &http.Transport{
		DialContext:           dial,
		MaxIdleConnsPerHost:   maxRequests,
		IdleConnTimeout:       idleTimeout,
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
			var tooLarge *http.MaxBytesError
			switch {
			case errors.As(err, &tooLarge):
				writeError(w, http.StatusRequestEntityTooLarge, "EntityTooLarge", "The request's body is larger than its kind may be.")
			case r.Context().Err() != nil: // nobody is left to be told
			default:
				cfg.Logger.Warn("S3 request failed", "method", r.Method, "path", shortPath(r), "error", err)
				writeError(w, http.StatusServiceUnavailable, "ServiceUnavailable", "The request could not be carried out now. Try again.")
			}
		},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		out := &watchedWriter{ResponseWriter: w, control: http.NewResponseController(w)}
		_ = out.control.SetWriteDeadline(time.Time{}) // of the request before
		defer out.giveTime()
		// What this side cannot read, the gateway may read in a way of its own.
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			writeError(out, http.StatusBadRequest, "InvalidURI", "The request's query is not well formed.")
			return
		}
		if namesBadUpload(query) {
			writeError(out, http.StatusNotFound, "NoSuchUpload", "There is no multipart upload with this id.")
			return
		}
		if r.ContentLength != 0 {
			if !carriesObject(r) {
				if r.ContentLength > maxDocument {
					writeError(w, http.StatusRequestEntityTooLarge, "EntityTooLarge", "The request's body is larger than its kind may be.")
					return
				}
				r.Body = http.MaxBytesReader(w, r.Body, maxDocument)
			}
			r.Body = &watchedBody{r.Body, out.control}
		}
		proxy.ServeHTTP(out, r)
		cfg.Logger.Debug("S3 request", "method", r.Method, "path", shortPath(r), "from", r.RemoteAddr,
			"status", out.status, "took", time.Since(start))
	})
	return &front{
		proxied: transport,
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          errorLog,
		},
	}
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
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Connection", "close") // the rest of the body is not waited for
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
}

// watchedBody gives each read of a request's body its own time.
type watchedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *watchedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(stallTimeout)) // HTTP/1 connections have deadlines
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{}) // an answer may take its time
	}
	return n, err
}

// watchedWriter gives each write of a response its own time.
type watchedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
}

func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 || w.status < 200 {
		w.status = status
	}
	w.giveTime()
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.giveTime()
	return w.ResponseWriter.Write(p)
}

func (w *watchedWriter) giveTime() { _ = w.control.SetWriteDeadline(time.Now().Add(stallTimeout)) }

// Unwrap lets the proxy flush.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type bufferPool struct{ *sync.Pool }

func (p bufferPool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p bufferPool) Put(b []byte) { p.Pool.Put(&b) }

// limitListener accepts no more than n connections at a time; further ones
// wait in the kernel's queue.
func limitListener(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
