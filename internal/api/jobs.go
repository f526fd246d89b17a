package api

import (
	"errors"
	"net/http"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// jobWire is a job as clients read it.
type jobWire struct {
	JobID      string      `json:"job_id"`
	JobType    string      `json:"job_type"`
	Status     string      `json:"status"`
	BeginTime  string      `json:"begin_time"`
	EndTime    *string     `json:"end_time"`
	ErrorCode  *string     `json:"error_code"`
	FailReason *string     `json:"fail_reason"`
	Entities   jobEntities `json:"entities"`
}

// jobEntities say what the job makes and how far it is.
type jobEntities struct {
	ImageID        string `json:"image_id,omitempty"`
	ImageName      string `json:"image_name,omitempty"`
	CurrentTask    string `json:"current_task"`
	ProcessPercent int    `json:"process_percent"`

	Warnings []jobWarning `json:"warnings,omitempty"`
}

// jobWarning is something about the disk that its owner should know.
type jobWarning struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// jobOf is the project's job with an id.
func (s *server) jobOf(c *call, id string) (ims.Job, error) {
	unknown := ims.NotFoundf(ims.CodeJobUnknown, "the project has no job with this id")
	if !ims.ValidJobID(id) {
		return ims.Job{}, unknown
	}
	job, err := s.Catalog.Job(c.Context(), c.project(), id)
	if errors.Is(err, catalog.ErrNotFound) {
		return job, unknown
	}
	return job, err
}

// job is GET /v1/{project_id}/jobs/{job_id}.
func (s *server) job(c *call) error {
	job, err := s.jobOf(c, c.PathValue("job_id"))
	if err != nil {
		return err
	}
	w := jobWire{
		JobID: job.ID, JobType: string(job.Type), Status: string(job.Status), BeginTime: milliseconds(job.BeginTime),
		ErrorCode: known(string(job.ErrorCode)), FailReason: known(job.FailReason),
		Entities: jobEntities{ImageID: job.ImageID, ImageName: job.ImageName, CurrentTask: string(job.Step), ProcessPercent: job.Percent},
	}
	for _, warning := range job.Source.Warnings {
		w.Entities.Warnings = append(w.Entities.Warnings, jobWarning(warning))
	}
	if !job.EndTime.IsZero() {
		w.EndTime = known(milliseconds(job.EndTime))
	}
	writeJSON(c.w, http.StatusOK, w)
	return nil
}
