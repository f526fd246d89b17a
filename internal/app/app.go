// Package app wires the service together and runs it: the one place that knows all
// the others.
package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/quickims/quickims"
	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/handover"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/importer"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/installation"
	"github.com/quickims/quickims/internal/keystone"
	"github.com/quickims/quickims/internal/nbd"
	"github.com/quickims/quickims/internal/objectcache"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/queue"
)

const (
	// drainTime is how long running requests and imports may take after SIGTERM.
	drainTime = 20 * time.Second
	// reconcileEvery is how often jobs that nobody holds are looked for.
	reconcileEvery = 2 * time.Second
	// lockTimeout is how long a request waits for a database that somebody else holds.
	lockTimeout = 5 * time.Second
	// purgeEvery is how often expired tokens and attachments are removed.
	purgeEvery = 10 * time.Minute
)

// Service is a wired image service. Close or Run must be called on it.
type Service struct {
	cfg      Config
	seed     Seed
	log      *slog.Logger
	lock     *os.File
	db       *database.DB
	identity *identity.Service
	catalog  *catalog.Catalog
	store    objectstore.Store
	counter  *objectstore.Counter // below store, which tries again what fails
	dir      *objectstore.Dir     // below counter; nil with an S3 store
	buckets  *buckets.Keeper
	owner    *installation.Owner
	damage   *damage
	cache    *blockdev.Cache
	folder   *objectcache.Cache // below cache; nil without cache.dir
	boots    *boots             // nil: nothing is learned of starts
	importer *importer.Importer
	queue    *queue.Queue
	handler  http.Handler
	exports  *exports
	// installation is the id of the database. freshDatabase: this start made its file.
	installation  string
	freshDatabase bool
	// allowance bounds what projects store.
	allowance *allowance.Allowance
	// api, s3, nbd and metrics are the bound listeners; s3, nbd and metrics are nil
	// without an address.
	api, s3, nbd, metrics net.Listener
	// registry has what the listener of the metrics shows.
	registry    *prometheus.Registry
	certificate *certificate // nil without TLS
	versions    atomic.Pointer[ims.OSVersions]
	// draining: the service was told to stop and still serves.
	draining atomic.Bool
	// gates bound the connections of these listeners.
	gates gates
	// bound are the listeners as they were bound, for the process that takes over.
	bound []boundListener
	// nbdServer serves nbd; nil without it.
	nbdServer *nbd.Server
	// before is the process that this one takes over from, after the one that takes over
	// from this one; nil without. control is where the latter connects.
	before  *before
	after   *handover.Peer
	control *net.UnixListener
}

// New opens everything that the service needs and binds its listeners. The data
// folder is locked: one process serves it.
func New(ctx context.Context, cfg Config, seed Seed, log *slog.Logger) (*Service, error) {
	s := &Service{cfg: cfg, seed: seed, log: log}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Service) open(ctx context.Context) error {
	if s.before != nil {
		return s.openAfter(ctx)
	}
	// A first start whose port is taken leaves no data folder behind.
	if _, err := os.Stat(s.cfg.Data); errors.Is(err, fs.ErrNotExist) {
		if err := s.listen(); err != nil {
			return err
		}
	}
	if err := s.openFolder(); err != nil {
		return err
	}
	if err := s.openRows(ctx); err != nil {
		return err
	}
	if s.api == nil {
		if err := s.listen(); err != nil {
			return err
		}
	}
	return s.wire()
}

// openRows opens the database and what hangs on it.
func (s *Service) openRows(ctx context.Context) error {
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	if err := s.openOwned(ctx); err != nil {
		return errors.Join(err, s.undoDatabase(err))
	}
	if err := s.openCatalog(ctx); err != nil {
		return err
	}
	return s.openBuckets(ctx)
}

// openFolder makes and locks the data folder.
func (s *Service) openFolder() error {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(s.cfg.Data, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	s.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("data: another quickims serves %s: %w", s.cfg.Data, err)
	}
	return nil
}

// databaseFile is SQLite's, in the data folder.
const databaseFile = "quickims.db"

// databaseURL is the database that the configuration means.
func (c Config) databaseURL() string {
	if c.Database != "" {
		return string(c.Database)
	}
	return "sqlite:" + filepath.Join(c.Data, databaseFile)
}

