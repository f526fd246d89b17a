package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// Job is the work of one import as the service shows it.
type Job struct {
	ID         string
	Type       ims.JobType
	Status     ims.JobStatus
	BeginTime  string // UTC, "" until it has a value
	EndTime    string
	ErrorCode  string
	FailReason string
	ImageID    string
	ImageName  string
	Task       string // what it does now; "" when unknown
	Percent    int    // 0 to 100
	// Warnings are what the service noticed about the disk.
	Warnings []ims.Warning
	// Raw is the service's own document.
	Raw json.RawMessage
}

// Err is nil unless the job failed.
func (j Job) Err() error {
	if j.Status != ims.JobFail {
		return nil
	}
	return &JobError{Job: j}
}

// JobError says why a job failed.
type JobError struct{ Job Job }

func (e *JobError) Error() string {
	reason := e.Job.FailReason
	if reason == "" {
		reason = "the service gave no reason"
	}
	if code := e.Job.ErrorCode; code != "" && !strings.HasPrefix(reason, code) {
		reason = code + ": " + reason
	}
	return fmt.Sprintf("job %s failed: %s", e.Job.ID, reason)
}

// Job asks for a job of the project.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	project, err := c.project()
	if err != nil {
		return Job{}, err
	}
	body, err := c.do(ctx, http.MethodGet, []string{"v1", project, "jobs", id}, nil, nil)
	if err != nil {
		return Job{}, err
	}
	return readJob(body)
}

func readJob(body []byte) (Job, error) {
	var doc wire.Job
	if err := json.Unmarshal(body, &doc); err != nil {
		return Job{}, fmt.Errorf("read a job: %w", err)
	}
	var warnings []ims.Warning
	for _, w := range doc.Entities.Warnings {
		warnings = append(warnings, ims.Warning(w))
	}
	return Job{
		Warnings: warnings,
		ID:       doc.ID, Type: ims.JobType(doc.Type), Status: ims.JobStatus(doc.Status),
		BeginTime: text(doc.BeginTime), EndTime: text(doc.EndTime),
		ErrorCode: text(doc.ErrorCode), FailReason: text(doc.FailReason),
		ImageID: doc.Entities.ImageID, ImageName: doc.Entities.ImageName,
		Task: doc.Entities.Task, Percent: int(doc.Entities.Percent), Raw: body,
	}, nil
}

// Jobs lists the project's jobs, the newest first: at most most, or all if that is 0.
// filter has the query's other parameters.
func (c *Client) Jobs(ctx context.Context, filter url.Values, most int) ([]Job, error) {
	project, err := c.project()
	if err != nil {
		return nil, err
	}
	query := maps.Clone(filter)
	var all []Job
	for {
		page := ims.DefaultListLimit
		if most > 0 {
			page = min(page, most-len(all))
		}
		query.Set("limit", strconv.Itoa(page))
		body, err := c.do(ctx, http.MethodGet, []string{"v1", project, "jobs"}, query, nil)
		if err != nil {
			return nil, err
		}
		var doc struct {
			Jobs []json.RawMessage `json:"jobs"`
		}
		if err := json.Unmarshal(body, &doc); err != nil {
			return nil, fmt.Errorf("read the list of jobs: %w", err)
		}
		for _, raw := range doc.Jobs {
			job, err := readJob(raw)
			if err != nil {
				return nil, err
			}
			all = append(all, job)
		}
		if len(doc.Jobs) < page || most > 0 && len(all) >= most {
			return all, nil
		}
		query.Set("marker", all[len(all)-1].ID)
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// How a job is looked at while it runs: often at first, since a quick import takes
// a second, then every other second.
const (
	pollFirst = 100 * time.Millisecond
	pollMost  = 2 * time.Second
	// patience is how long a service may be away while a job of its is waited for.
	patience = 2 * time.Minute
)

// Wait looks at a job until it has ended and gives its last state; that it failed
// is no error of Wait. seen is called with the first state and each that differs;
// away, when not nil, with the fault when the service begins to be away. A service
// that stays away for two minutes is an error.
func (c *Client) Wait(ctx context.Context, id string, seen func(Job), away func(error)) (Job, error) {
	var last Job
	var gone time.Time // since when there has been no answer
	for pause := pollFirst; ; pause = min(pause*3/2, pollMost) {
		job, err := c.Job(ctx, id)
		switch {
		case err == nil:
			gone = time.Time{}
			if seen != nil && (job.Status != last.Status || job.Task != last.Task || job.Percent != last.Percent) {
				seen(job)
			}
			if job.Status.Final() {
				return job, nil
			}
			last = job
		case !passing(err):
			return last, err
		case gone.IsZero():
			gone = c.opts.Now()
			if away != nil {
				away(err)
			}
		case c.opts.Now().Sub(gone) > patience:
			return last, fmt.Errorf("waited %v for the service to come back: %w", patience, err)
		}
		if err := c.opts.Sleep(ctx, pause); err != nil {
			return last, err
		}
	}
}
