package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// Options configure a Server. What is zero takes the default in brackets.
type Options struct {
	// Open opens the export of that name, at most 4096 bytes of UTF-8, or fails with
	// ErrUnknownExport. It is called once for a connection and name, and only over TLS
	// where TLS is required. ctx is that of the opening alone. Required.
	Open func(ctx context.Context, name string) (Export, error)
	// TLS lets clients start TLS, at least 1.2. Nil: there is none.
	TLS *tls.Config
	// RequireTLS refuses everything but the start of TLS to a client in clear.
	RequireTLS bool

	// MaxConnections is how many clients that have named an export there may be at once
	// [1024]. How many others there may be is the listener's affair.
	MaxConnections int
	// MaxRequests is how many requests of a connection are under way at once [64].
	// Further ones are not read from the network until one is answered.
	MaxRequests int
	// MaxRequestBytes is the longest read in bytes, the maximum block size that
	// clients are told; a power of two, 64 KiB to 64 MiB [32 MiB].
	MaxRequestBytes int
	// ReserveBytes is what each connection may hold of data in its replies whatever
	// others hold, in bytes; a power of two of at least 64 KiB [256 KiB].
	ReserveBytes int64
	// MaxConnectionBytes bounds the data in bytes that replies of one connection hold
	// beyond that [16 MiB]. A single reply that must be one piece may be larger.
	MaxConnectionBytes int64
	// MaxBytes bounds the data in bytes that replies of all connections hold [512 MiB].
	// What the reserves of MaxConnections leave of it is shared: connections of one
	// export hold together no more of that than they leave free.
	MaxBytes int64

	// HandshakeTimeout is the time that a client has to begin the transmission [20 s].
	HandshakeTimeout time.Duration
	// RequestTimeout is the time in which a request that has begun to arrive must have
	// arrived; of a payload each MiB [30 s]. Between requests a client may be silent.
	RequestTimeout time.Duration
	// WriteTimeout is the time that a client has at least to take each MiB of the replies;
	// after half as much again it is cut [30 s].
	WriteTimeout time.Duration
	// DrainTimeout is how long requests under way may go on after Serve's context ended [10 s].
	DrainTimeout time.Duration

	// Logger gets what goes wrong [slog.Default].
	Logger *slog.Logger
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// withDefaults fills in what is zero and checks the rest.
func (o Options) withDefaults() (Options, error) {
	if o.Open == nil {
		return o, errors.New("NBD server: Open is missing")
	}
	if o.RequireTLS && o.TLS == nil {
		return o, errors.New("NBD server: TLS is required, but there is no certificate")
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.MinVersion = max(o.TLS.MinVersion, tls.VersionTLS12)
		o.TLS.DynamicRecordSizingDisabled = true // it is for web pages
	}
	orDefault(&o.MaxConnections, 1024)
	orDefault(&o.MaxRequests, 64)
	orDefault(&o.MaxRequestBytes, 32<<20)
	orDefault(&o.ReserveBytes, 256<<10)
	orDefault(&o.MaxConnectionBytes, max(16<<20, o.ReserveBytes))
	orDefault(&o.MaxBytes, max(512<<20, 2*int64(o.MaxConnections)*o.ReserveBytes))
	orDefault(&o.HandshakeTimeout, 20*time.Second)
	orDefault(&o.RequestTimeout, 30*time.Second)
	orDefault(&o.WriteTimeout, 30*time.Second)
	orDefault(&o.DrainTimeout, 10*time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MaxConnections < 0 || o.MaxRequests < 0 ||
		o.HandshakeTimeout < 0 || o.RequestTimeout < 0 || o.WriteTimeout < 0 || o.DrainTimeout < 0 {
		return o, errors.New("NBD server: limits must not be negative")
	}
	if n := o.MaxRequestBytes; n < 64<<10 || n > 64<<20 || n&(n-1) != 0 {
		return o, fmt.Errorf("NBD server: MaxRequestBytes is %d, it must be a power of two between 64 KiB and 64 MiB", n)
	}
	if n := o.ReserveBytes; n < 64<<10 || n&(n-1) != 0 || n > o.MaxConnectionBytes {
		return o, fmt.Errorf("NBD server: ReserveBytes is %d, it must be a power of two between 64 KiB and MaxConnectionBytes, %d", n, o.MaxConnectionBytes)
	}
	if n := o.poolBytes(); n < 0 {
		return o, fmt.Errorf("NBD server: MaxBytes is %d, which is %d less than the reserves of %d connections", o.MaxBytes, -n, o.MaxConnections)
	}
	return o, nil
}

// poolBytes is what the reserves leave of MaxBytes.
func (o *Options) poolBytes() int64 { return o.MaxBytes - int64(o.MaxConnections)*o.ReserveBytes }

// maxPayload is the longest payload of a request that is read and thrown away; the
// connection of a longer one is cut.
func (o *Options) maxPayload() uint64 { return max(uint64(o.MaxRequestBytes), wire.MaxSaneLength) }