func (s *Service) openDatabase(ctx context.Context) error {
	_, err := os.Lstat(filepath.Join(s.cfg.Data, databaseFile))
	s.freshDatabase = s.cfg.Database == "" && errors.Is(err, fs.ErrNotExist)
	if s.db, err = database.Open(ctx, s.cfg.databaseURL(), database.Options{LockTimeout: lockTimeout}); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	if err := s.db.Migrate(ctx); err != nil {
		return fmt.Errorf("bring the database up to date: %w", err)
	}
	return nil
}

// openCatalog makes the first project if there is none, and the catalog.
func (s *Service) openCatalog(ctx context.Context) error {
	if err := s.openIdentity(ctx); err != nil {
		return err
	}
	s.catalog = catalog.New(s.db, catalog.Options{Holds: s.identity.HoldsUntil})
	if s.db.Dialect() == database.SQLite && s.before == nil {
		// This process alone uses the database: whoever held a lease is dead.
		return s.catalog.ExpireLeases(ctx)
	}
	return nil
}

// openIdentity makes the first project and its credentials on the first start, and
// goes by what that one made on every later one.
func (s *Service) openIdentity(ctx context.Context) error {
	setup, err := identity.ReadSetup(ctx, s.db)
	first := errors.Is(err, identity.ErrNotFound)
	if err != nil && !first {
		return err
	}
	key, err := sealKey(s.cfg.Data, s.installation, first)
	if err != nil {
		return err
	}
	outside, err := s.cfg.Identity.Keystone.outside()
	if err != nil {
		return err
	}
	if s.identity, err = identity.New(s.db, identity.Options{SealKey: key, End: catalog.EndAccess, Outside: outside}); err != nil {
		return fmt.Errorf("set up identity: %w", err)
	}
	region := cmp.Or(s.cfg.Region, s.seed.Region)
	if first {
		s.seed.Region = region
		// What an interrupted first start wrote is what it may have made.
		if earlier, err := readCredentials(filepath.Join(s.cfg.Data, credentialsFile)); err != nil {
			return err
		} else if earlier != nil {
			for _, v := range s.seed.Variables() {
				if earlier[v.Name] != "" {
					*v.Value = earlier[v.Name]
				}
			}
		}
		if err := s.seed.makeUp(s.storeRegion()); err != nil {
			return err
		}
		// The file comes first: keys that exist and that nobody knows are of no use.
		if err := s.seed.write(s.cfg.Data, s.installation, "", ""); err != nil {
			return err
		}
		if err := s.identity.Bootstrap(ctx, s.seed.identity()); err != nil {
			return fmt.Errorf("make the first project: %w", err)
		}
		if setup, err = identity.ReadSetup(ctx, s.db); err != nil {
			return err
		}
		if setup.ProjectID == s.seed.ProjectID {
			return s.changeRegion(ctx, region)
		}
		// Another process made the first project of this database in the meantime.
		if err := os.Remove(filepath.Join(s.cfg.Data, credentialsFile)); err != nil {
			return err
		}
	}
	if err := s.identity.Bootstrap(ctx, s.seed.identity()); err != nil { // checks the sealing key
		return sealFault(s.cfg.Data, err)
	}
	if err := bindSeal(s.cfg.Data, s.installation); err != nil {
		return err
	}
	var lost bool
	if s.seed, lost, err = resume(s.cfg.Data, setup); err != nil {
		return err
	}
	if lost {
		s.log.Warn("credentials.env has no keys: nobody can recover the first ones, make new ones with quickims account add",
			"project_id", s.seed.ProjectID)
	} else if secret, _, _, err := s.identity.SecretFor(s.seed.AccessKey); err != nil || secret != string(s.seed.SecretKey) {
		s.log.Warn("the access key in credentials.env does not work: it was revoked, or the file was edited", "access_key", s.seed.AccessKey)
	}
	return s.changeRegion(ctx, region)
}

// storeRegion is the region of an S3 store, "" if it has none.
func (s *Service) storeRegion() string {
	if s.cfg.S3 == nil {
		return ""
	}
	return s.cfg.S3.Region
}

