package faults

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/test/harness"
)

// TestLearnedStart: what one machine read first is fetched from the store for the next one
// before that reads it.
func TestLearnedStart(t *testing.T) {
	t.Parallel()
	s := newS3Store(t, "")
	opts := s.Options()
	opts.Dir, opts.NBD = s.Dir, true
	s.Kill(t)
	s.Server = harness.Start(t, opts)
	var gets atomic.Int64
	seen := func(r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/disk") {
			gets.Add(1)
		}
	}
	s.seen.Store(&seen)
	disk := harness.Disk(9, 24)
	s.upload(t, bucket, "disk.raw", disk)
	s.upload(t, bucket, "disk.mf", mfOf(t, disk))
	image := s.Import(t, harness.Request("raw", bucket+":disk.raw"))
	dial := func() *nbdtest.Client {
		u, err := url.Parse(s.Attach(t, image).URI)
		if err != nil {
			t.Fatal(err)
		}
		c, err := nbdtest.Dial(t.Context(), "tcp", u.Host, nbdtest.Config{Export: strings.TrimPrefix(u.Path, "/")})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	start := func(c *nbdtest.Client) { // here and there, as a machine does
		p := make([]byte, 4096)
		for i := range 60 {
			off := int64(i * 7 % 60 * 401408)
			if err := c.Read(p, off); err != nil || !bytes.Equal(p, disk[off:][:len(p)]) {
				t.Fatalf("read at %d: %v", off, err)
			}
		}
	}
	c := dial()
	start(c)
	c.Close()
	read := gets.Load()
	// Another process, whose memory is empty. What was learned is written in the background.
	harness.Eventually(t, "a start is fetched ahead", func() bool {
		s.Stop(t)
		s.Restart(t, "")
		gets.Store(0)
		c = dial()
		for before := int64(-1); gets.Load() != before; {
			before = gets.Load()
			p := make([]byte, 1)
			if err := c.Read(p, 0); err != nil { // a round trip
				t.Fatal(err)
			}
		}
		return gets.Load() > 1
	})
	harness.Eventually(t, "all of it has come", func() bool {
		gets.Store(0)
		start(c)
		return gets.Load() == 0
	})
	c.Close()
	if read < 10 {
		t.Errorf("the first start read the store %d times", read)
	}
}
