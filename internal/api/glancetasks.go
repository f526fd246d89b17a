package api

import (
	"net/http"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// taskWire is a job as clients of the OpenStack Image API read it.
type taskWire struct {
	ID        string  `json:"id"`
	Type      string  `json:"type"`
	Status    string  `json:"status"`
	Owner     string  `json:"owner"`
	ImageID   string  `json:"image_id"`
	CreatedAt string  `json:"created_at"`
	UpdatedAt string  `json:"updated_at"`
	ExpiresAt *string `json:"expires_at"`
	Self      string  `json:"self"`
	Schema    string  `json:"schema"`
}

// taskDetails are what one task shows besides.
type taskDetails struct {
	taskWire
	Input   map[string]string `json:"input"`
	Result  map[string]string `json:"result"`
	Message string            `json:"message"`
}

// taskStatus is how the Image API spells the states of a job.
var taskStatus = map[ims.JobStatus]string{
	ims.JobInit: "pending", ims.JobRunning: "processing", ims.JobSuccess: "success", ims.JobFail: "failure",
}

func newTaskWire(j ims.Job) taskWire {
	w := taskWire{
		ID: j.ID, Type: "import", Status: taskStatus[j.Status], Owner: j.ProjectID, ImageID: j.ImageID,
		CreatedAt: seconds(j.BeginTime), UpdatedAt: seconds(j.BeginTime), Self: "/v2/tasks/" + j.ID, Schema: "/v2/schemas/task",
	}
	if !j.EndTime.IsZero() {
		w.UpdatedAt = seconds(j.EndTime)
	}
	return w
}

// listTasks is GET /image/v2/tasks: the project's jobs, the newest first.
func (s *server) listTasks(c *call) error {
	q := readQuery(c.Request)
	f := catalog.JobFilter{Limit: q.number("limit", defaultPage, 1, ims.MaxListLimit), MarkerID: q.one("marker")}
	if status := q.choice("status", "pending", "processing", "success", "failure"); status != "" {
		for job, name := range taskStatus {
			if name == status {
				f.Status = job
			}
		}
	}
	kind := q.one("type")
	if f.MarkerID != "" && !ims.ValidJobID(f.MarkerID) {
		q.refuse("marker is %q; it must be the id of a task", ims.Clip(f.MarkerID))
	}
	if q.fault != nil {
		return q.fault
	}
	tasks := []taskWire{}
	next := ""
	if kind == "" || kind == "import" {
		jobs, err := s.Catalog.Jobs(c.Context(), c.project(), f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			tasks = append(tasks, newTaskWire(j))
		}
		if len(jobs) == f.Limit {
			next = pageLink("/v2/tasks", c.URL.Query(), jobs[len(jobs)-1].ID)
		}
	}
	writeJSON(c.w, http.StatusOK, struct {
		Tasks  []taskWire `json:"tasks"`
		Schema string     `json:"schema"`
		First  string     `json:"first"`
		Next   string     `json:"next,omitempty"`
	}{tasks, "/v2/schemas/tasks", pageLink("/v2/tasks", c.URL.Query(), ""), next})
	return nil
}

// showTask is GET /image/v2/tasks/{task_id}.
func (s *server) showTask(c *call) error {
	job, err := s.jobOf(c, c.PathValue("task_id"))
	if err != nil {
		return err
	}
	w := taskDetails{taskWire: newTaskWire(job), Input: map[string]string{}, Message: job.FailReason}
	if job.Source.Bucket != "" {
		w.Input["import_from"] = job.Source.Bucket + ":" + job.Source.Key
	}
	if job.Status == ims.JobSuccess {
		w.Result = map[string]string{"image_id": job.ImageID}
	}
	writeJSON(c.w, http.StatusOK, w)
	return nil
}

// imageTasks is GET /image/v2/images/{image_id}/tasks: the jobs that make an image.
func (s *server) imageTasks(c *call) error {
	img, err := s.image(c)
	if err != nil {
		return err
	}
	jobs, err := s.Catalog.Jobs(c.Context(), c.project(), catalog.JobFilter{ImageID: img.ID, Limit: ims.MaxListLimit})
	if err != nil {
		return err
	}
	tasks := []taskDetails{}
	for _, j := range jobs {
		tasks = append(tasks, taskDetails{taskWire: newTaskWire(j), Input: map[string]string{}, Message: j.FailReason})
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"tasks": tasks})
	return nil
}
