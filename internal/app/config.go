package app

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectcache"
	"github.com/quickims/quickims/internal/pinned"
	"github.com/quickims/quickims/internal/s3face"
)

// Secret is a text that prints masked.
type Secret = identity.Secret

// Config is everything that an operator can set. Flags of serve override the file's
// values; the file's override the defaults.
type Config struct {
	// Data is the folder that holds all state of the default set-up: the database,
	// the buckets, the images, the credentials.
	Data string `yaml:"data"`
	// Listen is the address of the API, host:port; port 0 picks a free one.
	Listen string `yaml:"listen"`
	// TLSCert and TLSKey are PEM files. With them the listeners speak TLS; that of the
	// metrics only where other machines reach it.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`
	// AllowPlainHTTP lets API, S3 and metrics listen without TLS where other machines
	// reach them: behind a proxy that speaks TLS.
	AllowPlainHTTP bool `yaml:"allow_plain_http"`
	// MetricsListen is the address of /metrics, host:port; port 0 picks a free one.
	// Empty: there is none.
	MetricsListen string `yaml:"metrics_listen"`
	// DrainDelay is how long a service that was told to stop goes on serving while
	// /readyz says 503, so that a load balancer stops sending clients first. Unset: 5 s
	// with PostgreSQL; 0 with SQLite, where no other process could take the clients.
	DrainDelay *time.Duration `yaml:"drain_delay"`
	// S3Listen, if set, serves the directory store's buckets over S3.
	S3Listen string `yaml:"s3_listen"`
	// S3Domains are host names below which the buckets of S3Listen are named too:
	// BUCKET.DOMAIN.
	S3Domains []string `yaml:"s3_domain"`
	// NBDListen, if set, serves attachments over NBD: host:port, or unix:PATH.
	NBDListen string `yaml:"nbd_listen"`
	// NBDPublic is the host:port that URIs of attachments name, where that differs from
	// the listener's: behind NAT, or when another process with the same database serves
	// them.
	NBDPublic string `yaml:"nbd_public"`
	// NBDRequireTLS refuses clients in clear. Unset: on addresses that other machines
	// can reach.
	NBDRequireTLS *bool `yaml:"nbd_require_tls"`
	// Database is a postgres:// URL; empty means SQLite in Data.
	Database Secret `yaml:"database"`
	// PublicURL is the API's root as clients see it, where that differs from what
	// their requests say (behind a proxy). Empty: taken from the request.
	PublicURL string `yaml:"public_url"`
	// TrustedProxies are the networks of the reverse proxies whose X-Forwarded-For names
	// the callers' addresses.
	TrustedProxies []string      `yaml:"trusted_proxies"`
	proxies        admit.Proxies // what Validate read of them
	// Region is the region of the service, in place of that of the environment and of
	// earlier starts. Empty: QUICKIMS_REGION, or else the region of earlier starts; at the
	// first start S3.Region, or else "local".
	Region string `yaml:"region"`
	// DiskReserve is kept free on the disk that SQLite lies on; 0: nothing is.
	DiskReserve Size `yaml:"disk_reserve"`
	// OSVersions is a CSV file of further operating systems.
	OSVersions string `yaml:"os_versions"`
	// RequireBitmap wants a bitmap beside every RAW file.
	RequireBitmap bool `yaml:"require_bitmap"`
	// MinDiskEqual takes a system disk of exactly min_disk.
	MinDiskEqual bool `yaml:"min_disk_equal"`
	// Workers is how many imports run at once, 1 to 64.
	Workers int          `yaml:"workers"`
	Limits  LimitsConfig `yaml:"limits"`
	Cache   CacheConfig  `yaml:"cache"`
	Store   StoreConfig  `yaml:"store"`
	// BootProfiles says whether the service learns what machines read at their start, and
	// has it fetched for the next one.
	BootProfiles bool      `yaml:"boot_profiles"`
	S3           *S3Config `yaml:"s3"`
	// Identity says who callers are, if it is not the service itself.
	Identity IdentityConfig `yaml:"identity"`
}

// LimitsConfig bounds what each project may hold and run.
type LimitsConfig struct {
	Images  int `yaml:"images"`  // private images
	Imports int `yaml:"imports"` // imports at once
	// Attachments at once.
	Attachments int `yaml:"attachments"`
	// Bytes in buckets and images together; 0: no limit.
	Bytes Size `yaml:"bytes"`
	// AttachmentsReader is how many of these the project's readers may have together;
	// 0 means half.
	AttachmentsReader int `yaml:"attachments_reader"`
}

