package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/ims"
)

// JobCmd holds the commands for jobs.
type JobCmd struct {
	Show JobShowCmd `cmd:"" default:"withargs" help:"Show a job, or wait for its end."`
	List JobListCmd `cmd:"" help:"List the project's jobs."`
}

// Help shows the commands' use.
func (JobCmd) Help() string {
	return `Examples:

    quickims job list
    quickims job 4f0d1c2b3a49586778695a4b3c2d1e0f
    quickims job --wait 4f0d1c2b3a49586778695a4b3c2d1e0f
`
}

// JobShowCmd shows a job.
type JobShowCmd struct {
	serverFlags
	ID   string `arg:"" name:"id" help:"The job's id, as the import printed it."`
	Wait bool   `short:"w" help:"Wait until the job has ended. A job that failed is then a failed command."`
}

// Help shows the command's use.
func (JobShowCmd) Help() string {
	return `Examples:

    quickims job 4f0d1c2b3a49586778695a4b3c2d1e0f
    quickims job --wait --json 4f0d1c2b3a49586778695a4b3c2d1e0f
`
}

// Run shows the job.
func (c *JobShowCmd) Run(ctx context.Context, s *session) error {
	if !ims.ValidJobID(c.ID) {
		return usagef("%q is no job id, which has 32 digits of 0-9 and a-f", c.ID)
	}
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	if !c.Wait {
		job, err := service.Job(ctx, c.ID)
		if err != nil {
			return fmt.Errorf("show job %s: %w", c.ID, interrupted(ctx, err))
		}
		return s.result(job.Raw, func(w io.Writer) { printJob(w, job) })
	}
	job, err := s.wait(ctx, service, c.ID)
	if err != nil {
		return err
	}
	if err := s.result(job.Raw, func(w io.Writer) { printJob(w, job) }); err != nil {
		return err
	}
	return job.Err()
}

// JobListCmd lists jobs.
type JobListCmd struct {
	serverFlags
	Status string `enum:",init,running,success,fail" default:"" placeholder:"STATUS" help:"Only jobs of this status: init, running, success or fail."`
	Image  string `placeholder:"IMAGE" help:"Only jobs of this image, by id or name."`
	Limit  int    `placeholder:"N" default:"50" help:"At most N jobs, the newest; 0 lists all. Default: 50."`
	wideFlag
}

// Help shows the command's use.
func (JobListCmd) Help() string {
	return `Examples:

    quickims job list
    quickims job list --status running
    quickims job list --status fail --json --limit 0
`
}

// Validate checks what the grammar cannot say.
func (c *JobListCmd) Validate() error {
	if c.Limit < 0 {
		return fmt.Errorf("--limit is %d; it must be 0 or more", c.Limit)
	}
	return nil
}

// Run lists.
func (c *JobListCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	filter := url.Values{}
	if c.Status != "" {
		filter.Set("status", strings.ToUpper(c.Status))
	}
	if c.Image != "" {
		id, err := s.imageID(ctx, service, c.Image)
		if err != nil {
			return err
		}
		filter.Set("image_id", id)
	}
	jobs, err := service.Jobs(ctx, filter, c.Limit)
	if err != nil {
		return fmt.Errorf("list the jobs: %w", interrupted(ctx, err))
	}
	doc := struct {
		Jobs []json.RawMessage `json:"jobs"`
	}{Jobs: []json.RawMessage{}}
	for _, job := range jobs {
		doc.Jobs = append(doc.Jobs, job.Raw)
	}
	var rows [][]string
	for _, job := range jobs {
		took := ""
		if begin, end, ok := span(job); ok {
			took = seconds(end.Sub(begin).Seconds())
		}
		rows = append(rows, []string{job.ID, jobStep(job), fmt.Sprintf("%d%%", job.Percent), job.ImageID, job.ImageName, job.BeginTime, took, job.ErrorCode})
	}
	return s.table(doc, c.Wide, "no jobs", []column{{"JOB", whole, false}, {"STATUS", whole, false}, {"DONE", whole, true}, {"IMAGE", shortID, true}, {"NAME", soft, false},
		{"BEGAN", moment, true}, {"TOOK", whole, true}, {"ERROR", whole, false}}, rows)
}

// wait waits for a job's end and shows how far it is.
func (s *session) wait(ctx context.Context, service *client.Client, id string) (client.Job, error) {
	m := s.percentMeter("job")
	job, err := service.Wait(ctx, id,
		func(job client.Job) { m.atStep(jobStep(job), int64(job.Percent)) },
		func(err error) { m.note("%v; still waiting", err) })
	if err == nil {
		m.close(job.Err())
		return job, nil
	}
	m.close(err)
	if ctx.Err() != nil {
		return job, fmt.Errorf("%w; job %s goes on, look at it with: quickims job --wait %s", errInterrupted, id, id)
	}
	return job, fmt.Errorf("wait for job %s: %w", id, err)
}

// jobStep is one word for where a job stands.
func jobStep(job client.Job) string {
	if job.Status.Final() || job.Task == "" {
		return string(job.Status)
	}
	return job.Task
}

func printJob(w io.Writer, job client.Job) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("Job", job.ID)
	row("Type", string(job.Type))
	row("Status", string(job.Status))
	if !job.Status.Final() {
		row("Step", job.Task)
		row("Done", fmt.Sprintf("%d%%", job.Percent))
	}
	row("Began", when(job.BeginTime))
	row("Ended", when(job.EndTime))
	if begin, end, ok := span(job); ok {
		row("Took", seconds(end.Sub(begin).Seconds()))
	}
	row("Image", strings.TrimSpace(job.ImageID+"  "+job.ImageName))
	row("Error", job.ErrorCode)
	row("Reason", job.FailReason)
	for _, warning := range job.Warnings {
		row("Warning", strings.Join(wrap(warning.Text, wrapAt), "\n\t"))
	}
}

func span(job client.Job) (begin, end time.Time, ok bool) {
	begin, err1 := time.Parse(time.RFC3339, job.BeginTime)
	end, err2 := time.Parse(time.RFC3339, job.EndTime)
	return begin, end, err1 == nil && err2 == nil
}

// when prints a time of the wire, to the second. They are UTC and stay so.
func when(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
