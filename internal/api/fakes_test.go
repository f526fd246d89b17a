package api_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// acceptor writes image and job as an importer does, and never looks at a bucket.
type acceptor struct {
	catalog *catalog.Catalog
	limits  ims.Limits
	mu      sync.Mutex
	specs   []ims.ImportSpec
	sweeps  int
	fault   error
	disks   *disks
}

func (a *acceptor) Accept(ctx context.Context, p ims.Principal, spec ims.ImportSpec) (string, error) {
	a.mu.Lock()
	a.specs = append(a.specs, spec)
	fault := a.fault
	a.mu.Unlock()
	if fault != nil {
		return "", fault
	}
	img := spec.NewImage(ims.NewImageID(), p.ProjectID)
	img.FileSize = 2048
	job := ims.Job{
		ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: spec.JobType(), Status: ims.JobInit, Step: ims.StepAccepted,
		ImageID: img.ID, ImageName: img.Name, Source: ims.Source{Bucket: spec.Bucket, Key: spec.Key, Size: img.FileSize, Nested: spec.Nested},
	}
	return job.ID, a.catalog.CreateImport(ctx, p.Tenant, img, job, a.limits, func(context.Context, *database.Tx, string) error { return nil })
}

// Register writes the job as an importer does.
func (a *acceptor) Register(ctx context.Context, p ims.Principal, image, bucket, key string) (string, error) {
	job := ims.Job{ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: ims.JobRegister, Step: ims.StepAccepted, ImageID: image,
		Source: ims.Source{Bucket: bucket, Key: key, Size: 2048}}
	return job.ID, a.catalog.Register(ctx, job, a.limits, func(context.Context, *database.Tx, string) error { return nil })
}

// Copy and Export write their jobs as an importer does, and look at no bucket.
func (a *acceptor) Copy(ctx context.Context, p ims.Principal, image string, request ims.CopyRequest) (string, error) {
	src, _, err := a.catalog.VisibleImage(ctx, p.ProjectID, image)
	if err != nil {
		return "", err
	}
	img, err := request.NewImage(src, p.ProjectID)
	if err != nil {
		return "", err
	}
	job := ims.Job{ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: ims.JobCopy, Step: ims.StepAccepted, ImageID: img.ID, ImageName: img.Name,
		Source: ims.Source{Key: src.Data.Key, Size: src.Data.Size, ETag: src.Data.ETag}}
	return job.ID, a.catalog.CreateImport(ctx, p.Tenant, img, job, a.limits, func(context.Context, *database.Tx, string) error { return nil })
}

func (a *acceptor) Export(ctx context.Context, p ims.Principal, image string, to ims.Export) (string, error) {
	job := ims.Job{ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: ims.JobExport, Step: ims.StepExport, ImageID: image,
		Source: ims.Source{Bucket: to.Bucket, Key: to.Key}}
	return job.ID, a.catalog.CreateExport(ctx, job, a.limits, func(context.Context, *database.Tx, string) error { return nil })
}

// Upload keeps the bytes for the disks, as an importer does in its store.
func (a *acceptor) Upload(ctx context.Context, project, image string, body io.Reader, _ int64, stage bool) error {
	job, err := a.catalog.BeginUpload(ctx, project, image, stage, time.Minute, a.limits)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return errors.Join(err, a.catalog.FailUpload(context.WithoutCancel(ctx), job, ims.CodeBadFormat, "it broke off"))
	}
	a.disks.put(image, content, -1, nil)
	n, short, long := int64(len(content)), md5.Sum(content), sha512.Sum512(content)
	data := ims.Data{Key: fmt.Sprintf("%s/%d/disk", image, job.Attempt), ETag: "e", Format: "raw", Size: n, VirtualSize: n}
	return a.catalog.FinishUpload(ctx, job, catalog.Uploaded{Data: data, MD5: hex.EncodeToString(short[:]), SHA512: hex.EncodeToString(long[:])}, stage)
}

func (a *acceptor) Nudge() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweeps++
}

// disks opens what a test has put there.
type disks struct {
	mu      sync.Mutex
	content map[string]diskContent
	open    int
}

// diskContent is a disk. Reads of what lies behind failAt fail, unless it is
// negative; before the first read it calls reading.
type diskContent struct {
	data    []byte
	failAt  int64
	fault   error
	reading func()
	// hole is a range of zeros; holeReads counts the reads of nothing else.
	hole      [2]int64
	holeReads *atomic.Int32
}

func (d *disks) put(image string, data []byte, failAt int64, fault error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content[image] = diskContent{data: data, failAt: failAt, fault: fault}
}

// hold calls f in the first read of the image's disk, of the next opening alone.
func (d *disks) hold(image string, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.content[image]
	c.reading = f
	d.content[image] = c
}

// punch makes a range of the image's disk a hole.
func (d *disks) punch(image string, hole [2]int64, reads *atomic.Int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.content[image]
	c.hole, c.holeReads = hole, reads
	d.content[image] = c
}

func (d *disks) opened() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

func (d *disks) OpenDisk(_ context.Context, img ims.Image) (api.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.content[img.ID]
	if !ok {
		return nil, fmt.Errorf("no data for image %s at /secret/place", img.ID)
	}
	d.open++
	once := c
	once.reading = nil
	d.content[img.ID] = once
	return &openDisk{c, d}, nil
}

type openDisk struct {
	diskContent
	of *disks
}

func (d *openDisk) Size() int64 { return int64(len(d.data)) }

func (d *openDisk) ReadAt(p []byte, off int64) (int, error) {
	if d.reading != nil {
		d.reading()
		d.reading = nil
	}
	if d.failAt >= 0 && off+int64(len(p)) > d.failAt {
		return copy(p, d.data[min(off, d.failAt):d.failAt]), d.fault
	}
	n, err := bytes.NewReader(d.data).ReadAt(p, off)
	if from, to := max(d.hole[0], off)-off, min(d.hole[1], off+int64(n))-off; from < to {
		clear(p[from:to])
		if from == 0 && to == int64(n) {
			d.holeReads.Add(1)
		}
	}
	return n, err
}

// Hole implements api.Disk.
func (d *openDisk) Hole(off int64) int64 {
	if off < d.hole[0] || off >= d.hole[1] {
		return 0
	}
	return d.hole[1] - off
}

func (d *openDisk) Close() error {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.of.open--
	return nil
}

// logBuffer keeps the log.
type logBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.buf.Write(p)
}

// next is closed at the next write.
func (l *logBuffer) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.more
}

func (l *logBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// lines gives the log's entries of a request.
func (l *logBuffer) lines(t testing.TB, requestID string) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for line := range strings.Lines(l.buf.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("a log line that is no JSON: %q", line)
		}
		if v["request_id"] == requestID {
			out = append(out, v)
		}
	}
	return out
}
