// Package importer is the quick import as named steps: pin → inspect → adopt →
// publish → clean. It reads a source's metadata, has the object store make the
// source's bytes ours, and ends the job exactly once.
//
// Each attempt at a job writes under a key of its own, <image>/<attempt>/, so that
// a lost attempt can be removed whole. The attempt number is the fence: the catalog
// refuses what an older attempt writes.
package importer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Options are an Importer's settings. Zero values mean the defaults.
type Options struct {
	// Limits of each project.
	Limits ims.Limits
	// WithoutBitmap accepts a RAW file that has no bitmap beside it.
	WithoutBitmap bool
	// MinDiskGreater refuses a system disk of exactly min_disk.
	MinDiskGreater bool
	// Region that buckets must be in, where the store says a bucket's region.
	Region string
	// Allowance bounds the bytes that projects store; nil means that nothing does.
	Allowance *allowance.Allowance
	// MayRead reports whether a project may import from a bucket.
	MayRead func(ctx context.Context, projectID, bucket string) (bool, error)
	// MayWrite reports whether a project may export into a bucket; unset: none may.
	MayWrite func(ctx context.Context, projectID, bucket string) (bool, error)
	// OpenDisk opens an image's disk for an export that converts it; its reads end with
	// ctx. Unset: nothing is converted.
	OpenDisk func(ctx context.Context, img ims.Image) (Disk, error)
	// Own makes sure that the image area is still this installation's. It is called
	// before bytes are written there and before any are removed; while it fails neither
	// happens. Unset: nothing is asked.
	Own func(ctx context.Context) error
	// Enqueue puts a job into the queue within the transaction.
	Enqueue func(ctx context.Context, tx *database.Tx, jobID string) error
	// Lease is how long a worker holds a job without renewing it; default 15 s.
	Lease time.Duration
	// Backoff is the pause after the first passing fault, doubled after each,
	// up to a minute; default 500 ms.
	Backoff time.Duration
	// MaxFaults is how many passing faults fail a job; default 8.
	MaxFaults int
	// MaxAttempts bounds the attempts of a job that keeps losing its worker;
	// default 40.
	MaxAttempts int64
	// Began is told of each job that is begun for the first time, and Ended of each
	// that this process ended: code is empty for SUCCESS. Unset: nobody is told.
	Began  func(job ims.Job)
	Ended  func(job ims.Job, code ims.Code)
	Logger *slog.Logger
}

// Importer accepts imports and carries their jobs out. It may be used by many
// goroutines at once.
type Importer struct {
	catalog *catalog.Catalog
	store   objectstore.Store
	opts    Options
	nudged  chan struct{} // wakes the clean-up
	convert chan struct{} // held by the one export that converts
}

// errBusy says that another export is being converted.
var errBusy = errors.New("another export is being converted")

