package nbd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// authority makes a certificate for 127.0.0.1 and the folder with the authority's own
// that clients trust.
func authority(t testing.TB) (server *tls.Config, client *tls.Config, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	pool := x509.NewCertPool()
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	pool.AppendCertsFromPEM(caPEM)
	if err := os.WriteFile(filepath.Join(dir, "ca-cert.pem"), caPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}, dir
}

// The clients that people use read over TLS what they read in clear.
func TestRealClientsOverTLS(t *testing.T) {
	t.Parallel()
	server, _, dir := authority(t)
	m := newMemory(8, 9<<20)
	s := start(t, "tcp", m, Options{TLS: server, RequireTLS: true})
	host, port, _ := net.SplitHostPort(s.address)
	judge(t, "nbds://"+s.address+"/"+secret+"?tls-certificates="+dir, []string{
		"--object", "tls-creds-x509,id=tls0,endpoint=client,dir=" + dir,
		"--image-opts", "driver=raw,file.driver=nbd,file.host=" + host + ",file.port=" + port + ",file.export=" + secret + ",file.tls-creds=tls0"}, m)
}

// With TLS required a client in clear gets nothing, whatever it asks for, and the export
// is not even opened.
func TestTLSRequired(t *testing.T) {
	t.Parallel()
	server, client, _ := authority(t)
	m := newMemory(9, 1<<20)
	s := start(t, "tcp", m, Options{TLS: server, RequireTLS: true})
	c := s.conn(t)
	for option, data := range map[wire.Option][]byte{
		wire.OptList: nil, wire.OptGo: nbdtest.InfoData(secret), wire.OptInfo: nbdtest.InfoData("guess"), wire.OptStructuredReply: nil,
		wire.OptExtendedHeaders: nil, wire.OptSetMetaContext: nil, wire.OptListMetaContext: {1}, 77: nil,
	} {
		_, err := c.Option(option, data)
		if o := refused(t, err); o.Reply != wire.RepErrTLSRequired {
			t.Errorf("option %d: %v", option, err)
		}
	}
	if err := s.conn(t).GoByName(secret); err == nil {
		t.Error("an export was named in clear and served")
	}
	if err := c.StartTLS(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	_, err := c.Option(wire.OptStartTLS, nil)
	if o := refused(t, err); o.Reply != wire.RepErrInvalid {
		t.Errorf("TLS twice: %v", err)
	}
	_, err = c.Option(wire.OptGo, nbdtest.InfoData("guess"))
	if o := refused(t, err); o.Reply != wire.RepErrUnknown {
		t.Errorf("an unknown export over TLS: %v", err)
	}
	if err := c.Go(secret); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	if r, err := c.Do(wire.Request{Command: wire.CmdRead, Offset: 512, Length: 4096}, p); err != nil || r.Err() != nil || !bytes.Equal(p, m.data[512:512+4096]) {
		t.Errorf("a read over TLS: %v, %v", r, err)
	}
}

// What was agreed on in clear does not count over TLS, and bytes that were sent in clear
// are never taken for bytes of the session.
func TestNothingIsCarriedIntoTLS(t *testing.T) {
	t.Parallel()
	server, client, _ := authority(t)
	m := newMemory(10, 1<<20)
	s := start(t, "tcp", m, Options{TLS: server})

	c := s.conn(t)
	if err := c.AskStructured(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Contexts(true, secret, wire.BaseAllocation); err != nil {
		t.Fatal(err)
	}
	if err := c.StartTLS(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	_, err := c.Contexts(true, secret, wire.BaseAllocation)
	if o := refused(t, err); o.Reply != wire.RepErrInvalid {
		t.Errorf("structured replies were carried over: %v", err)
	}
	if err := c.Go(secret); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Do(wire.Request{Command: wire.CmdBlockStatus, Length: 512}, nil); err != nil || r.Errno != wire.EINVAL {
		t.Errorf("a context was carried over: %+v, %v", r, err)
	}

	// An attacker between them puts options of its own behind the start of TLS.
	injected := s.conn(t)
	both := nbdtest.AppendOption(nil, wire.OptStartTLS, nil)
	both = nbdtest.AppendOption(both, wire.OptGo, nbdtest.InfoData(secret))
	if _, err := injected.Stream().Write(both); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(injected.Stream()); len(out) > 0 {
		t.Errorf("bytes in clear behind the start of TLS were answered with %q, %v", out, err)
	}
}

// A client that can't do TLS 1.2 or breaks off in the middle is cut; the server goes on.
func TestBrokenTLS(t *testing.T) {
	t.Parallel()
	server, client, _ := authority(t)
	s := start(t, "tcp", newMemory(11, 1<<20), Options{TLS: server})
	old := client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := s.conn(t).StartTLS(t.Context(), old); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	for _, garbage := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff", strings.Repeat("\x00", 4096)} {
		c := s.conn(t)
		if _, err := c.Option(wire.OptStartTLS, nil); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c.Stream(), garbage)
		_ = c.Stream().(*net.TCPConn).CloseWrite() // fails when the server was quicker
		if _, err := io.Copy(io.Discard, c.Stream()); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("after %q: %v", garbage, err)
		}
	}
	plain := s.conn(t)
	if err := plain.Go(secret); err != nil {
		t.Errorf("a client in clear, where that is allowed: %v", err)
	}
	none := start(t, "tcp", newMemory(11, 1<<20), Options{})
	_, err := none.conn(t).Option(wire.OptStartTLS, nil)
	if o := refused(t, err); o.Reply != wire.RepErrPolicy {
		t.Errorf("TLS where there is none: %v", err)
	}
}
