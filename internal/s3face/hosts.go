package s3face

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// hosts knows the names that this service is reached by. Each takes path style,
// and buckets below it.
type hosts struct {
	names []string // lower case, the longest first: the name before it is the bucket
	tls   *tls.Config
}

var domainName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// CheckDomain says why a name cannot be one of Config.Domains.
func CheckDomain(name string) error {
	if len(name) > 253 || !domainName.MatchString(name) {
		return fmt.Errorf("s3_domain is %.80q; it must be a host name in lower case, without a port", name)
	}
	return nil
}

// newHosts collects the names: those of the configuration, the machine's, and the
// certificate's.
func newHosts(cfg Config) *hosts {
	h := &hosts{names: slices.Clone(cfg.Domains), tls: cfg.TLS}
	if name, err := os.Hostname(); err == nil {
		h.names = append(h.names, strings.ToLower(name))
	}
	h.names = append(h.names, "localhost")
	byLength(h.names)
	return h
}

func byLength(names []string) {
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
}

// certificate lists the names of the certificate, which may have been replaced
// since the start.
func (h *hosts) certificate() []string {
	if h.tls == nil {
		return nil
	}
	var cert *tls.Certificate
	switch {
	case h.tls.GetCertificate != nil:
		cert, _ = h.tls.GetCertificate(&tls.ClientHelloInfo{}) // none: no names
	case len(h.tls.Certificates) > 0:
		cert = &h.tls.Certificates[0]
	}
	if cert == nil || cert.Leaf == nil {
		return nil
	}
	var names []string
	for _, name := range cert.Leaf.DNSNames {
		names = append(names, strings.ToLower(strings.TrimPrefix(name, "*.")))
	}
	byLength(names)
	return names
}

// bucket returns the bucket that a host names, "" for path style. A host that
// is none of ours is refused: its first label may or may not be a bucket.
func (h *hosts) bucket(host string) (string, *wire.Error) {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if net.ParseIP(strings.Trim(name, "[]")) != nil || !strings.Contains(name, ".") {
		return "", nil // no bucket can stand before an address or a plain name
	}
	for _, names := range []func() []string{func() []string { return h.names }, h.certificate} {
		for _, ours := range names() {
			if name == ours {
				return "", nil
			}
			if bucket, ok := strings.CutSuffix(name, "."+ours); ok {
				return bucket, nil
			}
		}
	}
	return "", wire.Errorf("InvalidRequest", "The host %.100q is not a name of this service, so it is unclear whether it names a bucket. "+
		"Use path style (https://HOST/BUCKET/KEY; \"path-style addressing\" or \"force path style\" in your client), or let the operator name the host as s3_domain.", name).With("HostName", name)
}
