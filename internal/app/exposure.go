package app

import (
	"fmt"
	"net"
)

// exposed reports whether other machines reach a listener at addr, host:port. An empty
// host stands for all addresses of this machine.
func exposed(addr string) (bool, error) {
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return false, err
	}
	return !at.IP.IsLoopback(), nil // no IP: all addresses
}

// validatePlainHTTP refuses to send passwords, tokens and the data of images in clear
// where other machines listen, unless the operator says that a proxy speaks TLS.
func (c *Config) validatePlainHTTP() error {
	if c.TLSCert != "" || c.AllowPlainHTTP {
		return nil
	}
	for _, l := range []struct{ name, addr string }{
		{"listen", c.Listen}, {"s3_listen", c.S3Listen}, {"metrics_listen", c.MetricsListen},
	} {
		if l.addr == "" {
			continue
		}
		open, err := exposed(l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if open {
			return fmt.Errorf("%s: %s can be reached from other machines, and passwords, tokens and data would cross the network in clear: set tls_cert and tls_key; "+
				"or listen on 127.0.0.1; or, behind a proxy that speaks TLS, set allow_plain_http: true", l.name, l.addr)
		}
	}
	return nil
}
