package queue_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/queue"
)

// workerVariable, if set, makes the test binary a worker process on that database.
const workerVariable = "QUICKIMS_TEST_QUEUE_WORKER"

func TestMain(m *testing.M) {
	if url := os.Getenv(workerVariable); url != "" {
		if err := work(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// workerLease is short, so that a test need not wait long for it to expire.
const workerLease = time.Second

// work serves the queue as the service does, until its input ends. It says what it
// does line by line: the first attempt at a job hangs, the next one ends it.
func work(url string) error {
	ctx := context.Background()
	db, err := database.Open(ctx, url, database.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	c := catalog.New(db, catalog.Options{})
	if db.Dialect() == database.SQLite {
		if err := c.ExpireLeases(ctx); err != nil {
			return err
		}
	}
	q, err := queue.New(db, func(ctx context.Context, id string) (time.Duration, error) {
		job, ok, err := c.ClaimJob(ctx, id, workerLease)
		if err != nil || !ok {
			return 0, err
		}
		fmt.Println("attempt", job.Attempt, id)
		if job.Attempt == 1 {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		err = c.Fail(ctx, job, ims.CodeFile, "handled")
		fmt.Println("ended", id)
		return 0, err
	}, queue.Options{})
	if err != nil {
		return err
	}
	if err := q.Start(ctx); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := q.Reconcile(ctx, c.Unserved); err != nil {
			return err
		}
		select {
		case <-gone:
			return q.Stop(ctx)
		case <-tick.C:
		}
	}
}

// process is a worker process.
type process struct {
	*exec.Cmd
	input io.Closer
	lines *bufio.Scanner
}

func startProcess(t *testing.T, url string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerVariable+"="+url)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return &process{cmd, input, bufio.NewScanner(output)}
}

// says waits for a line.
func (p *process) says(t *testing.T, want string) {
	t.Helper()
	timeout := time.AfterFunc(30*time.Second, func() { p.Process.Kill() })
	defer timeout.Stop()
	for p.lines.Scan() {
		if p.lines.Text() == want {
			return
		}
		t.Logf("the worker says %q", p.lines.Text())
	}
	t.Fatalf("the worker did not say %q", want)
}

// TestKilled: a worker process is killed with SIGKILL while it handles a job. The next
// one takes the job over: at once where it owns the database alone, after the lease
// where others may live.
func TestKilled(t *testing.T) {
	t.Parallel()
	databasetest.RunURL(t, func(t *testing.T, url string) {
		ctx := t.Context()
		db, err := database.Open(ctx, url, database.Options{})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		c := catalog.New(db, catalog.Options{})
		q, err := queue.New(db, nil, queue.Options{})
		must(t, err)
		const project, domain = "p", "d"
		img := ims.Image{
			ID: ims.NewImageID(), ProjectID: project, EnterpriseProjectID: ims.DefaultEnterpriseProject,
			Name: "x", Env: ims.EnvData, SourceURL: "b:x.raw",
		}
		job := ims.Job{
			ID: ims.NewJobID(), ProjectID: project, Type: ims.JobImportData, Step: ims.StepAccepted,
			ImageID: img.ID, ImageName: img.Name, Source: ims.Source{Bucket: "b", Key: "x.raw", Size: 1},
		}
		must(t, c.CreateImport(ctx, domain, img, job, ims.Limits{Images: 1, Imports: 1}, q.Enqueue))

		first := startProcess(t, url)
		first.says(t, "attempt 1 "+job.ID)
		must(t, first.Process.Kill())
		if err := first.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the first worker ended with %v, want killed", err)
		}
		killed := time.Now()
		if got, err := c.Job(ctx, project, job.ID); err != nil || got.Status != ims.JobRunning {
			t.Fatalf("the job is %s (%v), want RUNNING: its worker is dead", got.Status, err)
		}

		second := startProcess(t, url)
		second.says(t, "attempt 2 "+job.ID)
		second.says(t, "ended "+job.ID)
		t.Logf("from the kill to the end: %v, a lease being %v", time.Since(killed), workerLease)
		must(t, second.input.Close())
		must(t, second.Wait())

		end, err := c.Job(ctx, project, job.ID)
		must(t, err)
		image, err := c.Image(ctx, project, img.ID)
		must(t, err)
		if end.Status != ims.JobFail || end.Attempt != 2 || image.Status != ims.ImageKilled {
			t.Errorf("job %s after %d attempts, image %s; want FAIL, 2, killed", end.Status, end.Attempt, image.Status)
		}
	})
}
