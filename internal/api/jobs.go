package api

import (
	"errors"
	"net/http"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

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
	w := wire.Job{
		ID: job.ID, Type: string(job.Type), Status: string(job.Status), BeginTime: known(milliseconds(job.BeginTime)),
		ErrorCode: known(string(job.ErrorCode)), FailReason: known(job.FailReason),
		Entities: wire.JobEntities{ImageID: job.ImageID, ImageName: job.ImageName, Task: string(job.Step), Percent: wire.Percent(job.Percent)},
	}
	for _, warning := range job.Source.Warnings {
		w.Entities.Warnings = append(w.Entities.Warnings, wire.JobWarning(warning))
	}
	if !job.EndTime.IsZero() {
		w.EndTime = known(milliseconds(job.EndTime))
	}
	if job.Source.Nested && job.Status == ims.JobSuccess {
		w.Entities.SubJobs, w.Entities.SubJobsResult = []string{w.ID}, []wire.Job{w}
	}
	writeJSON(c.w, http.StatusOK, w)
	return nil
}
