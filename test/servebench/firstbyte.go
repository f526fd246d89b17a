package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quickims/quickims/test/measure"
)

// firstByteRuns is how many times the sparse TiB is attached: it is quick.
const firstByteRuns = 15

const firstByteRow = "first byte of 1 TiB"

// firstByte measures the time from asking for a disk to its first 4 KiB: of quickims
// from the request for an attachment, of an image that was just imported; of nbdkit,
// which serves one URL a process, from its start.
func (b *bench) firstByte(only string) {
	if !strings.Contains(firstByteRow, only) {
		return
	}
	// In the S3 server's folder: nobody uploads a TiB of zeros to measure.
	inBucket := filepath.Join(b.gateway.Folder, sourceBucket, tibRaw)
	if err := os.Link(filepath.Join(b.disks.dir, tibRaw), inBucket); err != nil {
		b.tb.Fatal(err)
	}
	url := b.gateway.URL + "/" + sourceBucket + "/" + tibRaw
	ours := func(name, store string, q *quickims, key string) system {
		return system{name: name, store: store, zvhd2: key == tibZVHD2, start: func(tb *measure.Console) *target {
			return &target{uri: q.Attach(tb, q.ids[key]).URI, pid: q.Pid(), stop: func() {}}
		}}
	}
	imports := map[int]func(){
		0: func() { b.s3.importAll(b.tb, tibZVHD2) },
		2: func() { b.folder.importAll(b.tb, tibRaw) },
		3: func() { b.folder.importAll(b.tb, tibZVHD2) },
	}
	systems := []system{
		ours("quickims ZVHD2", inS3, b.s3, tibZVHD2),
		nbdkit("nbdkit curl", inS3, "curl", "url="+url),
		ours("quickims RAW", inFolder, b.folder, tibRaw),
		ours("quickims ZVHD2", inFolder, b.folder, tibZVHD2),
		nbdkit("nbdkit curl", inFolder, "curl", "url=file://"+filepath.Join(b.disks.dir, tibRaw)),
	}
	samples := make([][]sample, len(systems))
	for run := range firstByteRuns + 1 { // the first opens connections and fills caches of statements
		for i, s := range systems {
			b.tb.Logf("%s: %s in %s, turn %d …", firstByteRow, s.name, s.store, run)
			if imp := imports[i]; imp != nil {
				imp()
			}
			if got := b.firstByteOf(s); run > 0 {
				samples[i] = append(samples[i], got)
			}
		}
	}
	for i, s := range systems {
		b.rep.add(firstByteRow, s, samples[i])
		if !s.peer {
			b.rep.atMost(firstByteRow+", "+s.name+" in "+s.store+", ms", 20, 1000*measure.MedianBy(samples[i], seconds))
		}
	}
	b.judge(row{name: firstByteRow}, systems, samples)
}

func (b *bench) firstByteOf(s system) sample {
	gets, sent := b.gateway.Sent(b.tb)
	had := int64(0) // of a process that is there already
	if !s.peer {
		had = measure.BytesRead(b.tb, b.folder.Pid())
	}
	began := time.Now()
	t := s.start(b.tb)
	c := connect(b.tb, t.uri)
	buf := make([]byte, 4096)
	if err := c.Read(buf, tibPiece); err != nil {
		b.tb.Fatal(err)
	}
	took := time.Since(began).Seconds()
	if string(buf[:8]) != "quickims" {
		b.tb.Fatalf("%s has %q at %d of the TiB", s.name, buf[:8], tibPiece)
	}
	out := sample{seconds: took, latencies: []float64{took}, bytes: int64(len(buf)), peak: measure.Peak(b.tb, t.pid)}
	c.Close()
	switch s.store {
	case inS3:
		g, n := b.gateway.Sent(b.tb)
		out.gets, out.fetched = g-gets, n-sent
	case inFolder:
		out.fetched = measure.BytesRead(b.tb, t.pid) - had
	}
	t.stop()
	return out
}
