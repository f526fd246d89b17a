// Command bench measures quick imports of the real binary: the time from the
// request to an active image, what is read of the source, and the server's peak
// memory. It prints a table, and the same as JSON.
//
// The files are sparse, and lie in the bucket's folder: nothing of their size is
// written. Each figure is a median over -runs imports, on a server of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/test/harness"
	"github.com/quickims/quickims/test/measure"
)

const (
	gib    = measure.GiB
	bucket = "bench"
)

// row is one line of the table.
type row struct {
	Case        string  `json:"case"`
	FileBytes   int64   `json:"file_bytes"`
	DiskBytes   int64   `json:"disk_bytes"`
	DataBytes   int64   `json:"data_bytes"` // of the disk that are not a hole
	Runs        int     `json:"runs"`
	ActiveMS    float64 `json:"accept_to_active_ms"` // median
	WorstMS     float64 `json:"worst_ms"`
	PostMS      float64 `json:"post_ms"` // median latency of the POST
	SourceReads int64   `json:"source_reads"`
	SourceBytes int64   `json:"source_read_bytes"`
	PeakMiB     float64 `json:"peak_memory_mib"`
}

type report struct {
	Machine string `json:"machine"`
	Rows    []row  `json:"rows"`
	Peer    *peer  `json:"peer,omitempty"`
}

// peer is the same work done by copying, as importers do that move the data.
type peer struct {
	What       string  `json:"what"`
	PeerMS     float64 `json:"peer_ms"`
	QuickimsMS float64 `json:"quickims_ms"`
	Ratio      float64 `json:"ratio"`
}

// disk is a source to make.
type disk struct {
	name  string
	size  int64 // bytes
	data  int64 // bytes that are not a hole, in pieces spread over the disk
	zvhd2 bool
}

var disks = []disk{
	{"RAW 1 GiB", gib, 64 << 20, false},
	{"RAW 64 GiB", 64 * gib, 64 << 20, false},
	{"RAW 1 TiB", 1024 * gib, 64 << 20, false},
	{"ZVHD2 1 GiB", gib, 64 << 20, true},
	{"ZVHD2 64 GiB", 64 * gib, 64 << 20, true},
	{"ZVHD2 64 GiB full", 64 * gib, 64 * gib, true},
	{"ZVHD2 1 TiB", 1024 * gib, 1 * gib, true},
}

