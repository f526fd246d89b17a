// Package s3face serves the directory store's buckets over the S3 protocol, so
// that s3cmd, an SDK or a browser of buckets can upload to them with the keys
// that the API takes too.
//
// A request passes these stages, each in a file or a package of its own:
//
//	front.go     listener, TLS, limits of connections, time and size
//	hosts.go     which bucket the host names, if any
//	auth/        whose signature it is, and whether it holds
//	route.go     the one table of operations: whatever is not in it changes nothing
//	access.go    whose bucket it is; another project's looks like none
//	bucket.go, list.go, object.go, copy.go, multipart.go, post.go
//	             what the operations do
//	content.go   the body: framing, checksums
//	files/       objects as files
//	wire/        XML documents, error codes and their statuses
//
// Nothing is global: several Serve may run in a process. Every access key of a
// project is the project; there are no ACLs, no policies and no way to open a
// bucket to others.
package s3face

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/s3face/files"
)

// ErrUnknownKey is what implementations of Accounts return, wrapped or not, for an
// access key that there is not.
var ErrUnknownKey = errors.New("unknown access key")

// Accounts knows who holds an access key. It is asked once for each request and
// must be safe for concurrent use.
type Accounts interface {
	// SecretFor returns an access key's secret, the project that it acts for,
	// and whether it may only read. A key that is unknown or disabled is
	// ErrUnknownKey; any other error is answered as an internal one.
	SecretFor(accessKey string) (secret, projectID string, readOnly bool, err error)
}

// Config says what to serve, to whom and where.
type Config struct {
	// Listener takes the clients' connections; Serve closes it.
	Listener net.Listener
	// Gate bounds the connections; nil: nothing does. It is told when a request's
	// credentials are valid.
	Gate *admit.Gate
	// BucketsDir holds a folder for each bucket; objectstore.Dir's.
	BucketsDir string
	// MetaDir is a folder for metadata that cannot be kept with its file. It
	// must exist, and must not lie in BucketsDir.
	MetaDir string
	// TLS is how the listener speaks TLS; nil means plain HTTP. HTTP/1.1 alone is what
	// S3 clients speak and sign.
	TLS *tls.Config
	// Domains are host names below which a bucket's name may stand:
	// BUCKET.DOMAIN. The domains themselves, and the names that this machine
	// and the certificate have, take path style too.
	Domains []string
	// Region is what clients must sign for; default us-east-1, which is always
	// accepted too, because clients sign for it that were told no region.
	Region   string
	Accounts Accounts
	// Buckets makes and removes the buckets in BucketsDir and knows their owners.
	Buckets *buckets.Keeper
	// Allowance bounds the bytes that projects store; nil: nothing does.
	Allowance *allowance.Allowance
	// Logger gets what goes wrong, and every request at level Debug.
	Logger *slog.Logger
	// Grace is how long requests in progress may take to end when Serve is told
	// to stop; default 10 s.
	Grace time.Duration
	// Ready, if not nil, is called when requests are answered.
	Ready func()

	noXattr  bool          // tests: as if files had no extended attributes
	formTime time.Duration // tests: in place of the constant
}

// maxRequests is how many authenticated requests are in progress at a time. Each holds
// buffers of about 400 KiB. A project may have no more of them than it leaves free.
// maxStrangers is how many others there may be, which have no buffers yet; of these an
// address may have no more than it leaves free. Strangers who send forms have maxForms
// places of their own, because a form's signature is in its body.
const (
	maxRequests  = 256
	maxStrangers = 1024
	maxForms     = 128
	maxLookups   = 16 // of access keys
)

func (c *Config) validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("no listener")
	case c.Accounts == nil || c.Buckets == nil:
		return errors.New("no accounts or no buckets")
	case c.BucketsDir == "" || c.MetaDir == "":
		return errors.New("no folder for the buckets or for metadata")
	}
	if rel, err := filepath.Rel(c.BucketsDir, c.MetaDir); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("the metadata folder %s lies in the buckets' folder", c.MetaDir)
	}
	for _, d := range c.Domains {
		if err := CheckDomain(d); err != nil {
			return err
		}
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.formTime == 0 {
		c.formTime = formTime
	}
	if c.Grace <= 0 {
		c.Grace = 10 * time.Second
	}
	return nil
}

// Serve serves until ctx is done, then lets requests in progress end and returns
// nil. An error is why it could not start, or could not go on.
func Serve(ctx context.Context, cfg Config) error {
	if err := serve(ctx, cfg); err != nil {
		return fmt.Errorf("serve buckets over S3: %w", err)
	}
	return nil
}

func serve(ctx context.Context, cfg Config) (err error) {
	if cfg.Listener != nil {
		defer cfg.Listener.Close()
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	store, err := files.Open(files.Config{Buckets: cfg.BucketsDir, Meta: cfg.MetaDir, Log: cfg.Logger, Room: cfg.Allowance.UploadRoom, NoAttributes: cfg.noXattr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	s := &server{cfg: cfg, store: store, hosts: newHosts(cfg), places: admit.NewShares(maxRequests, 0), strangers: admit.NewShares(maxStrangers, 0), forms: admit.NewShares(maxForms, 0), lookups: admit.NewShares(maxLookups, maxStrangers)}
	front := s.httpServer()
	listener := cfg.Listener
	if cfg.Gate != nil {
		listener = cfg.Gate.Listener(listener)
		cfg.Gate.Serve(front)
	}
	if cfg.TLS != nil {
		listener = tls.NewListener(listener, cfg.TLS)
	}
	ended := make(chan error, 1)
	go func() { ended <- front.Serve(listener) }()
	if cfg.Ready != nil {
		cfg.Ready()
	}
	select {
	case err = <-ended:
		return err
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Grace)
	defer cancel()
	if serr := front.Shutdown(sctx); serr != nil { // time is up: cut what is left
		cfg.Logger.Warn("S3 requests in progress were cut off", "after", cfg.Grace)
		err = errors.Join(err, front.Close())
		s.requests.Wait()
	}
	if serr := <-ended; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
