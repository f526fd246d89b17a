// Package s3face is the directory store's door for S3 clients: it serves the
// folders of package objectstore's Dir over the S3 protocol, so that s3cmd, an
// SDK or a browser of buckets can upload to them with the keys that the API
// takes too.
//
// The protocol itself is versitygw's, run inside this process: its HTTP
// routing, signature checks and POSIX back end. This package puts around it
// what quickims promises:
//
//   - front.go, body.go: our listener, TLS, time and size limits, before any of
//     versitygw's code sees a request; each of its connections takes one request;
//   - accounts.go: every access key of a project is one S3 principal, the
//     project; versitygw's root account is random and known to nobody, and its
//     administration API is not mounted at all;
//   - backend.go: the allow-list of operations, each of which first asks who
//     owns the bucket. A bucket of another project answers like one that does
//     not exist. There are no ACLs and no bucket policies that could open one;
//   - uploadid.go: what may be the id of a multipart upload;
//   - meta.go: where ETags and other metadata lie;
//   - sweep.go: at the start, what uploads left that a killed process had under
//     way, unless another process serves the buckets too. A multipart upload can
//     be gone on with afterwards; one that nothing was added to for 7 days is
//     removed;
//   - stderr.go: versitygw's own messages, as records of the Logger.
//
// Only one Serve may run in a process, and while it runs the process's working
// directory is the folder of the buckets: versitygw's back end works with paths
// relative to it. Whoever uses relative paths must make them absolute before.
// So long, too, os.Stderr is not the process's but leads to the Logger, which
// must have been given the real one.
package s3face

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/ims"
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
	// Gate bounds the connections; nil: nothing does. Handlers tell it with admit.Known
	// when a request's credentials are valid.
	Gate *admit.Gate
	// BucketsDir holds a folder for each bucket; objectstore.Dir's.
	BucketsDir string
	// MetaDir is a folder for what is no object: the socket between the two
	// halves, and metadata where the file system of the buckets keeps no
	// extended attributes. It must exist, and must not lie in BucketsDir.
	MetaDir string
	// TLS is how the listener speaks TLS; nil means plain HTTP. HTTP/1.1 alone is what
	// S3 clients speak and sign.
	TLS *tls.Config
	// Region is what clients must sign for; default us-east-1.
	Region   string
	Accounts Accounts
	// Buckets makes and removes the buckets in BucketsDir and knows their owners.
	Buckets *buckets.Keeper
	// Logger gets what goes wrong, and every request at level Debug.
	Logger *slog.Logger
	// Grace is how long requests under way may take to end when Serve is told
	// to stop; default 10 s.
	Grace time.Duration
	// Ready, if not nil, is called when requests are answered.
	Ready func()

	noXattr bool // tests: as if files had no extended attributes
}

// Limits of what the S3 face takes on at a time. A request in progress costs
// the back end buffers of about 1.3 MiB.
const (
	maxConnections = 1024
	maxRequests    = 256
	// maxCopySource covers the largest file that a quick import takes, 1 TiB.
	// S3's own limit, 5 GiB, is for stores that really copy.
	maxCopySource = ims.MaxFileSize
	// maxParts is S3's limit for a multipart upload.
	maxParts = 10000
)

var serving atomic.Bool

func (c *Config) validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("no listener")
	case c.Accounts == nil || c.Buckets == nil:
		return errors.New("no accounts or no buckets")
	}
	for _, dir := range []*string{&c.BucketsDir, &c.MetaDir} {
		if *dir == "" {
			continue
		}
		var err error
		if *dir, err = filepath.Abs(*dir); err != nil { // the working directory is about to change
			return err
		}
	}
	if c.BucketsDir == "" || c.MetaDir == "" {
		return errors.New("no folder for the buckets or for metadata")
	}
	if rel, err := filepath.Rel(c.BucketsDir, c.MetaDir); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("the metadata folder %s lies in the buckets' folder", c.MetaDir)
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Grace <= 0 {
		c.Grace = 10 * time.Second
	}
	return nil
}