// New makes an Importer over a catalog and an object store.
func New(c *catalog.Catalog, store objectstore.Store, opts Options) *Importer {
	if opts.Lease == 0 {
		opts.Lease = 15 * time.Second
	}
	if opts.Backoff == 0 {
		opts.Backoff = 500 * time.Millisecond
	}
	if opts.MaxFaults == 0 {
		opts.MaxFaults = 8
	}
	if opts.MaxAttempts == 0 {
		opts.MaxAttempts = 40
	}
	if opts.Began == nil {
		opts.Began = func(ims.Job) {}
	}
	if opts.Ended == nil {
		opts.Ended = func(ims.Job, ims.Code) {}
	}
	if opts.MayWrite == nil {
		opts.MayWrite = func(context.Context, string, string) (bool, error) { return false, nil }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Importer{catalog: c, store: store, opts: opts, nudged: make(chan struct{}, 1), convert: make(chan struct{}, 1)}
}

// errNotOwned says that the image area is not known to be this installation's.
var errNotOwned = errors.New("nothing is written to the image area")

// own asks Options.Own.
func (i *Importer) own(ctx context.Context) error {
	if i.opts.Own == nil {
		return nil
	}
	if err := i.opts.Own(ctx); err != nil {
		return fmt.Errorf("%w: %w", errNotOwned, err)
	}
	return nil
}

// notOwned is what a client is told of errNotOwned.
func notOwned(err error) *ims.Error {
	return ims.Faultf(ims.CodeInternal, "the service cannot write to its image area; ask the operator").WithKind(ims.KindUnavailable).Cause(err)
}

// maxBackoff is the longest pause between two attempts.
const maxBackoff = time.Minute

// Work carries a job on until it has ended or must wait. again > 0 asks to be
// called again after that time. An error means that the worker itself could not go
// on (it was told to stop, or the database is away); the job's row says the rest.
func (i *Importer) Work(ctx context.Context, jobID string) (again time.Duration, err error) {
	job, ok, err := i.catalog.ClaimJob(ctx, jobID, i.opts.Lease)
	if err != nil {
		return i.opts.Backoff, fmt.Errorf("claim job %s: %w", jobID, err)
	}
	if !ok {
		return 0, nil
	}
	log := i.opts.Logger.With("job_id", job.ID, "project_id", job.ProjectID, "image_id", job.ImageID, "attempt", job.Attempt)
	if err := faultpoint.Hit(faultpoint.Claimed); err != nil {
		return 0, err
	}
	i.Nudge() // earlier attempts are fenced
	if job.Tries() == 1 {
		i.opts.Began(job)
	}
	if job.Type == ims.JobUpload {
		return 0, i.lostUpload(ctx, job)
	}
	work, release := i.holdLease(ctx, job)
	data, err := i.steps(work, &job)
	lost := context.Cause(work)
	release()

	switch {
	case err == nil:
		return 0, i.publish(ctx, log, job, data)
	case errors.Is(err, catalog.ErrFenced) || errors.Is(lost, catalog.ErrFenced):
		log.Warn("another worker has the job")
		if err := i.catalog.EndLost(ctx, job); err != nil {
			log.Warn("clean-up of the fenced attempt delayed", "error", err)
		}
		i.Nudge()
		return 0, nil
	case ctx.Err() != nil:
		// Told to stop. The lease goes back so that the next worker need not wait.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := i.catalog.Release(stop, job, job.Faults); err != nil && !errors.Is(err, catalog.ErrFenced) {
			return 0, fmt.Errorf("release job %s: %w", job.ID, err)
		}
		return 0, ctx.Err()
	case errors.Is(err, errBusy):
		return i.later(ctx, job)
	}
	return i.settle(ctx, log, job, err)
}

// settle decides what an error means for the job: a fault that passes is tried
// again, everything else fails it.
func (i *Importer) settle(ctx context.Context, log *slog.Logger, job ims.Job, err error) (time.Duration, error) {
	if errors.Is(err, database.ErrUnavailable) {
		log.Warn("the database is away, the job waits", "error", err)
		return i.backoff(job.Faults), nil
	}
	if passing(err) && job.Faults+1 < i.opts.MaxFaults && job.Tries() < i.opts.MaxAttempts {
		log.Warn("a passing fault, the job is tried again", "step", job.Step, "error", err)
		return i.again(ctx, job)
	}
	fault := explain(err)
	log.Info("import failed", "step", job.Step, "code", fault.Code, "detail", fault.Detail, "error", err)
	if err := faultpoint.Hit(faultpoint.FailBegun); err != nil {
		return 0, err
	}
	if job.Type == ims.JobExport {
		switch err := i.undoExport(ctx, job); {
		case err == nil:
		case errors.Is(err, catalog.ErrFenced):
			return 0, nil
		case ctx.Err() != nil || errors.Is(err, database.ErrUnavailable):
			return i.backoff(job.Faults), err
		case passing(err) && job.Tries() < i.opts.MaxAttempts:
			log.Warn("a failed export is not removed yet, the job is tried again", "error", err)
			return i.again(ctx, job)
		default:
			log.Error("a failed export left an object in its bucket", "error", err)
			fault = ims.Faultf(fault.Code, "%s; what the export made could not be removed: delete %q from the bucket", fault.Detail, exportedTo(job.Source)[0].Key).Cause(err)
		}
	}
	switch err := i.catalog.Fail(ctx, job, fault.Code, fault.Reason()); {
	case errors.Is(err, catalog.ErrFenced):
		return 0, nil
	case err != nil:
		return i.opts.Backoff, fmt.Errorf("fail job %s: %w", job.ID, err)
	}
	i.opts.Ended(job, fault.Code)
	i.Nudge()
	return 0, faultpoint.Hit(faultpoint.FailDone)
}

// again gives a job back to the queue after a fault.
func (i *Importer) again(ctx context.Context, job ims.Job) (time.Duration, error) {
	if err := i.catalog.Release(ctx, job, job.Faults+1); err != nil && !errors.Is(err, catalog.ErrFenced) {
		return i.opts.Backoff, fmt.Errorf("release job %s: %w", job.ID, err)
	}
	i.Nudge()
	return i.backoff(job.Faults), nil
}

