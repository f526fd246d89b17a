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

// job is GET /v1/{project_id}/jobs/{job_id}, and GET /v1/cloudimages/job/{job_id} of the
// caller's project.
func (s *server) job(c *call) error {
	id := c.PathValue("job_id")
	job, unknown := s.jobOf(c, id)
	if ims.CodeOf(unknown) == ims.CodeJobUnknown {
		members, err := s.Catalog.MemberJob(c.Context(), c.project(), id)
		switch {
		case err == nil:
			writeJSON(c.w, http.StatusOK, newMemberJob(members))
			return nil
		case !errors.Is(err, catalog.ErrNotFound):
			return err
		}
	}
	if unknown != nil {
		return unknown
	}
	writeJSON(c.w, http.StatusOK, newJobWire(job))
	return nil
}

// listJobs is GET /v1/{project_id}/jobs, the newest first.
func (s *server) listJobs(c *call) error {
	q := readQuery(c.Request)
	f := catalog.JobFilter{
		Limit: q.number("limit", ims.DefaultListLimit, 1, ims.MaxListLimit), MarkerID: q.one("marker"), ImageID: q.one("image_id"),
		Status: ims.JobStatus(q.choice("status", string(ims.JobInit), string(ims.JobRunning), string(ims.JobSuccess), string(ims.JobFail))),
	}
	if f.MarkerID != "" && !ims.ValidJobID(f.MarkerID) {
		q.refuse("marker is %q; it must be the id of a job", ims.Clip(f.MarkerID))
	}
	if q.fault != nil {
		return q.fault
	}
	jobs, err := s.Catalog.Jobs(c.Context(), c.project(), f)
	if err != nil {
		return err
	}
	list := wire.Jobs{Jobs: []wire.Job{}}
	for _, job := range jobs {
		list.Jobs = append(list.Jobs, newJobWire(job))
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

func newJobWire(job ims.Job) wire.Job {
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
	return w
}