func main() {
	binary := flag.String("quickims", "bin/quickims", "the binary to measure")
	out := flag.String("json", "", "file for the figures as JSON")
	runs := flag.Int("runs", 15, "imports of each file")
	flag.Parse()
	abs, err := filepath.Abs(*binary)
	if err != nil {
		fail(err)
	}
	os.Setenv("QUICKIMS_TEST_BINARY", abs)
	tb, err := measure.NewConsole("bench")
	if err != nil {
		fail(err)
	}
	defer tb.Close()

	rep := report{Machine: measure.Machine()}
	for _, d := range disks {
		fmt.Fprintf(os.Stderr, "%s …\n", d.name)
		rep.Rows = append(rep.Rows, measureImports(tb, d, *runs))
	}
	fmt.Fprintln(os.Stderr, "peer …")
	rep.Peer = comparePeer(tb)
	rep.print(os.Stdout)
	if err := measure.WriteJSON(*out, rep); err != nil {
		tb.Fatal(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

const configuration = "limits: {images: 100000, imports: 1000}\n"

// measureImports imports one file again and again on a fresh server.
func measureImports(tb *measure.Console, d disk, runs int) row {
	s := harness.Start(tb, harness.Options{Dir: tb.TempDir(), Config: configuration})
	defer s.Stop(tb)
	key, fileSize := place(tb, s, d)
	// One import before the first that counts: connections, caches of statements.
	importOnce(tb, s, key, d)
	readsBefore, bytesBefore := sourceReads(tb, s)
	measure.ResetPeak(tb, s.Pid())
	var active, post []float64
	for range runs {
		p, a := importOnce(tb, s, key, d)
		post, active = append(post, p), append(active, a)
	}
	reads, read := sourceReads(tb, s)
	return row{
		Case: d.name, FileBytes: fileSize, DiskBytes: d.size, DataBytes: d.data, Runs: runs,
		ActiveMS: measure.Median(active), WorstMS: slices.Max(active), PostMS: measure.Median(post),
		SourceReads: (reads - readsBefore) / int64(runs), SourceBytes: (read - bytesBefore) / int64(runs),
		PeakMiB: measure.Peak(tb, s.Pid()),
	}
}

// importOnce returns the milliseconds of the POST and those from sending it to the
// answer that says SUCCESS.
func importOnce(tb *measure.Console, s *harness.Server, key string, d disk) (post, active float64) {
	body := harness.Request("bench", bucket+":"+key)
	body["min_disk"] = 1024
	token := s.Token(tb)
	request, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	start := time.Now()
	a, err := s.Send("POST", harness.QuickImportPath, token, request)
	post = ms(time.Since(start))
	var accepted struct {
		JobID string `json:"job_id"`
	}
	if err != nil || a.Status != 200 || json.Unmarshal(a.Body, &accepted) != nil {
		tb.Fatalf("%s: %v, status %d: %s", d.name, err, a.Status, a.Body)
	}
	for {
		var job harness.Job
		s.Get(tb, "/v1/"+harness.ProjectID+"/jobs/"+accepted.JobID, &job)
		switch job.Status {
		case "SUCCESS":
			return post, ms(time.Since(start))
		case "FAIL":
			tb.Fatalf("%s: %s", d.name, *job.FailReason)
		}
		time.Sleep(time.Millisecond)
	}
}

// place makes the file and, for RAW, its bitmap in the bucket's folder.
func place(tb *measure.Console, s *harness.Server, d disk) (key string, size int64) {
	folder := s.Bucket(tb, bucket)
	ctx := context.Background()
	if d.zvhd2 {
		path := filepath.Join(folder, "disk.zvhd2")
		f, err := os.Create(path)
		if err != nil {
			tb.Fatal(err)
		}
		var src io.ReaderAt = pattern{}
		if d.data < d.size {
			src = sparseFile(tb, filepath.Join(tb.TempDir(), "disk.raw"), d)
		}
		if _, err := zvhd2.Convert(ctx, f, src, d.size, zvhd2.ConvertOptions{}); err != nil {
			tb.Fatal(err)
		}
		if err := f.Close(); err != nil {
			tb.Fatal(err)
		}
		return "disk.zvhd2", fileSize(tb, path)
	}
	f := sparseFile(tb, filepath.Join(folder, "disk.raw"), d)
	m, err := bitmap.Build(ctx, f, d.size, bitmap.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	mf, err := os.Create(filepath.Join(folder, "disk.mf"))
	if err != nil {
		tb.Fatal(err)
	}
	_, err = m.WriteTo(mf)
	if err := errors.Join(err, mf.Close()); err != nil {
		tb.Fatal(err)
	}
	return "disk.raw", d.size
}

// sparseFile makes a file with data in pieces of 1 MiB, spread evenly.
func sparseFile(tb *measure.Console, path string, d disk) *os.File {
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Truncate(d.size); err != nil {
		tb.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	if _, err := (pattern{}).ReadAt(piece, 0); err != nil {
		tb.Fatal(err)
	}
	pieces := d.data >> 20
	for i := range pieces {
		if _, err := f.WriteAt(piece, i*(d.size/pieces)&^(1<<20-1)); err != nil {
			tb.Fatal(err)
		}
	}
	return f
}

// pattern is a disk without a zero byte that compresses well.
type pattern struct{}

func (pattern) ReadAt(p []byte, _ int64) (int, error) {
	p[0] = 'q'
	for n := 1; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
	return len(p), nil
}

// comparePeer imports a dense file of 1 GiB and has qemu-img copy the same file.
func comparePeer(tb *measure.Console) *peer {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		fmt.Fprintln(os.Stderr, "no qemu-img (package qemu-utils): no comparison")
		return nil
	}
	s := harness.Start(tb, harness.Options{Dir: tb.TempDir(), Config: configuration})
	defer s.Stop(tb)
	d := disk{"dense", gib, gib, false}
	key, _ := place(tb, s, d)
	src := filepath.Join(s.Dir, "buckets", bucket, key)
	dst := filepath.Join(tb.TempDir(), "copy.raw")
	var ours, theirs []float64
	for range 5 {
		_, a := importOnce(tb, s, key, d)
		ours = append(ours, a)
		start := time.Now()
		if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "raw", "-W", "-m", "16", src, dst).CombinedOutput(); err != nil {
			tb.Fatalf("qemu-img: %v: %s", err, out)
		}
		theirs = append(theirs, ms(time.Since(start)))
		os.Remove(dst)
	}
	return &peer{"1 GiB dense RAW: import against qemu-img convert -f raw -O raw -W -m 16", measure.Median(theirs), measure.Median(ours), measure.Median(theirs) / measure.Median(ours)}
}

func (r report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "case\tfile MiB\trequest to active ms\tworst ms\tPOST ms\tsource reads\tsource KiB read\tpeak MiB\t")
	for _, x := range r.Rows {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%d\t%d\t%.1f\t\n", x.Case, x.FileBytes>>20, x.ActiveMS, x.WorstMS, x.PostMS, x.SourceReads, x.SourceBytes>>10, x.PeakMiB)
	}
	t.Flush()
	if len(r.Rows) >= 3 {
		fmt.Fprintf(w, "\nRAW 1 TiB takes %.2f × RAW 1 GiB\n", r.Rows[2].ActiveMS/r.Rows[0].ActiveMS)
	}
	if r.Peer != nil {
		fmt.Fprintf(w, "%s: %.1f ms and %.1f ms, %.0f ×\n", r.Peer.What, r.Peer.QuickimsMS, r.Peer.PeerMS, r.Peer.Ratio)
	}
}

// sourceReads is what the server counted so far.
func sourceReads(tb *measure.Console, s *harness.Server) (reads, read int64) {
	for line := range strings.Lines(s.Metrics(tb)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		f, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "quickims_source_reads_total":
			reads = int64(f)
		case "quickims_source_read_bytes_total":
			read = int64(f)
		}
	}
	return reads, read
}

func fileSize(tb *measure.Console, path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return fi.Size()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
