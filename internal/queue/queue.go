// Package queue hands jobs to workers. River schedules: an entry in its table, written
// in the transaction that writes the job, says that the job wants attention. It says
// no more than that. What becomes of a job stands in the job's own row, with its
// lease and its fence, so an entry too many does no harm and an entry that was lost is
// put back by Reconcile.
package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivertype"

	"github.com/quickims/quickims/internal/database"
)

// Handler carries a job on. again > 0 asks to be called again after that time, give or
// take a few seconds when it is above 5 s. An error is logged and the handler is
// called again, after again or about a second. It must return soon after its context
// ends, may be called for a job that has ended or that another worker holds, and may
// run twice at once for the same job: the job's row decides.
type Handler func(ctx context.Context, jobID string) (again time.Duration, err error)

// Options are a Queue's settings. Zero values mean the defaults.
type Options struct {
	// Workers is how many handlers run at once; default 4.
	Workers int
	// PollInterval is how often the queue is looked at for what another process
	// enqueued. What this process enqueues wakes it. Default 50 ms on PostgreSQL, 1 s
	// on SQLite, where a server has the database to itself.
	PollInterval time.Duration
	// Grace is how long Stop lets handlers go on before it ends their context;
	// default 10 s, and never more than half of the time that Stop has.
	Grace time.Duration
	// Logger gets the handlers' errors and River's warnings; default none.
	Logger *slog.Logger
}

// Queue runs a handler for the jobs that are enqueued. It may be used by many
// goroutines at once.
type Queue struct {
	db     *database.DB
	client *river.Client[*sql.Tx]
	waker  waker
	opts   Options
}

const (
	// doneKept is how long the entry of a job that was served stays, for somebody who
	// looks into the database.
	doneKept = 10 * time.Minute
	// rescueAfter is when River gives an entry up whose process died, and calls the
	// handler again. Reconcile is much quicker; this clears the entry away.
	rescueAfter = 30 * time.Minute
	// maxAttempts is more than any entry gets, and fits River's 16 bits.
	maxAttempts = 30_000
	// fetchCooldown is the least time between two looks at the queue.
	fetchCooldown = 5 * time.Millisecond
	// soon is the longest pause before the handler is called again that River leaves
	// to whoever looks at the queue; after longer ones it puts the entry forward itself.
	soon = 5 * time.Second
	// wakeLater is how long after such a pause the queue is looked at: the entry's time
	// has surely come then.
	wakeLater = 10 * time.Millisecond
	// errorPause is the time before the handler is called again after an error.
	errorPause = time.Second
	// reconcileBatch is the most entries that Reconcile puts back in one round.
	reconcileBatch = 500
)

// entry is what an entry of the queue says.
type entry struct {
	JobID string `json:"job_id"`
}

// Kind names the entries in River's table.
func (entry) Kind() string { return "quickims_job" }

// New makes a Queue over a migrated database. It serves nothing before Start.
func New(db *database.DB, handler Handler, opts Options) (*Queue, error) {
	if opts.Workers == 0 {
		opts.Workers = 4
	}
	if opts.PollInterval == 0 {
		opts.PollInterval = 50 * time.Millisecond
		if db.Dialect() == database.SQLite {
			opts.PollInterval = time.Second
		}
	}
	if opts.Grace == 0 {
		opts.Grace = 10 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	waker := newWaker()
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{handler: handler, waker: waker, log: opts.Logger}); err != nil {
		return nil, fmt.Errorf("set up the queue: %w", err)
	}
	config := &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: opts.Workers}},
		Workers:           workers,
		FetchPollInterval: opts.PollInterval,
		FetchCooldown:     fetchCooldown,
		// A handler knows its own limits: a large copy may take hours.
		JobTimeout:                  -1,
		RescueStuckJobsAfter:        rescueAfter,
		MaxAttempts:                 maxAttempts,
		RetryPolicy:                 steadily{},
		CompletedJobRetentionPeriod: doneKept,
		Logger:                      slog.New(newQuiet(opts.Logger.Handler())),
	}
	q := &Queue{db: db, waker: waker, opts: opts}
	var driver riverdriver.Driver[*sql.Tx] = riverdatabasesql.New(db.Writer())
	if db.Dialect() == database.SQLite {
		driver = riversqlite.New(db.Writer())
	}
	var err error
	if q.client, err = river.NewClient(wokenDriver{driver, waker}, config); err != nil {
		return nil, fmt.Errorf("set up the queue: %w", err)
	}
	return q, nil
}

