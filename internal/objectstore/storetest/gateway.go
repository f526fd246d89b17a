package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

// gatewayEnv tells a test binary to be a gateway: the folder of its buckets.
const gatewayEnv = "QUICKIMS_TEST_GATEWAY"

// Names inside a gateway's folder.
const (
	gatewayBuckets = "b"
	gatewaySocket  = "s"
	gatewayCounts  = "c"
)

// MaybeGateway turns the process into a gateway if it was started as one. Call
// it first in TestMain of every package that starts gateways: the library
// allows one gateway a process and changes the working directory, so each runs
// in a process of its own, which is the test binary again.
func MaybeGateway() {
	dir := os.Getenv(gatewayEnv)
	if dir == "" {
		return
	}
	if err := runGateway(dir); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runGateway serves dir until standard input ends, which it does when the
// parent is gone. It tells on descriptor 3 that it is ready.
func runGateway(dir string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	be, err := posix.New(filepath.Join(dir, gatewayBuckets), meta.XattrMeta{}, posix.PosixOpts{CopyObjectThreshold: 1 << 40})
	if err != nil {
		return err
	}
	counts, err := os.OpenFile(filepath.Join(dir, gatewayCounts), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer counts.Close()
	address := os.Getenv(gatewayEnv + "_ADDRESS")
	if address == "" {
		address = filepath.Join(dir, gatewaySocket)
	}
	ready := os.NewFile(3, "ready")
	return embedgw.RunVersityGW(ctx, &countedBackend{Posix: be, file: counts}, &embedgw.Config{
		RootUserAccess: os.Getenv(gatewayEnv + "_ACCESS"),
		RootUserSecret: os.Getenv(gatewayEnv + "_SECRET"),
		Ports:          []string{address},
		MaxConnections: 1024, MaxRequests: 512, MultipartMaxParts: 10000,
		Quiet: true, KeepAlive: true,
		S3Options: []s3api.Option{s3api.WithOnListen(func() { ready.Close() })},
	})
}

// Gateway is a running versitygw, a real S3 server over a folder.
type Gateway struct {
	URL                  string // the root of the service, http://127.0.0.1:port
	AccessKey, SecretKey string
	Folder               string // holds a folder for each bucket
	Client               *minio.Client

	faults atomic.Pointer[func(http.Handler) http.Handler]
}

// Use puts a middleware between the clients and the gateway, in place of the
// last one; nil takes it out. Tests plan their faults with it.
func (g *Gateway) Use(mw func(next http.Handler) http.Handler) {
	if mw == nil {
		g.faults.Store(nil)
		return
	}
	g.faults.Store(&mw)
}

// MakeBucket makes a bucket with a name of its own.
func (g *Gateway) MakeBucket(t testing.TB) string {
	t.Helper()
	name := "b-" + randomName()
	if err := g.Client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
	return name
}

// randomName returns a name that is fit for a bucket.
func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x", b)
}

// StartGateway starts a gateway over a fresh folder; it ends with the test.
func StartGateway(t testing.TB) *Gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw") // t.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return StartGatewayIn(t, dir)
}

// StartGatewayIn starts a gateway over a folder, whose path is short. It ends
// with the test.
func StartGatewayIn(t testing.TB, dir string) *Gateway {
	t.Helper()
	g := &Gateway{AccessKey: "key" + randomName(), SecretKey: "secret" + randomName(), Folder: filepath.Join(dir, gatewayBuckets)}
	if err := os.MkdirAll(g.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	startGateway(t, g, dir, "")
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, gatewaySocket))
		},
		MaxIdleConnsPerHost: 64, DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // clients hear of it
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "gateway"
			r.Out.Host = r.In.Host // it is signed
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var h http.Handler = proxy
		if mw := g.faults.Load(); mw != nil {
			h = (*mw)(proxy)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	g.connect(t, front.URL)
	return g
}

// StartDirectGatewayIn starts a gateway over a folder that listens on a port of
// its own, with nothing between it and its clients: for measuring. Use has no
// effect on it. It ends with the test.
func StartDirectGatewayIn(t testing.TB, dir string) *Gateway {
	t.Helper()
	g := &Gateway{AccessKey: "key" + randomName(), SecretKey: "secret" + randomName(), Folder: filepath.Join(dir, gatewayBuckets)}
	if err := os.MkdirAll(g.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	// The library does not say which port it got for port 0.
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	startGateway(t, g, dir, address)
	g.connect(t, "http://"+address)
	return g
}

// startGateway starts the process and waits until it is ready.
func startGateway(t testing.TB, g *Gateway, dir, address string) {
	t.Helper()
	ready, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), gatewayEnv+"="+dir, gatewayEnv+"_ADDRESS="+address, gatewayEnv+"_ACCESS="+g.AccessKey, gatewayEnv+"_SECRET="+g.SecretKey)
	var said bytes.Buffer // what it complains of matters only when a test fails
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.ExtraFiles = []*os.File{readyW}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	readyW.Close()
	if err != nil {
		t.Fatalf("start a gateway: %v", err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the gateway ended: %v", err)
		}
		if t.Failed() {
			t.Logf("the gateway said:\n%s", said.Bytes())
		}
	})
	if _, err := ready.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("wait for the gateway: %v", err)
	}
}

// connect makes the client of the gateway at that root.
func (g *Gateway) connect(t testing.TB, root string) {
	t.Helper()
	g.URL = root
	u, err := url.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	g.Client, err = minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(g.AccessKey, g.SecretKey, ""),
		Region: "us-east-1",
	})
	if err != nil {
		t.Fatal(err)
	}
}
