package catalog

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
)

// clock is a time that a test moves on.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a catalog over a database of its own.
type fixture struct {
	*Catalog
	t     *testing.T
	clock *clock
}

const (
	domain = "d0000000000000000000000000000001"
	mine   = "a0000000000000000000000000000001"
	other  = "b0000000000000000000000000000002"
)

var plenty = ims.Limits{Images: 1000, Imports: 1000, Attachments: 1000}

// onBoth runs f as a subtest on every kind of database.
func onBoth(t *testing.T, f func(t *testing.T, c fixture)) {
	t.Helper()
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		clk := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)}
		f(t, fixture{Catalog: New(db, Options{Clock: clk.Now}), t: t, clock: clk})
	})
}

func noQueue(context.Context, *database.Tx, string) error { return nil }

// newImport is a valid image with its job.
func newImport(project string) (ims.Image, ims.Job) {
	img := ims.Image{
		ID: ims.NewImageID(), ProjectID: project, EnterpriseProjectID: ims.DefaultEnterpriseProject,
		Name: "disk", Description: "a description", Env: ims.EnvECS,
		OSVersion: "Ubuntu 22.04 server 64bit", OSType: "Linux", OSBit: "64", Platform: "Ubuntu",
		Architecture: ims.ArchX86, Firmware: ims.FirmwareUEFI, LicenseType: "byol",
		MinDiskGiB: 40, MinRAMMiB: 512, MaxRAMMiB: "1024",
		MadeVisible: ims.VisibilityPrivate, Properties: map[string]string{},
		Attributes: map[string]string{"__support_fc_inject": "true"},
		Tags:       []ims.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: ""}},
		SourceURL:  "bucket:dir/disk.raw", FileSize: 1 << 40,
	}
	job := ims.Job{
		ID: ims.NewJobID(), ProjectID: project, Type: ims.JobImportSystem, Step: ims.StepAccepted,
		ImageID: img.ID, ImageName: img.Name,
		Source: ims.Source{Bucket: "bucket", Key: "dir/disk.raw", Size: 1 << 40, BitmapKey: "dir/disk.mf"},
	}
	return img, job
}

// accept takes an import in and returns its image and job as the catalog has them.
func (c fixture) accept(project string) (ims.Image, ims.Job) {
	c.t.Helper()
	img, job := newImport(project)
	if err := c.CreateImport(c.t.Context(), domain, img, job, plenty, noQueue); err != nil {
		c.t.Fatal(err)
	}
	return c.image(project, img.ID), c.job(project, job.ID)
}

func (c fixture) image(project, id string) ims.Image {
	c.t.Helper()
	img, err := c.Image(c.t.Context(), project, id)
	if err != nil {
		c.t.Fatal(err)
	}
	return img
}

func (c fixture) job(project, id string) ims.Job {
	c.t.Helper()
	job, err := c.Job(c.t.Context(), project, id)
	if err != nil {
		c.t.Fatal(err)
	}
	return job
}

const lease = 15 * time.Second

// claim takes a job that must be free.
func (c fixture) claim(id string) ims.Job {
	c.t.Helper()
	job, ok, err := c.ClaimJob(c.t.Context(), id, lease)
	if err != nil || !ok {
		c.t.Fatalf("claim job %s: %v, %v", id, ok, err)
	}
	return job
}

// dataOf is what an attempt adopted.
func dataOf(job ims.Job) ims.Data {
	a := attemptOf(job)
	return ims.Data{
		Key: a.Disk(), ETag: "e1", Format: "raw", Size: job.Source.Size, VirtualSize: job.Source.Size,
		BitmapKey: a.Bitmap(), BitmapETag: "e2", BitmapSize: 4096,
	}
}

// sourceOf is what an attempt adopts: the pinned source.
func sourceOf(job ims.Job) ims.Data {
	return ims.Data{
		Bucket: job.Source.Bucket, Version: "v7", Key: job.Source.Key, ETag: "e0", Format: "raw", Size: job.Source.Size, VirtualSize: job.Source.Size,
		BitmapKey: job.Source.BitmapKey, BitmapETag: "e00", BitmapSize: 4096,
	}
}

// lies reports whether data lies where want says. The catalog draws its generation.
func lies(data, want ims.Data) bool {
	want.Generation = data.Generation
	return data == want
}

// saving makes an image whose data is being adopted, and gives the job with its lease.
func (c fixture) saving(project string) (ims.Image, ims.Job) {
	c.t.Helper()
	_, job := c.accept(project)
	job = c.claim(job.ID)
	must(c.t, c.BeginAdopt(c.t.Context(), job, sourceOf(job)))
	return c.image(project, job.ImageID), job
}

// active makes an active image.
func (c fixture) active(project string) (ims.Image, ims.Job) {
	c.t.Helper()
	_, job := c.accept(project)
	job = c.claim(job.ID)
	must(c.t, c.BeginAdopt(c.t.Context(), job, sourceOf(job)))
	must(c.t, c.Publish(c.t.Context(), job, dataOf(job)))
	return c.image(project, job.ImageID), c.job(project, job.ID)
}

func (c fixture) enterprise(name string) string {
	c.t.Helper()
	ep, err := c.CreateEnterpriseProject(c.t.Context(), ims.EnterpriseProject{ID: uuid.NewString(), DomainID: domain, Name: name, Enabled: true})
	if err != nil {
		c.t.Fatal(err)
	}
	return ep.ID
}

// leftovers are the prefixes that the clean-up has to look at now.
func (c fixture) leftovers() []string {
	c.t.Helper()
	list, err := c.Leftovers(c.t.Context(), 1000)
	must(c.t, err)
	var out []string
	for _, l := range list {
		out = append(out, l.Prefix())
	}
	return out
}

// clean notes all leftovers as removed.
func (c fixture) clean() {
	c.t.Helper()
	list, err := c.Leftovers(c.t.Context(), 1000)
	must(c.t, err)
	for _, l := range list {
		must(c.t, c.Removed(c.t.Context(), l.Attempt))
	}
}

// prefix is where an attempt writes.
func prefix(imageID string, attempt int64) string {
	return imagearea.Attempt{ImageID: imageID, Number: attempt}.Prefix()
}

func (c fixture) known(imageID string, attempt int64) bool {
	c.t.Helper()
	yes, err := c.Known(c.t.Context(), imagearea.Attempt{ImageID: imageID, Number: attempt})
	must(c.t, err)
	return yes
}

func wantCode(t *testing.T, err error, code ims.Code) {
	t.Helper()
	if ims.CodeOf(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
