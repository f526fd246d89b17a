package api

import (
	"slices"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// addMembers is POST /v1/cloudimages/members: every image is shared with every project.
func (s *server) addMembers(c *call) error { return s.shareWith(c, ims.JobAddMembers) }

// deleteMembers is DELETE /v1/cloudimages/members.
func (s *server) deleteMembers(c *call) error { return s.shareWith(c, ims.JobDeleteMembers) }

func (s *server) shareWith(c *call, kind ims.JobType) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	images, projects := f.texts("images"), f.texts("projects")
	for _, other := range []string{"domains", "organizations"} {
		if len(f.texts(other)) > 0 {
			f.refuse(ims.Faultf(ims.CodeUnsupported, "%s: there is no directory of accounts and organizations here; name projects in projects", other))
		}
	}
	if err := f.failed(); err != nil {
		return err
	}
	for i, id := range projects {
		if !ims.ValidProjectID(id) {
			return ims.Faultf(ims.CodeProjectID, "%s is %q; it must be the id of a project", index("projects", i), ims.Clip(id))
		}
	}
	return s.changeMembers(c, kind, images, projects, "")
}

// updateMembers is PUT /v1/cloudimages/members: the caller's project answers to offers.
func (s *server) updateMembers(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	images, project := f.texts("images"), f.required("project_id", ims.CodeBadFormat)
	status := ims.MemberStatus(f.required("status", ims.CodeBadFormat))
	f.text("vault_id") // of backups, which are not here
	if err := f.failed(); err != nil {
		return err
	}
	if status != ims.MemberAccepted && status != ims.MemberRejected {
		return ims.Faultf(ims.CodeBadFormat, "status is %q; it must be accepted or rejected", ims.Clip(string(status)))
	}
	if project != c.project() {
		return ims.Faultf(ims.CodeProjectID, "project_id is %q; it must be the project of the credentials", ims.Clip(project))
	}
	return s.changeMembers(c, ims.JobUpdateMembers, images, []string{project}, status)
}

// changeMembers does it for every pair of an image and a project, and answers with the job.
func (s *server) changeMembers(c *call, kind ims.JobType, images, projects []string, status ims.MemberStatus) error {
	if n := len(images) * len(projects); n == 0 || n > ims.MaxMemberPairs {
		return ims.Faultf(ims.CodeBadFormat, "there are %d images and %d projects; at least one of each is required, and at most %d pairs are allowed",
			len(images), len(projects), ims.MaxMemberPairs)
	}
	job := ims.MemberJob{ID: ims.NewJobID(), ProjectID: c.project(), Type: kind}
	for i, image := range images {
		for j, project := range projects {
			if !slices.Contains(images[:i], image) && !slices.Contains(projects[:j], project) {
				job.Pairs = append(job.Pairs, ims.MemberPair{JobID: ims.NewJobID(), ImageID: image, ProjectID: project})
			}
		}
	}
	return c.answerJob(job.ID, s.Catalog.ChangeMembers(c.Context(), job, status))
}

// newMemberJob shows a request about members. Each pair is a job of its own.
func newMemberJob(job ims.MemberJob) wire.Job {
	at := known(milliseconds(job.EndedAt))
	document := func(id string) wire.Job {
		return wire.Job{ID: id, Type: string(job.Type), Status: string(ims.JobSuccess), BeginTime: at, EndTime: at,
			Entities: wire.JobEntities{Results: &[]wire.JobResult{}, Percent: 100}}
	}
	w := document(job.ID)
	for _, p := range job.Pairs {
		part := document(p.JobID)
		part.Entities.ImageID = p.ImageID
		if job.Type != ims.JobDeleteMembers {
			result := wire.JobResult{ImageID: p.ImageID, ProjectID: p.ProjectID, Status: "success"}
			*w.Entities.Results = append(*w.Entities.Results, result)
			*part.Entities.Results = append(*part.Entities.Results, result)
		}
		if p.JobID == job.ID {
			return part
		}
		w.Entities.SubJobs = append(w.Entities.SubJobs, part.ID)
		w.Entities.SubJobsResult = append(w.Entities.SubJobsResult, part)
	}
	return w
}