// Serve serves until ctx is done, then lets requests under way end and returns
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
	if !serving.CompareAndSwap(false, true) {
		return errors.New("already serving in this process")
	}
	defer serving.Store(false)
	before, err := os.Getwd()
	if err != nil {
		return err
	}
	undo, err := redirectStderr(cfg.Logger)
	if err != nil {
		return err
	}
	defer undo()
	gw, err := startGateway(cfg)
	if err != nil {
		return errors.Join(err, os.Chdir(before))
	}
	defer func() { err = errors.Join(err, gw.stop(), os.Chdir(before)) }()

	front := newFront(cfg, gw.dial)
	listener := cfg.Listener
	if cfg.Gate != nil {
		listener = cfg.Gate.Listener(listener)
		cfg.Gate.Serve(front.server)
	}
	if cfg.TLS != nil {
		listener = tls.NewListener(listener, cfg.TLS)
	}
	ended := make(chan error, 1)
	go func() { ended <- front.server.Serve(listener) }()
	if cfg.Ready != nil {
		cfg.Ready()
	}
	select {
	case err = <-ended:
		return err
	case err = <-gw.ended:
		gw.ended <- err // for stop
		err = fmt.Errorf("the gateway gave up: %w", err)
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Grace)
	defer cancel()
	if serr := front.server.Shutdown(sctx); serr != nil { // time is up: cut what is left
		cfg.Logger.Warn("S3 requests under way were cut off", "after", cfg.Grace)
		err = errors.Join(err, front.server.Close())
	}
	if serr := <-ended; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// gateway is versitygw's server behind a socket that only this process can
// reach.
type gateway struct {
	server *s3api.S3ApiServer
	files  *posix.Posix
	dir    *os.File // holds the socket
	lock   *os.File // says that the buckets are served
	path   string   // of the socket
	ended  chan error
}

// socketName is the socket's name in MetaDir. A start removes the one that a
// killed process left.
const socketName = "s3.sock"

func startGateway(cfg Config) (*gateway, error) {
	dir, err := os.Open(cfg.MetaDir)
	if err != nil {
		return nil, err
	}
	// A socket's path has 107 bytes at most (unix(7)), MetaDir's may have more.
	g := &gateway{dir: dir, path: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName), ended: make(chan error, 1)}
	store, err := newMetadata(cfg)
	if err != nil {
		dir.Close()
		return nil, err
	}
	g.lock, err = enter(cfg.BucketsDir, store, time.Now(), cfg.Logger)
	if err != nil {
		dir.Close()
		return nil, err
	}
	opts := posix.PosixOpts{CopyObjectThreshold: maxCopySource, Concurrency: 2 * maxRequests}
	opts.SetNewDirPerm(0o750)
	opts.SetNewFilePerm(0o640)
	g.files, err = posix.New(cfg.BucketsDir, store, opts)
	if err != nil {
		g.lock.Close()
		dir.Close()
		return nil, err
	}
	utils.SetBucketNameValidationStrict(true)
	be := &gated{files: g.files, root: cfg.BucketsDir, keeper: cfg.Buckets, meta: store}
	ready := make(chan struct{})
	g.server, err = s3api.New(be,
		middlewares.RootUserConfig{Access: rand.Text(), Secret: rand.Text()},
		cfg.Region, accounts{cfg.Accounts}, nil, nil, nil, nil,
		s3api.WithQuiet(), s3api.WithDisableACL(), s3api.WithMpMaxParts(maxParts),
		s3api.WithConcurrencyLimiter(maxConnections, maxRequests), s3api.WithSocketPerm(0o600),
		s3api.WithOnListen(func() { close(ready) }))
	if err != nil {
		g.files.Shutdown()
		g.lock.Close()
		dir.Close()
		return nil, err
	}
	go func() { g.ended <- g.server.ServeMultiPort([]string{g.path}) }()
	select {
	case <-ready:
		return g, nil
	case err := <-g.ended:
		g.files.Shutdown()
		g.lock.Close()
		dir.Close()
		return nil, err
	}
}

func (g *gateway) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", g.path)
	if err != nil {
		return nil, err
	}
	return patientConn{conn}, nil
}

// stop ends the gateway. The front has ended before, so nothing is under way.
func (g *gateway) stop() error {
	err := g.server.ShutDown()
	<-g.ended // with an error that says that its listener was closed
	g.files.Shutdown()
	return errors.Join(err, g.lock.Close(), g.dir.Close())
}