// changeRegion makes the region that the configuration or the environment names the
// service's; "" leaves it.
func (s *Service) changeRegion(ctx context.Context, region string) error {
	if region == "" || region == s.seed.Region {
		return nil
	}
	if !validRegion(region) {
		return fmt.Errorf("QUICKIMS_REGION is %q; it must be %s", region, regionForm)
	}
	if err := identity.SetRegion(ctx, s.db, region); err != nil {
		return err
	}
	s.log.Info("the region changed", "region", region, "before", s.seed.Region)
	s.seed.Region = region
	return nil
}

func (s *Service) openStore() error {
	var store objectstore.Store
	var err error
	if c := s.cfg.S3; c != nil {
		store, err = objectstore.OpenS3(objectstore.S3Config{
			Endpoint: c.Endpoint, Region: c.Region, AccessKey: c.AccessKey, SecretKey: string(c.SecretKey),
			ImageBucket: c.ImageBucket, ImagePrefix: c.ImagePrefix, PathStyle: !c.VirtualHost, CAFile: c.CAFile,
			SingleCopyLimit: int64(c.CopyPartsAbove), CopyPartSize: int64(c.CopyPartSize),
		})
	} else {
		images := s.cfg.imagesDir()
		for _, dir := range []string{s.cfg.bucketsDir(), images} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("open the object store: %w", err)
			}
		}
		s.dir, err = objectstore.OpenDir(s.cfg.bucketsDir(), images)
		store = s.dir
	}
	if err != nil {
		return fmt.Errorf("open the object store: %w", err)
	}
	s.counter = objectstore.Count(store)
	s.store = objectstore.Retry(s.counter, objectstore.RetryPolicy{})
	return nil
}

func (s *Service) listen() (err error) {
	if s.certificate, err = loadCertificate(s.cfg); err != nil {
		return err
	}
	if s.api, err = s.bind("listen", s.cfg.Listen); err != nil {
		return err
	}
	s.gates = newGates(s.cfg.proxies, s.log)
	s.api = s.gates.api.Listener(s.api)
	if config := s.certificate.config("h2", "http/1.1"); config != nil {
		s.api = tls.NewListener(s.api, config)
	}
	if s.cfg.S3Listen != "" {
		if s.s3, err = s.bind("s3_listen", s.cfg.S3Listen); err != nil {
			return err
		}
	}
	if err := s.listenMetrics(); err != nil {
		return err
	}
	return s.listenNBD()
}

