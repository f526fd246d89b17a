package main

import (
	"bytes"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/test/measure"
)

// sample is one run of a row on one system.
type sample struct {
	seconds   float64
	latencies []float64 // of each read, in seconds
	bytes     int64     // delivered
	fetched   int64     // from the store
	gets      int64     // requests to the S3 server
	cpu       float64   // processor time of the system
	peak      float64   // its memory in MiB
}

// span is one read.
type span struct{ off, n int64 }

// spread returns count places of 4 KiB in the data of the disk, the same for the
// same seed. limit bounds the bytes of data that they lie in.
func spread(extents []extent, count int, seed uint64, limit int64) []span {
	var total int64
	var starts []int64
	for _, e := range extents {
		starts = append(starts, total)
		total += e.n
	}
	total = min(total, limit)
	r := rand.New(rand.NewPCG(seed, 4096))
	out := make([]span, count)
	for i := range out {
		at := r.Int64N(total)
		k, found := slices.BinarySearch(starts, at)
		if !found {
			k--
		}
		e := extents[k]
		out[i] = span{(e.off + at - starts[k]) &^ 4095, 4096}
	}
	return out
}

// inOrder cuts the first limit bytes of data into reads of at most size bytes.
func inOrder(extents []extent, size, limit int64) []span {
	var out []span
	for _, e := range extents {
		for at := e.off; at < e.off+e.n && limit > 0; at += size {
			n := min(size, e.off+e.n-at, limit)
			out = append(out, span{at, n})
			limit -= n
		}
	}
	return out
}

// read reads the spans in their order over one connection, depth at a time.
func read(tb *measure.Console, c *nbdtest.Client, spans []span, depth int) sample {
	latencies := make([]float64, len(spans))
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var readers sync.WaitGroup
	began := time.Now()
	for range depth {
		readers.Go(func() {
			var buf []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(spans) {
					return
				}
				s := spans[i]
				if int64(len(buf)) < s.n {
					buf = make([]byte, s.n)
				}
				start := time.Now()
				if err := c.Read(buf[:s.n], s.off); err != nil {
					failed.Store(&err)
					return
				}
				latencies[i] = time.Since(start).Seconds()
			}
		})
	}
	readers.Wait()
	out := sample{seconds: time.Since(began).Seconds(), latencies: latencies}
	if err := failed.Load(); err != nil {
		tb.Fatal(*err)
	}
	for _, s := range spans {
		out.bytes += s.n
	}
	return out
}

// connect dials the server and chooses the export that a URI names.
func connect(tb *measure.Console, uri string) *nbdtest.Client {
	u, err := url.Parse(uri)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := nbdtest.Dial(tb.Context(), "tcp", u.Host, nbdtest.Config{Export: strings.TrimPrefix(u.Path, "/")})
	if err != nil {
		tb.Fatalf("connect to %s: %v", u.Host, err)
	}
	return c
}

// nbdcopy copies the whole disk to nowhere.
func nbdcopy(tb *measure.Console, uri string, connections int, size int64) sample {
	cmd := exec.Command("nbdcopy", "--connections="+strconv.Itoa(connections), uri, "null:")
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("nbdcopy %s: %v: %s", uri, err, out)
	}
	return sample{seconds: time.Since(began).Seconds(), bytes: size}
}

// fill writes the disk into a server that can be written to.
func fill(tb *measure.Console, t *target, path string) {
	if out, err := exec.Command("nbdcopy", path, t.uri).CombinedOutput(); err != nil {
		tb.Fatalf("nbdcopy %s %s: %v: %s", path, t.uri, err, out)
	}
}

// verify compares some reads with the disk: what is fast and wrong is no figure.
func verify(tb *measure.Console, t *target, path string, spans []span) {
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	c := connect(tb, t.uri)
	defer c.Close()
	for _, s := range spans {
		got, want := make([]byte, s.n), make([]byte, s.n)
		if _, err := f.ReadAt(want, s.off); err != nil {
			tb.Fatal(err)
		}
		if err := c.Read(got, s.off); err != nil {
			tb.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			tb.Fatalf("%s has other bytes than the disk at %d", t.uri, s.off)
		}
	}
}
