package serve

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
)

// reader is a connection that has an attachment open.
type reader struct{ *nbdtest.Client }

// open opens a nbd:// or nbd+unix:// URI.
func open(t *testing.T, uri string) reader {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	network, address := "tcp", u.Host
	if socket := u.Query().Get("socket"); socket != "" {
		network, address = "unix", socket
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := nbdtest.Dial(ctx, network, address, nbdtest.Config{Export: strings.TrimPrefix(u.Path, "/")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return reader{c}
}

func (r reader) mustRead(t *testing.T) {
	t.Helper()
	if err := r.Read(make([]byte, 4096), 0); err != nil {
		t.Fatalf("a read of an attachment that lasts: %v", err)
	}
}

// isCut waits until reads fail because the connection is gone, not because of an error
// that the server told.
func (r reader) isCut(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		err := r.Read(make([]byte, 4096), 0)
		if told, ok := errors.AsType[*nbdtest.Error](err); ok {
			t.Fatalf("the server answered %v, the connection should be cut", told)
		}
		if err != nil {
			return
		}
	}
	t.Fatal("the connection is still there")
}
