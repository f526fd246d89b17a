package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

// Importer takes imports in. It is the only way to new images.
type Importer interface {
	// Accept looks at the source and writes image and job; it gives the job's id.
	// What is wrong with the source is an *ims.Error.
	Accept(ctx context.Context, p ims.Principal, spec ims.ImportSpec) (jobID string, err error)
	// Register does the same for a file and a queued image of the caller's project.
	Register(ctx context.Context, p ims.Principal, imageID, bucket, key string) (jobID string, err error)
	// Copy makes a new image over the bytes of one that the caller may read.
	Copy(ctx context.Context, p ims.Principal, imageID string, request ims.CopyRequest) (jobID string, err error)
	// Export writes the stored data of an image of the caller's project to a bucket.
	Export(ctx context.Context, p ims.Principal, imageID string, to ims.Export) (jobID string, err error)
	// Upload reads a queued image's bytes from body, size of them (-1: body tells), and
	// makes the image active, or with stage lets them wait for an import. A fault leaves
	// the image queued and no bytes.
	Upload(ctx context.Context, projectID, imageID string, body io.Reader, size int64, stage bool) error
	// Nudge wakes the clean-up after a deletion. It does not wait for it.
	Nudge()
}

// Authenticator says who sent a request. It calls body, which gives the whole body, when
// a signature cannot be verified without it, and returns that one's error. No or bad credentials are an *ims.Error
// with ims.CodeToken and status 401.
type Authenticator interface {
	Authenticate(ctx context.Context, r *http.Request, body func() ([]byte, error)) (ims.Principal, error)
	// Holds says whether what a caller authenticated with still gives access, and
	// returns the caller with the roles that it has now. A refusal is an *ims.Error;
	// other errors mean that nobody can tell just now.
	Holds(ctx context.Context, p ims.Principal) (ims.Principal, error)
	// Within is the caller in each project that its credential reaches, with the roles
	// there: one for the credential of a project, any number for a domain's.
	Within(ctx context.Context, p ims.Principal) ([]ims.Principal, error)
}

// DiskOpener opens the data of an image that can be read.
type DiskOpener interface {
	// OpenDisk gives the disk as a machine sees it. The caller closes it; its reads
	// end when ctx does.
	OpenDisk(ctx context.Context, img ims.Image) (Disk, error)
}

// Disk is the bytes of an image's disk. It never gives other bytes in place of an
// error.
type Disk interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes.
	Size() int64
	// Hole is how many bytes from off on are zeros that are not stored, 0 if the byte at
	// off is. It does no I/O.
	Hole(off int64) int64
}

// Config is what the edge stands on. Fields without a default are required.
type Config struct {
	Catalog  *catalog.Catalog
	Importer Importer
	Auth     Authenticator
	// Keystone answers the routes of /v3; it authenticates by itself and writes
	// errors in Keystone's form.
	Keystone *keystone.Handlers
	Disks    DiskOpener
	// OSVersions gives the table of operating systems, which may change while the service
	// runs; nil: the table that the service comes with.
	OSVersions func() *ims.OSVersions
	// ServiceProject is the project whose admins may publish images; "": nobody may.
	ServiceProject string
	Limits         ims.Limits
	// NBDURI gives the URI at which the disk of a token's attachment is served; nil: no
	// listener serves any, and nothing can be attached.
	NBDURI func(token string) string
	// OpenAPI is the description that /openapi.yaml answers with.
	OpenAPI []byte
	// Ready reports whether the service can do its work; nil means always. It is called
	// at most once a second.
	Ready func(ctx context.Context) error
	// Warnings are what /readyz says beside that the service is ready. Unset: nothing.
	Warnings func() []string
	// Draining reports whether the service is about to stop, and /readyz must say so at
	// once; nil means never.
	Draining func() bool
	// Unavailable reports whether an error means that the database is away for the
	// moment, which is a 503; nil means never.
	Unavailable func(error) bool
	// Damaged reports whether an error of a disk means that the bytes of an image are
	// no longer those that were imported, or gone; nil means never. The client is told
	// so, and nothing else of the error.
	Damaged func(error) bool
	// Missing reports whether such an error means that the bytes of an image are not
	// there at all. Nil: none does.
	Missing func(error) bool
	// Registry takes the edge's metrics; nil makes one.
	Registry *prometheus.Registry
	// Logger gets a line a request; nil drops them.
	Logger *slog.Logger
	// MaxRequests is how many requests are worked on at once, half of them of one project; MaxStreams how many
	// disks are read at once, half of them by one project; defaults 64 and 128. More
	// requests wait, more streams are a 503.
	MaxRequests, MaxStreams int
	// Timeout bounds the work on one request, reading a disk apart; default 30 s.
	Timeout time.Duration
}

// server is the handler of every route. It is safe for concurrent use.
type server struct {
	Config
	log     *slog.Logger
	routes  *matcher
	metrics *metrics
	shares  shares
	streams *streams
	uploads *streams

	readiness readiness
}

// New makes the handler of all routes.
func New(c Config) (http.Handler, error) {
	switch {
	case c.Catalog == nil:
		return nil, errors.New("api: a catalog is required")
	case c.Importer == nil:
		return nil, errors.New("api: an importer is required")
	case c.Auth == nil:
		return nil, errors.New("api: an authenticator is required")
	case c.Keystone == nil:
		return nil, errors.New("api: the identity handlers are required")
	case c.Disks == nil:
		return nil, errors.New("api: a disk opener is required")
	case len(c.OpenAPI) == 0:
		return nil, errors.New("api: the OpenAPI description is required")
	case c.Limits.Images <= 0 || c.Limits.Imports <= 0 || c.Limits.Attachments <= 0:
		return nil, errors.New("api: the limits of a project must be at least 1")
	}
	if c.OSVersions == nil {
		c.OSVersions = ims.DefaultOSVersions
	}
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.Draining == nil {
		c.Draining = func() bool { return false }
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxRequests <= 0 {
		c.MaxRequests = 64
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 128
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	m, err := newMetrics(c.Registry)
	if err != nil {
		return nil, err
	}
	return &server{
		Config: c, log: c.Logger, routes: newMatcher(Routes()), metrics: m,
		shares: newShares(c.MaxRequests), streams: newStreams(c.MaxStreams), uploads: newStreams(maxUploads),
		readiness: readiness{check: c.Ready, draining: c.Draining},
	}, nil
}

func (s *server) unavailable(err error) bool { return s.Unavailable != nil && s.Unavailable(err) }

// Limits of a connection. Headers and bodies are small: who needs longer for them
// only holds the connection. Answers are bounded too; a disk's extends its own.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 90 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	maxStreams        = 32 // of one HTTP/2 connection
	// receiveBuffer is what an HTTP/2 connection may send of bodies that nobody reads yet.
	receiveBuffer = 128 << 10
)

// NewServer gives the HTTP server for a handler made by New. The caller listens,
// and calls Shutdown to drain.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// A client that stops reading frames, and one that vanished, hold a connection no
		// longer than one of HTTP/1.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: receiveBuffer, MaxReceiveBufferPerStream: receiveBuffer,
			WriteByteTimeout: sendTimeout, SendPingTimeout: idleTimeout, PingTimeout: sendTimeout},
		// OPTIONS * is answered like everything else: with our form and a request id.
		DisableGeneralOptionsHandler: true,
	}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	}
	return s
}
