// Package keystone is the wire of /v3: the part of the OpenStack Identity API v3 that
// clients of an image service use. Tokens are issued, shown and revoked; projects,
// domains and users are those of the caller; the catalog says where the services are.
//
// Each method of Handlers answers one route; the API's table says which. They
// authenticate the caller themselves and write errors in Keystone's own form.
package keystone

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// Bounds of a request.
const (
	// MaxBody is the longest body, in bytes: strangers send it.
	MaxBody = 16 << 10
	// timeout bounds the work on one request, the wait for a password's turn included.
	timeout = 30 * time.Second
)

// Options say what the documents hold.
type Options struct {
	// Region is the region of the catalog's endpoints.
	Region string
	// PublicURL is the service's root as clients see it; empty: what the request's
	// Host and its connection say.
	PublicURL string
	// S3URL is the root of the S3 face, empty if there is none. A host that stands
	// for all addresses of the machine is replaced by the request's.
	S3URL string
	// Outside is the v3 address of the outside Keystone that issues the tokens, empty if
	// the service does. Who shows a token, or wants one, is sent there; who signs a request
	// is answered here.
	Outside string
	// Logger gets what is answered with a 500 or 503; nil drops it.
	Logger *slog.Logger
}

// Handlers answer the routes of /v3. They are safe for concurrent use.
type Handlers struct {
	identity *identity.Service
	opts     Options
	log      *slog.Logger
}

// New makes the handlers.
func New(s *identity.Service, opts Options) *Handlers {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts.PublicURL = strings.TrimRight(opts.PublicURL, "/")
	opts.S3URL = strings.TrimRight(opts.S3URL, "/")
	return &Handlers{identity: s, opts: opts, log: log}
}

// Root is the service's root URL without a slash at its end.
func (h *Handlers) Root(r *http.Request) string {
	if h.opts.PublicURL != "" {
		return h.opts.PublicURL
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + host(r)
}

// identityURL is the v3 address of what issues tokens.
func (h *Handlers) identityURL(r *http.Request) string {
	return cmp.Or(h.opts.Outside, h.Root(r)+"/v3")
}

// host is the host that the client asked, with its port. A request of HTTP/1.0 may
// have none, and nobody needs one with characters that no host has.
func host(r *http.Request) string {
	if r.Host != "" && !strings.ContainsAny(r.Host, "/\\@?#%\"'<>()&;, ") {
		return r.Host
	}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return addr.String()
	}
	return "localhost"
}

// s3URL is the root of the S3 face as this client reaches it, "" if there is none.
func (h *Handlers) s3URL(r *http.Request) string {
	u, err := url.Parse(h.opts.S3URL)
	if err != nil || h.opts.S3URL == "" {
		return ""
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsUnspecified() {
		asked, err := url.Parse(h.Root(r))
		if err != nil {
			return ""
		}
		u.Host = net.JoinHostPort(asked.Hostname(), u.Port())
	}
	return u.String()
}

// answer is what a handler gives back to be written.
type answer struct {
	status int
	header map[string]string
	body   any // nil: none
}

// serve runs f within the time limit, and writes its answer or error. Body reads the
// body.
func (h *Handlers) serve(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, r *http.Request, body func() ([]byte, error)) (answer, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	w.Header().Set("Vary", "X-Auth-Token, X-Subject-Token")
	w.Header().Set("Cache-Control", "no-store")
	if h.elsewhere(w, r) {
		return
	}
	a, err := f(ctx, r, func() ([]byte, error) {
		if r.ContentLength > MaxBody {
			return nil, &http.MaxBytesError{Limit: MaxBody}
		}
		return io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	})
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	write(w, a.status, a.body)
}

// elsewhere sends a client to the outside Keystone, and reports whether it did. 307 has it
// repeat the request as it is, also that of a login: the service keeps no part of it.
func (h *Handlers) elsewhere(w http.ResponseWriter, r *http.Request) bool {
	signed := r.Header.Get("X-Auth-Token") == "" && r.Header.Get("Authorization") != ""
	path, below := strings.CutPrefix(r.URL.EscapedPath(), "/v3/")
	if h.opts.Outside == "" || !below || signed && path != "auth/tokens" {
		return false
	}
	to := h.opts.Outside + "/" + path
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	var body errorBody
	body.Error.Code, body.Error.Title = http.StatusTemporaryRedirect, http.StatusText(http.StatusTemporaryRedirect)
	body.Error.Message = "The identity service is " + h.opts.Outside + ": use that as the address to log in at."
	write(w, http.StatusTemporaryRedirect, body)
	return true
}

// asCaller runs f for an authenticated caller.
func (h *Handlers) asCaller(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, caller ims.Principal) (answer, error)) {
	h.withBody(w, r, func(ctx context.Context, caller ims.Principal, _ []byte) (answer, error) { return f(ctx, caller) })
}

