package s3clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(removing{m}) }

// removing runs the tests and removes what they installed.
type removing struct{ *testing.M }

func (m removing) Run() int {
	code := m.M.Run()
	if jsDir != "" {
		os.RemoveAll(jsDir)
	}
	return code
}

// site is a started quickims with an authority of its own if it serves https, and the
// files that the clients upload.
type site struct {
	*harness.Server
	over  string // "http" or "https"
	ca    string // file of the authority; empty over http
	files string // folder with 0B, 3B, 200KB, 20MB and odd/
	http  *http.Client
	// endpoint is the URL that the client is told, and proxy the proxy that it goes
	// through if it names buckets as hosts; else proxy is empty.
	endpoint, proxy string
}

// oddNames are file names that a key carries through a URL, a header and XML. Each of
// them came back changed from some client or server once.
var oddNames = []string{
	"a+b", "with space", "100%", "50%25", "ünï-日本-🙂", `<&>"'`, "semi;colon=?#hash", "~(paren)*!$@,:[]",
	"dir + sign/ä b", "trailing ", " leading", "+", "a%2Fb", "back\\slash", "é-decomposed", "dot.", ".hidden",
}

func newSite(t *testing.T, over string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{over: over, files: filepath.Join(dir, "files"), http: &http.Client{}}
	options := harness.Options{S3: true, Config: "s3_domain: [" + domain + "]\n"}
	if over == "https" {
		s.ca = filepath.Join(dir, "ca.pem")
		pool := certificate(t, dir)
		s.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		options.Args = []string{"--tls-cert", filepath.Join(dir, "cert.pem"), "--tls-key", filepath.Join(dir, "key.pem")}
	}
	s.Server = harness.Start(t, options)
	s.endpoint = s.S3URL
	random := mathrand.NewChaCha8([32]byte{1})
	for name, size := range map[string]int{"0B": 0, "3B": 3, "200KB": 200_000, "20MB": 20_000_000} {
		data := make([]byte, size)
		random.Read(data)
		s.write(t, name, data)
	}
	for _, name := range oddNames {
		s.write(t, filepath.Join("odd", name), []byte("content of "+name))
	}
	return s
}

func (s *site) write(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join(s.files, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// file is the content of one of the site's files.
func (s *site) file(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.files, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// certificate writes ca.pem, cert.pem and key.pem: an authority and a certificate of
// its for 127.0.0.1, the domain and its buckets. It returns a pool that holds the authority.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	sign := func(cert, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
		cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER := sign(ca, ca, caKey, caKey)
	write("ca.pem", "CERTIFICATE", caDER)
	write("cert.pem", "CERTIFICATE", sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames: []string{domain, "*." + domain},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, key, caKey))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write("key.pem", "PRIVATE KEY", der)
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}