func (s *Service) wire() error {
	versions, err := loadOSVersions(s.cfg.OSVersions)
	if err != nil {
		return err
	}
	s.versions.Store(versions)
	limits := s.cfg.Limits.limits()
	if s.allowance, err = s.newAllowance(); err != nil {
		return err
	}
	jobs := newJobMetrics(s.catalog)
	s.importer = importer.New(s.catalog, s.store, importer.Options{
		Began: jobs.began, Ended: jobs.ended,
		Allowance: s.allowance,
		Limits:    limits, WithoutBitmap: !s.cfg.RequireBitmap, MinDiskGreater: !s.cfg.MinDiskEqual, Region: s.seed.Region, MayRead: s.mayRead, MayWrite: s.mayWrite,
		Own: s.owner.Advance,
		OpenDisk: func(ctx context.Context, img ims.Image) (importer.Disk, error) {
			d := disks{s.cache, s.catalog, s.damage}
			dev, err := d.device(ctx, img)
			if err != nil {
				return nil, err
			}
			return disk{dev, ctx, d, img}, nil
		},
		Enqueue: func(ctx context.Context, tx *database.Tx, jobID string) error { return s.queue.Enqueue(ctx, tx, jobID) },
		Logger:  s.log,
	})
	s.queue, err = queue.New(s.db, s.importer.Work, queue.Options{Workers: s.cfg.Workers, Logger: s.log})
	if err != nil {
		return fmt.Errorf("set up the queue: %w", err)
	}
	local, err := s.openCacheFolder()
	if err != nil {
		return err
	}
	// Reads of images wait themselves for a store that fails.
	if s.cache, err = blockdev.NewCache(s.counter, blockdev.Options{Memory: int64(s.cfg.Cache.Memory), Wait: s.cfg.Store.Wait, Local: local}); err != nil {
		return fmt.Errorf("set up the cache: %w", err)
	}
	s.damage = newDamage(s.catalog, s.log)
	served := disks{s.cache, s.catalog, s.damage}
	if s.cfg.BootProfiles {
		s.boots = newBoots(s.catalog, s.log)
	}
	s.exports = newExports(served, s.boots, s.log)
	if err := s.newNBDServer(); err != nil {
		return err
	}
	uri := s.nbdURI
	if s.nbdURI("") == "" {
		uri = nil
	}
	registry := prometheus.NewRegistry()
	s.registry = registry
	registerMetrics(registry, s.counter)
	jobs.register(registry)
	registry.MustRegister(collectors.NewDBStatsCollector(s.db.Writer(), "quickims"))
	registerCacheMetrics(registry, s.cache)
	registerFolderMetrics(registry, s.folder)
	registerDiskMetrics(registry, s.allowance, int64(s.cfg.DiskReserve))
	registerExportMetrics(registry, s.exports)
	registerGateMetrics(registry, s.gates)
	registerAreaMetrics(registry, s.damage, s.owner)
	s.handler, err = api.New(api.Config{
		Catalog: s.catalog, Importer: s.importer, Auth: s.identity,
		Keystone: keystone.New(s.identity, keystone.Options{Region: s.seed.Region, PublicURL: s.cfg.PublicURL, S3URL: s.s3URL(), Outside: s.cfg.Identity.Keystone.publicURL(), Logger: s.log}),
		Disks:    served, NBDURI: uri, OSVersions: s.versions.Load, ServiceProject: s.serviceProject(), Limits: limits, OpenAPI: quickims.OpenAPI,
		Unavailable: func(err error) bool { return errors.Is(err, database.ErrUnavailable) },
		Damaged:     blockdev.Damaged, Missing: blockdev.Missing,
		Ready: s.ready, Warnings: s.warnings, Draining: s.draining.Load, Registry: registry, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("set up the API: %w", err)
	}
	return nil
}

// mayRead decides the right to a source bucket. In the directory store a bucket
// belongs to the project whose key made it, or that the operator gave it to.
func (s *Service) mayRead(ctx context.Context, projectID, bucket string) (bool, error) {
	if s.cfg.S3 != nil {
		return s.cfg.S3.may(projectID, bucket, false), nil
	}
	owner, err := s.buckets.Owner(ctx, bucket)
	if errors.Is(err, buckets.ErrNotFound) {
		return false, nil
	}
	return err == nil && owner == projectID, err
}

// mayWrite decides the right to export into a bucket. In the directory store it is the
// owner's, as every right to a bucket is.
func (s *Service) mayWrite(ctx context.Context, projectID, bucket string) (bool, error) {
	if s.cfg.S3 != nil {
		return s.cfg.S3.may(projectID, bucket, true), nil
	}
	return s.mayRead(ctx, projectID, bucket)
}

// may reports whether a project may import from a bucket, or export into it.
func (c *S3Config) may(projectID, bucket string, export bool) bool {
	return slices.ContainsFunc(c.Buckets, func(b S3Bucket) bool {
		return b.Name == bucket && (b.Exports || !export) && slices.Contains(b.Projects, projectID)
	})
}

// ready reports whether the service can take requests: its database and its store answer.
func (s *Service) ready(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if _, err := s.store.StatBucket(ctx, objectstore.ImageArea); err != nil {
		return fmt.Errorf("object store: %w", err)
	}
	return nil
}

// APIURL is the root of the API as it is bound.
func (s *Service) APIURL() string {
	scheme := "http"
	if s.cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + s.api.Addr().String()
}

func (s *Service) s3URL() string {
	if s.s3 == nil {
		return ""
	}
	scheme := "http"
	if s.cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + s.s3.Addr().String()
}

// drain waits until ctx ends, makes /readyz say so, and calls stop when load balancers
// have had the time to notice. Work that ends before ends the wait.
func (s *Service) drain(ctx, work context.Context, stop func()) {
	defer stop()
	select {
	case <-ctx.Done():
	case <-work.Done():
		return
	}
	_ = notifySystemd("STOPPING=1")
	s.draining.Store(true)
	delay := s.cfg.drainDelay()
	s.log.Info("stopping", "drain_delay", delay.String())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-work.Done():
	}
}