// withBody is asCaller for a request with a body.
func (h *Handlers) withBody(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, caller ims.Principal, body []byte) (answer, error)) {
	h.serve(w, r, func(ctx context.Context, r *http.Request, body func() ([]byte, error)) (answer, error) {
		caller, err := h.identity.Authenticate(ctx, r, body)
		if err != nil {
			return answer{}, err
		}
		admit.Known(r, caller.Party())
		noteCaller(w, caller)
		content, err := body()
		if err != nil {
			return answer{}, err
		}
		return f(ctx, caller, content)
	})
}

// Noter is a ResponseWriter that notes who sends a request, for its log line.
type Noter interface {
	// NoteCaller notes the caller once the credentials have proved right.
	NoteCaller(ims.Principal)
	// NoteLogin notes the name or id of the user that a login is for. It is what the
	// client sent, of any length and content.
	NoteLogin(user string)
}

func noteCaller(w http.ResponseWriter, p ims.Principal) {
	if n, ok := w.(Noter); ok {
		n.NoteCaller(p)
	}
}

func noteLogin(w http.ResponseWriter, user string) {
	if n, ok := w.(Noter); ok {
		n.NoteLogin(user)
	}
}

func write(w http.ResponseWriter, status int, body any) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		panic(err) // our own types, which can all be encoded
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	w.Write(buf.Bytes()) // an error means that the client has gone
}

// errorBody is Keystone's form of an error.
type errorBody struct {
	Error struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Title   string `json:"title"`
	} `json:"error"`
}

// badRequest is a fault of the request's form.
type badRequest struct{ text string }

func (e *badRequest) Error() string { return e.text }

func badRequestf(format string, args ...any) error { return &badRequest{fmt.Sprintf(format, args...)} }

// writeError answers with err. What nobody classified is a 500 with a fixed text; the
// log has the cause, under the request's id.
func (h *Handlers) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	status, message := classify(err)
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Keystone uri=%q", h.identityURL(r)))
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(int(identity.LoginRefill.Seconds())))
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	if status >= http.StatusInternalServerError {
		h.log.ErrorContext(r.Context(), "identity request failed", "method", r.Method, "path", r.URL.Path,
			"status", status, "request_id", w.Header().Get("X-Request-Id"), "error", err)
	}
	var body errorBody
	body.Error.Code, body.Error.Message, body.Error.Title = status, message, http.StatusText(status)
	write(w, status, body)
}

// Status is the HTTP status of a fault of this kind. The API's routes use it too, so
// that one fault has one status everywhere.
func Status(kind ims.Kind) int {
	switch kind {
	case ims.KindInvalid:
		return http.StatusBadRequest
	case ims.KindUnauthenticated:
		return http.StatusUnauthorized
	case ims.KindForbidden:
		return http.StatusForbidden
	case ims.KindNotFound:
		return http.StatusNotFound
	case ims.KindConflict:
		return http.StatusConflict
	case ims.KindWrongFormat:
		return http.StatusUnsupportedMediaType
	case ims.KindThrottled:
		return http.StatusTooManyRequests
	case ims.KindUnavailable:
		return http.StatusServiceUnavailable
	case ims.KindTooLarge:
		return http.StatusRequestEntityTooLarge
	case ims.KindNoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func classify(err error) (status int, message string) {
	if e, ok := errors.AsType[*badRequest](err); ok {
		return http.StatusBadRequest, e.text
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is longer than %d bytes.", MaxBody)
	}
	if e, ok := errors.AsType[*ims.Error](err); ok {
		status = Status(e.Kind())
		if status == http.StatusUnauthorized {
			return status, "Authentication failed: " + e.Detail + "."
		}
		return status, e.Detail
	}
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return http.StatusNotFound, "The token does not exist, or it is not the caller's."
	case errors.Is(err, identity.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, "The service cannot answer just now, try again."
	case errors.Is(err, io.ErrUnexpectedEOF):
		return http.StatusBadRequest, "The body broke off."
	}
	return http.StatusInternalServerError, "An unexpected error prevented the server from answering."
}