func (l LimitsConfig) limits() ims.Limits {
	return ims.Limits{Images: l.Images, Imports: l.Imports, Attachments: l.Attachments, AttachmentsReader: l.AttachmentsReader, Bytes: int64(l.Bytes)}
}

// CacheConfig bounds what is kept of images that are read.
type CacheConfig struct {
	// Memory is for blocks, fetches under way and what is known of the images.
	Memory Size `yaml:"memory"`
	// Dir is a folder for bytes of objects, which survive restarts there, DirSize how much
	// may lie in it. Empty: memory alone.
	Dir     string `yaml:"dir"`
	DirSize Size   `yaml:"dir_size"`
}

// StoreConfig says how the object store is used.
type StoreConfig struct {
	// Wait is how long a read of an image waits for a store that fails.
	Wait time.Duration `yaml:"wait"`
}

// maxStoreWait is the longest wait for the store: clients have times of their own.
const maxStoreWait = time.Hour

func (c *CacheConfig) validate() error {
	if c.Memory < blockdev.MinMemory {
		return fmt.Errorf("cache.memory is %s, it must be at least %s", c.Memory, Size(blockdev.MinMemory))
	}
	if c.DirSize < objectcache.MinSize {
		return fmt.Errorf("cache.dir_size is %s, it must be at least %s", c.DirSize, Size(objectcache.MinSize))
	}
	return absolute(&c.Dir)
}

// S3Config names an S3-compatible store in place of the directory store.
type S3Config struct {
	Endpoint  string `yaml:"endpoint"` // http(s)://host:port
	Region    string `yaml:"region"`
	AccessKey string `yaml:"access_key"`
	SecretKey Secret `yaml:"secret_key"`
	// ImageBucket and ImagePrefix are where images' data lies. No caller can name them.
	ImageBucket string `yaml:"image_bucket"`
	ImagePrefix string `yaml:"image_prefix"`
	// VirtualHost addresses buckets as host names; the default is by path.
	VirtualHost bool   `yaml:"virtual_host"`
	CAFile      string `yaml:"ca_file"`
	// CopyPartsAbove is the largest object that is copied in one request, CopyPartSize
	// the size of the parts of a larger one. 0: 5 GiB, the protocol's limit, and 512 MiB.
	CopyPartsAbove Size `yaml:"copy_parts_above"`
	CopyPartSize   Size `yaml:"copy_part_size"`
	// Buckets names each bucket that projects may import from.
	Buckets []S3Bucket `yaml:"buckets"`
}

// S3Bucket says which projects may import from a bucket, and whether they may export into
// it.
type S3Bucket struct {
	Name     string   `yaml:"name"`
	Projects []string `yaml:"projects"`
	Exports  bool     `yaml:"exports"`
}

// DefaultConfig is what holds where an operator says nothing. Data has no default.
func DefaultConfig() Config {
	return Config{DiskReserve: allowance.DefaultReserve, Listen: "127.0.0.1:9292", MetricsListen: "127.0.0.1:0", Workers: 4, RequireBitmap: true, MinDiskEqual: true, BootProfiles: true,
		Limits: LimitsConfig{Images: 100, Imports: 10, Attachments: ims.DefaultAttachments},
		Cache:  CacheConfig{Memory: blockdev.DefaultMemory, DirSize: objectcache.DefaultSize}, Store: StoreConfig{Wait: pinned.DefaultWait}}
}

const (
	// defaultDrainDelay is that of a service with PostgreSQL.
	defaultDrainDelay = 5 * time.Second
	maxDrainDelay     = 10 * time.Minute
)

func (c *Config) drainDelay() time.Duration {
	switch {
	case c.DrainDelay != nil:
		return *c.DrainDelay
	case c.Database != "":
		return defaultDrainDelay
	}
	return 0
}

