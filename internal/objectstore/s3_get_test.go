package objectstore_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// openS3At is a store at a server that is none.
func openS3At(t *testing.T, endpoint string) *objectstore.S3 {
	t.Helper()
	s, err := objectstore.OpenS3(objectstore.S3Config{
		Endpoint: endpoint, AccessKey: "access", SecretKey: "the secret", PathStyle: true, ImageBucket: "images",
	})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

var anyDisk = objectstore.Location{Bucket: "bucket", Key: "disk.raw"}

// The connection of an answer that is an error is used again, also where the body's
// length is not told before, as Amazon S3 does.
func TestErrorsCostNoConnection(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"S3's":    `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`,
		"HTML":    "<html><head><title>503</title></head><body>" + strings.Repeat("Service unavailable. ", 1000) + "</body></html>",
		"no text": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
				w.(http.Flusher).Flush() // so that the body comes in chunks
				_, _ = io.WriteString(w, body)
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			t.Cleanup(server.Close)
			s := openS3At(t, server.URL)
			for range 10 {
				if _, err := s.Open(t.Context(), anyDisk, objectstore.Condition{}, 0, 10); !errors.Is(err, objectstore.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			if n := connections.Load(); n != 1 {
				t.Errorf("10 reads took %d connections", n)
			}
		})
	}
}

// An error whose body does not end is an error all the same, by its status.
func TestErrorThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "<Error><Code>")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	s := openS3At(t, server.URL)
	s.SetStall(50 * time.Millisecond)
	if _, err := s.Open(t.Context(), anyDisk, objectstore.Condition{}, 0, 10); !errors.Is(err, objectstore.ErrUnavailable) {
		t.Error(err)
	}
}

// What is no HTTP, or ends within it, may be better the next time.
func TestAnswersThatAreNoHTTP(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"what?\r\n\r\n", "HTTP/1.1 two hundred\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "HTTP/1.1 200", ""} {
		t.Run(fmt.Sprintf("%.12q", answer), func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}))
			t.Cleanup(server.Close)
			if _, err := openS3At(t, server.URL).Open(t.Context(), anyDisk, objectstore.Condition{}, 0, 10); !errors.Is(err, objectstore.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
}

// Of a clock that was set, or a machine that slept, nothing is left in what is signed
// afterwards: a store refuses what was signed at another time than its own.
func TestSignaturesWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	s := newS3Store(t, g, nil)
	from := objectstore.Location{Bucket: g.MakeBucket(t), Key: "disk.raw"}
	s.write(t, from.Bucket, from.Key, []byte("content"))
	info := stat(t, s, from)
	for _, d := range []time.Duration{time.Hour, -time.Hour} {
		wantRead(t, s, from, info, []byte("content"))
		until, ok := s.SignatureUntil(from)
		if !ok {
			t.Fatal("no signature is kept")
		}
		s.SetClock(d)
		wantRead(t, s, from, info, []byte("content"))
		if now, _ := s.SignatureUntil(from); !now.After(until) {
			t.Errorf("after the clock was set by %v what was signed before is used", d)
		}
	}
}
