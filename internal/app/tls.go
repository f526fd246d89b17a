package app

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// certificate is the key pair of all listeners. It may be replaced while they serve:
// handshakes that begin afterwards use the new one.
type certificate struct {
	certFile, keyFile string
	pair              atomic.Pointer[tls.Certificate]
}

// loadCertificate reads the key pair; nil without one in the configuration.
func loadCertificate(c Config) (*certificate, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	cert := &certificate{certFile: c.TLSCert, keyFile: c.TLSKey}
	return cert, cert.reload()
}

// reload reads the files again. After an error the earlier pair stays in use.
func (c *certificate) reload() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("tls_cert, tls_key: %w", err)
	}
	c.pair.Store(&pair)
	return nil
}

// config is the configuration of a listener that speaks these protocols over TLS; nil
// for a nil certificate.
func (c *certificate) config(protocols ...string) *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}