// LoadConfig reads a YAML file over the defaults. Keys that are not known are errors
// that name the line.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(&c); err != nil && len(bytes.TrimSpace(data)) > 0 {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// Validate checks every value. Paths become absolute.
func (c *Config) Validate() error {
	if c.Data == "" {
		return errors.New("data: name the folder that holds the service's state (--data DIR)")
	}
	for _, path := range []*string{&c.Data, &c.TLSCert, &c.TLSKey, &c.OSVersions} {
		if err := absolute(path); err != nil {
			return err
		}
	}
	for name, addr := range map[string]string{"listen": c.Listen, "s3_listen": c.S3Listen, "metrics_listen": c.MetricsListen} {
		if _, _, err := net.SplitHostPort(addr); (addr != "" || name == "listen") && err != nil {
			return fmt.Errorf("%s: %q is not host:port: %w", name, addr, err)
		}
	}
	for _, name := range c.S3Domains {
		if err := s3face.CheckDomain(name); err != nil {
			return err
		}
	}
	var err error
	if c.proxies, err = admit.ParseProxies(c.TrustedProxies); err != nil {
		return fmt.Errorf("trusted_proxies: %w", err)
	}
	if err := c.validateNBD(); err != nil {
		return err
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("tls_cert and tls_key belong together, set both or neither")
	}
	if err := c.validatePlainHTTP(); err != nil {
		return err
	}
	if c.DrainDelay != nil && (*c.DrainDelay < 0 || *c.DrainDelay > maxDrainDelay) {
		return fmt.Errorf("drain_delay is %s; it must be 0s to %s", *c.DrainDelay, maxDrainDelay)
	}
	if c.Region != "" && !validRegion(c.Region) {
		return fmt.Errorf("region is %q; it must be %s", c.Region, regionForm)
	}
	if c.Workers < 1 || c.Workers > 64 {
		return fmt.Errorf("workers is %d, it must be 1 to 64", c.Workers)
	}
	if c.Limits.Images < 1 || c.Limits.Imports < 1 || c.Limits.Attachments < 1 {
		return errors.New("limits: images, imports and attachments must be at least 1")
	}
	if c.Limits.AttachmentsReader < 0 || c.Limits.AttachmentsReader > c.Limits.Attachments {
		return fmt.Errorf("limits.attachments_reader is %d; it must be 1 to limits.attachments (%d), or 0 for half of that",
			c.Limits.AttachmentsReader, c.Limits.Attachments)
	}
	if err := c.Cache.validate(); err != nil {
		return err
	}
	if c.Store.Wait < time.Second || c.Store.Wait > maxStoreWait {
		return fmt.Errorf("store.wait is %s; it must be 1s to %s", c.Store.Wait, maxStoreWait)
	}
	if db := string(c.Database); db != "" && !strings.HasPrefix(db, "postgres://") && !strings.HasPrefix(db, "postgresql://") {
		return errors.New("database: it must be a postgres:// URL; leave it out for SQLite in the data folder")
	}
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("public_url: %q is not http(s)://host", c.PublicURL)
		}
		c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	}
	if err := c.Identity.Keystone.validate(); err != nil {
		return err
	}
	if c.S3 == nil {
		return nil
	}
	if c.S3Listen != "" {
		return errors.New("s3_listen serves the directory store; with an s3 store its own endpoint serves clients")
	}
	return c.S3.validate()
}

func (c *S3Config) validate() error {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("s3.endpoint: %q is not http(s)://host:port", c.Endpoint)
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		return errors.New("s3: access_key and secret_key are required")
	}
	if !ims.ValidBucketName(c.ImageBucket) {
		return fmt.Errorf("s3.image_bucket: %q is no bucket name", c.ImageBucket)
	}
	if err := absolute(&c.CAFile); err != nil {
		return err
	}
	for _, b := range c.Buckets {
		switch {
		case !ims.ValidBucketName(b.Name):
			return fmt.Errorf("s3.buckets: %q is no bucket name", b.Name)
		case b.Name == c.ImageBucket:
			return fmt.Errorf("s3.buckets: %q is the image bucket, nobody may import from it", b.Name)
		case len(b.Projects) == 0:
			return fmt.Errorf("s3.buckets: %q names no project that may import from it", b.Name)
		}
	}
	return nil
}

func absolute(path *string) error {
	if *path == "" {
		return nil
	}
	abs, err := filepath.Abs(*path)
	if err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	*path = abs
	return nil
}

// loadOSVersions is the table that the service comes with and the operator's rows.
func loadOSVersions(path string) (*ims.OSVersions, error) {
	table := ims.DefaultOSVersions()
	if path == "" {
		return table, nil
	}
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("os_versions: there is no file %s", path)
		}
		return nil, fmt.Errorf("os_versions: %w", err)
	}
	defer f.Close()
	if table, err = table.Extend(f); err != nil {
		return nil, fmt.Errorf("os_versions: %s: %w", path, err)
	}
	return table, nil
}

// regionForm says what validRegion takes. Regions are part of signatures and catalogs.
const regionForm = "1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or a digit"

var validRegion = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$`).MatchString