// Run serves until ctx ends or another process takes over, then drains: requests and
// imports under way may finish. It prints one line to stdout when it is ready to serve.
// Each value of hangups makes it reload; nil means none.
func (s *Service) Run(ctx context.Context, stdout io.Writer, hangups <-chan struct{}) error {
	defer s.Close()
	go s.reloadOn(hangups)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(serving)
	// Work in progress outlives the signal by drainTime.
	busy, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	duties := s.newDuties(busy)
	if err := duties.start(); err != nil {
		return err
	}
	if err := s.assume(); err != nil {
		abort()
		return errors.Join(err, duties.stop(busy))
	}
	// Clients of NBD are served until they were passed on.
	blocks, stopBlocks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBlocks()
	if s.nbd != nil {
		group.Go(func() error { return s.serveNBD(blocks) })
	}
	group.Go(func() error { s.drain(ctx, work, stop); return nil })
	server := api.NewServer(s.handler, s.log)
	s.gates.api.Serve(server)
	group.Go(func() error {
		if err := server.Serve(s.api); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the API: %w", err)
		}
		return nil
	})
	s3Ready := make(chan struct{})
	if s.s3 != nil {
		group.Go(func() error { return s.serveS3(work, func() { close(s3Ready) }) })
	} else {
		close(s3Ready)
	}
	if s.metrics != nil {
		group.Go(func() error { return s.serveMetrics(work) })
	}
	if s.folder != nil {
		group.Go(func() error {
			s.every(work, sweepFolderEvery, "look for deleted images in the cache folder", s.sweepFolder)
			return nil
		})
	}
	group.Go(func() error { return duties.failed(work) })
	group.Go(func() error { s.serveHandOvers(work, duties, stop); return nil })
	group.Go(func() error {
		<-work.Done()
		s.passRest()
		stopBlocks()
		return nil
	})
	group.Go(func() error {
		<-work.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		return errors.Join(server.Shutdown(drain), duties.stop(drain))
	})
	group.Go(func() error {
		select {
		case <-s3Ready:
			return s.announce(stdout)
		case <-work.Done():
			return nil
		}
	})
	return group.Wait()
}

func (s *Service) reconcile(ctx context.Context) error {
	return s.queue.Reconcile(ctx, s.catalog.Unserved)
}

// every calls f at once and then again and again until ctx ends.
func (s *Service) every(ctx context.Context, d time.Duration, what string, f func(context.Context) error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("could not "+what, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// announce writes the credentials and the ready line.
func (s *Service) announce(stdout io.Writer) error {
	if err := s.seed.write(s.cfg.Data, s.installation, s.APIURL(), s.s3URL()); err != nil {
		return err
	}
	if s.cfg.Identity.Keystone != nil { // whose users have files of their own
		if err := removeClouds(s.cfg.Data); err != nil {
			return err
		}
	} else if err := s.seed.writeClouds(s.cfg.Data, cmp.Or(s.cfg.PublicURL, s.APIURL())); err != nil {
		return err
	}
	served := ""
	if s.nbd != nil {
		served = s.nbdURI("")
	}
	line, err := json.Marshal(struct {
		Msg string `json:"msg"`
		API string `json:"api"`
		S3  string `json:"s3,omitempty"`
		NBD string `json:"nbd,omitempty"`
		// Metrics is the root of the listener that has /metrics.
		Metrics string `json:"metrics,omitempty"`
	}{"ready", s.APIURL(), s.s3URL(), served, s.metricsURL()})
	if err != nil {
		return err
	}
	if err := notifySystemd("READY=1"); err != nil {
		s.log.Warn("could not tell systemd that the service is ready", "error", err)
	}
	s.log.Info("ready", "api", s.APIURL(), "s3", s.s3URL(), "nbd", served, "metrics", s.metricsURL(), "data", s.cfg.Data)
	_, err = fmt.Fprintf(stdout, "%s\n", line)
	return err
}

// Close releases what New opened. It may be called more than once.
func (s *Service) Close() error {
	var errs []error
	errs = append(errs, s.closeControl())
	for _, l := range []net.Listener{s.api, s.s3, s.nbd, s.metrics} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if s.boots != nil {
		s.boots.Close()
	}
	if s.cache != nil {
		errs = append(errs, s.cache.Close())
	}
	if s.folder != nil {
		errs = append(errs, s.folder.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		if err := s.lock.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
