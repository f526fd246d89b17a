package main

import (
	"path/filepath"
	"strconv"

	"github.com/quickims/quickims/internal/objectstore/storetest"
	"github.com/quickims/quickims/test/measure"
)

type bench struct {
	tb       *measure.Console
	disks    *disks
	runs     int
	gateway  *storetest.Gateway
	folder   *quickims
	s3       *quickims
	systems  []system
	memory   system
	rep      report
	verified map[string]bool
}

// start starts what stays: the S3 server and quickims on each store.
func (b *bench) start() {
	tb, d := b.tb, b.disks
	tb.Logf("starting the stores …")
	b.gateway = startStore(tb, d)
	b.folder, b.s3 = startFolder(tb, d), startS3(tb, b.gateway)
	url := b.gateway.URL + "/" + sourceBucket + "/" + diskRaw
	file := filepath.Join(d.dir, diskRaw)
	cache := func(url string) []string {
		return []string{"--filter=readahead", "--filter=cache", "curl", "url=" + url, "cache-on-read=true"}
	}
	b.systems = []system{
		b.s3.system("quickims RAW", inS3, diskRaw),
		b.s3.system("quickims ZVHD2", inS3, diskZVHD2),
		nbdkit("nbdkit curl", inS3, "curl", "url="+url),
		nbdkit("nbdkit curl, cache", inS3, cache(url)...).keeping(),
		b.folder.system("quickims RAW", inFolder, diskRaw),
		b.folder.system("quickims ZVHD2", inFolder, diskZVHD2),
		nbdkit("nbdkit curl", inFolder, "curl", "url=file://"+file),
		nbdkit("nbdkit curl, cache", inFolder, cache("file://"+file)...).keeping(),
		nbdkit("nbdkit file", inFolder, "file", file).shown(),
	}
	b.memory = system{name: "nbdkit memory", store: inMemory, peer: true, start: func(tb *measure.Console) *target {
		t := startNBDKit(tb, "memory", "size="+strconv.FormatInt(d.size, 10))
		fill(tb, t, file)
		return t
	}}
	b.verified = map[string]bool{}
	b.rep.DiskMiB = d.size / measure.MiB
	for _, e := range d.extents {
		b.rep.DataMiB += e.n
	}
	b.rep.DataMiB /= measure.MiB
	b.rep.ZVHD2MiB = d.sizeOf(diskZVHD2) / measure.MiB
}

// row is one kind of reading.
type row struct {
	name string
	// warm: the same is read before, nbdkit memory takes part, and what keeps nothing
	// does not.
	warm bool
	runs int
	run  func(t *target) sample
}

const (
	coldReads  = 1000
	warmReads  = 10000
	warmSet    = 128 * measure.MiB
	sequential = 384 * measure.MiB
	stride     = 256 << 10
)

func (b *bench) rows() []row {
	over := func(depth int, spans []span) func(t *target) sample {
		return func(t *target) sample {
			c := connect(b.tb, t.uri)
			defer c.Close()
			return read(b.tb, c, spans, depth)
		}
	}
	e := b.disks.extents
	all := b.disks.size
	cold, warm, seq := spread(e, coldReads, 1, all), spread(e, warmReads, 2, warmSet), inOrder(e, stride, sequential)
	copies := func(connections int) func(t *target) sample {
		return func(t *target) sample { return nbdcopy(b.tb, t.uri, connections, b.disks.size) }
	}
	few := (b.runs + 1) / 2 // nbdcopy takes its time
	return []row{
		{"random 4 KiB cold, 1 in flight", false, b.runs, over(1, cold)},
		{"random 4 KiB cold, 16 in flight", false, b.runs, over(16, cold)},
		{"random 4 KiB warm, 1 in flight", true, b.runs, over(1, warm)},
		{"random 4 KiB warm, 16 in flight", true, b.runs, over(16, warm)},
		{"sequential 256 KiB, 1 in flight", false, b.runs, over(1, seq)},
		{"sequential 256 KiB, 16 in flight", false, b.runs, over(16, seq)},
		{"nbdcopy, 1 connection", false, few, copies(1)},
		{"nbdcopy, 4 connections", false, few, copies(4)},
	}
}

// measure runs a row on all systems in turn.
func (b *bench) measure(r row) {
	var systems []system
	for _, s := range b.systems {
		if !r.warm || s.keeps {
			systems = append(systems, s)
		}
	}
	if r.warm {
		systems = append(systems, b.memory)
	}
	samples := make([][]sample, len(systems))
	for run := range r.runs {
		for i, s := range systems {
			b.tb.Logf("%s: %s in %s, turn %d …", r.name, s.name, s.store, run+1)
			samples[i] = append(samples[i], b.turn(r, s))
		}
	}
	for i, s := range systems {
		b.rep.add(r.name, s, samples[i])
	}
	b.judge(r, systems, samples)
}

func (b *bench) turn(r row, s system) sample {
	t := s.start(b.tb)
	defer t.stop()
	if key := s.store + s.name; !b.verified[key] {
		verify(b.tb, t, filepath.Join(b.disks.dir, diskRaw), spread(b.disks.extents, 50, 3, b.disks.size))
		b.verified[key] = true
		t.stop()
		t = s.start(b.tb)
		defer t.stop()
	}
	if r.warm {
		r.run(t)
	}
	cpu := measure.CPUSeconds(b.tb, t.pid)
	gets, sent := b.gateway.Sent(b.tb)
	had := measure.BytesRead(b.tb, t.pid)
	out := r.run(t)
	out.cpu = measure.CPUSeconds(b.tb, t.pid) - cpu
	out.peak = measure.Peak(b.tb, t.pid)
	switch s.store {
	case inS3:
		g, n := b.gateway.Sent(b.tb)
		out.gets, out.fetched = g-gets, n-sent
	case inFolder:
		out.fetched = measure.BytesRead(b.tb, t.pid) - had
	}
	return out
}