// later gives back a job that did not begin, which is no try.
func (i *Importer) later(ctx context.Context, job ims.Job) (time.Duration, error) {
	job.Source.Before = job.Attempt - 1
	err := i.catalog.SaveStep(ctx, job)
	if err == nil {
		err = i.catalog.Release(ctx, job, job.Faults)
	}
	if err != nil && !errors.Is(err, catalog.ErrFenced) {
		return i.opts.Backoff, fmt.Errorf("release job %s: %w", job.ID, err)
	}
	return 2 * i.opts.Backoff, nil
}

func (i *Importer) backoff(faults int) time.Duration {
	return min(i.opts.Backoff<<min(faults, 16), maxBackoff)
}

// passing reports whether the same attempt may go well a little later.
func passing(err error) bool {
	return errors.Is(err, errNotOwned) || errors.Is(err, objectstore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// explain turns an error of a step into what the client is told.
func explain(err error) *ims.Error {
	if e, ok := errors.AsType[*ims.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, errNotOwned):
		return notOwned(err)
	case errors.Is(err, objectstore.ErrChanged):
		return ims.Faultf(ims.CodeFile, "the source changed while it was imported; import it again").Cause(err)
	case errors.Is(err, objectstore.ErrNotFound):
		return ims.Faultf(ims.CodeFile, "the source went away while it was imported").Cause(err)
	case errors.Is(err, objectstore.ErrDenied):
		return ims.Faultf(ims.CodeFile, "the source can't be read any more: the store denies the service access to it").Cause(err)
	case errors.Is(err, objectstore.ErrNoBucket):
		return ims.Faultf(ims.CodeBucketAccess, "the bucket can't be read any more").Cause(err)
	case errors.Is(err, objectstore.ErrNoSpace):
		return ims.Faultf(ims.CodeInternal, "no space left for the image's data").Cause(err)
	case errors.Is(err, objectstore.ErrUnavailable):
		return ims.Faultf(ims.CodeInternal, "the object store did not answer, several times").Cause(err)
	}
	return (&ims.Error{Code: ims.CodeInternal}).Cause(err)
}

// steps does the work up to the moment at which everything is durable.
func (i *Importer) steps(ctx context.Context, job *ims.Job) (ims.Data, error) {
	if job.Tries() > i.opts.MaxAttempts {
		return ims.Data{}, ims.Faultf(ims.CodeInternal, "gave up after %d attempts", i.opts.MaxAttempts)
	}
	img, err := i.catalog.Image(ctx, job.ProjectID, job.ImageID)
	if err != nil {
		return ims.Data{}, fmt.Errorf("read the image of job %s: %w", job.ID, err)
	}
	switch job.Type {
	case ims.JobExport:
		return ims.Data{}, i.export(ctx, job, img)
	case ims.JobCopy: // of what was inspected before, and is pinned
		return i.adopt(ctx, job, img, job.Source.BitmapKey != "")
	}
	if err := i.pin(ctx, job); err != nil {
		return ims.Data{}, err
	}
	found, err := i.inspect(ctx, job, img)
	if err != nil {
		return ims.Data{}, err
	}
	return i.adopt(ctx, job, img, found)
}

// publish makes the job SUCCESS, and the image that it made active, then wakes the
// clean-up.
func (i *Importer) publish(ctx context.Context, log *slog.Logger, job ims.Job, data ims.Data) error {
	finish := func() error {
		if job.Type == ims.JobExport {
			return i.catalog.FinishExport(ctx, job)
		}
		job.Step = ims.StepPublish
		return i.catalog.Publish(ctx, job, data)
	}
	job.Percent = 100
	switch err := finish(); {
	case errors.Is(err, catalog.ErrFenced):
		log.Warn("another worker has the job; nothing was published")
		return nil
	case err != nil:
		return fmt.Errorf("publish image %s: %w", job.ImageID, err)
	}
	i.opts.Ended(job, "")
	if err := faultpoint.Hit(faultpoint.Published); err != nil {
		return err
	}
	log.Info("job succeeded", "type", job.Type, "format", data.Format, "bytes", data.Size)
	i.Nudge()
	return nil
}

// holdLease renews the job's lease until release is called. The context it returns
// ends, with ErrFenced as its cause, when the lease was lost.
func (i *Importer) holdLease(ctx context.Context, job ims.Job) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(i.opts.Lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := i.catalog.RenewLease(ctx, job, i.opts.Lease); errors.Is(err, catalog.ErrFenced) {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}