// Enqueue asks for a job's handler to be called once the transaction is committed.
func (q *Queue) Enqueue(ctx context.Context, tx *database.Tx, jobID string) error {
	if _, err := q.client.InsertTx(ctx, tx.Tx, entry{JobID: jobID}, nil); err != nil {
		return fmt.Errorf("enqueue job %s: %w", jobID, err)
	}
	tx.AfterCommit(q.waker.wake)
	return nil
}

// Start begins to call the handler, also for what was enqueued before. It does not
// block. The end of ctx stops the queue at once; Stop is the gentle way.
func (q *Queue) Start(ctx context.Context) error {
	if err := q.client.Start(ctx); err != nil {
		return fmt.Errorf("start the queue: %w", database.Fault(err))
	}
	return nil
}

// Stop drains the queue: it calls the handler no more, lets the running ones go on for
// Options.Grace, then ends their context, and waits for them to return or for ctx to
// end. What they left undone is called again after the next Start.
func (q *Queue) Stop(ctx context.Context) error {
	grace := q.opts.Grace
	if end, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(end)/2)
	}
	soft, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if q.client.Stop(soft) == nil {
		return nil
	}
	if err := q.client.StopAndCancel(ctx); err != nil {
		return fmt.Errorf("stop the queue: handlers still run: %w", err)
	}
	return nil
}

// Reconcile puts back the entries of jobs that the queue should have served and did
// not: their process died, or the entry was lost. unserved lists such jobs, at most
// limit. A job whose entry still waits for its turn gets no second one.
func (q *Queue) Reconcile(ctx context.Context, unserved func(ctx context.Context, limit int) ([]string, error)) error {
	ids, err := unserved(ctx, reconcileBatch)
	if err != nil || len(ids) == 0 {
		return err
	}
	err = q.db.InTx(ctx, func(tx *database.Tx) error {
		waiting, err := q.waiting(ctx, tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if waiting[id] {
				continue
			}
			if err := q.Enqueue(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put back jobs that nobody serves: %w", err)
	}
	return nil
}

// waiting is the set of jobs whose entry will be served without anybody's help. An
// entry in the state running is not among them: its process may be dead.
func (q *Queue) waiting(ctx context.Context, tx *database.Tx) (map[string]bool, error) {
	const page = 1000
	params := river.NewJobListParams().Kinds(entry{}.Kind()).First(page).
		States(rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateScheduled)
	out := map[string]bool{}
	for {
		list, err := q.client.JobListTx(ctx, tx.Tx, params)
		if err != nil {
			return nil, fmt.Errorf("list what waits in the queue: %w", err)
		}
		for _, row := range list.Jobs {
			var e entry
			if err := json.Unmarshal(row.EncodedArgs, &e); err == nil {
				out[e.JobID] = true
			}
		}
		if len(list.Jobs) < page {
			return out, nil
		}
		params = params.After(list.LastCursor)
	}
}

// worker is the handler as River calls it.
type worker struct {
	river.WorkerDefaults[entry]
	handler Handler
	waker   waker
	log     *slog.Logger
}

// Work calls the handler and tells River when to call again. It never returns a
// failure, so that River's own idea of attempts plays no part.
func (w *worker) Work(ctx context.Context, job *river.Job[entry]) error {
	again, err := w.call(ctx, job.Args.JobID)
	switch {
	case ctx.Err() != nil:
		return river.JobSnooze(0) // stopping: the next process goes on at once
	case err != nil:
		again = max(again, errorPause)
		w.log.Warn("a job could not be carried on, it is tried again", "job_id", job.Args.JobID, "after", again, "error", err)
	}
	if again > 0 {
		if again <= soon {
			time.AfterFunc(again+wakeLater, w.waker.wake)
		}
		return river.JobSnooze(again)
	}
	return nil
}

// call turns a panic of the handler into an error: one job's fault must not end the
// others.
func (w *worker) call(ctx context.Context, jobID string) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return w.handler(ctx, jobID)
}

// steadily retries at a steady pace what River itself could not finish.
type steadily struct{}

// NextRetry implements river.ClientRetryPolicy.
func (steadily) NextRetry(*rivertype.JobRow) time.Time { return time.Now().Add(errorPause) }
