package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// JobFilter selects jobs of a list. Empty fields do not filter.
type JobFilter struct {
	ImageID  string
	Status   ims.JobStatus
	Limit    int    // 1 to ims.MaxListLimit
	MarkerID string // the last job of the page before
}

// Jobs lists a project's jobs, the newest first. Behind a marker that the project never
// had there is nothing.
func (c *Catalog) Jobs(ctx context.Context, projectID string, f JobFilter) ([]ims.Job, error) {
	w := &where{}
	w.add("project_id = ?", projectID)
	w.equal("image_id", f.ImageID)
	w.equal("status", string(f.Status))
	if f.MarkerID != "" {
		var at int64
		err := c.db.QueryRowContext(ctx, "SELECT begin_time FROM jobs WHERE project_id = $1 AND id = $2", projectID, f.MarkerID).Scan(&at)
		if err := orNotFound(err); errors.Is(err, ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, wrap(err, "look up the job "+f.MarkerID)
		}
		w.add("(begin_time, id) < (?, ?)", at, f.MarkerID)
	}
	if w.none {
		return nil, nil
	}
	w.args = append(w.args, max(1, min(f.Limit, ims.MaxListLimit)))
	var out []ims.Job
	err := each(ctx, c.db, fmt.Sprintf("SELECT %s FROM jobs WHERE %s ORDER BY begin_time DESC, id DESC LIMIT $%d", jobColumns, w.text.String(), len(w.args)),
		w.args, func(rows *sql.Rows) error {
			j, err := scanJob(rows)
			out = append(out, j)
			return err
		})
	return out, wrap(err, "list the jobs of project "+projectID)
}

// GoingOn are jobs that have not ended, of one type and step.
type GoingOn struct {
	Type   ims.JobType
	Step   ims.Step
	Jobs   int
	Oldest time.Time // when the oldest of them was accepted
}

// JobsGoingOn counts the jobs of all projects that have not ended.
func (c *Catalog) JobsGoingOn(ctx context.Context) ([]GoingOn, error) {
	var out []GoingOn
	err := each(ctx, c.db, "SELECT type, step, COUNT(*), MIN(begin_time) FROM jobs WHERE end_time IS NULL GROUP BY type, step ORDER BY type, step", nil,
		func(rows *sql.Rows) error {
			var g GoingOn
			var oldest int64
			err := rows.Scan(&g.Type, &g.Step, &g.Jobs, &oldest)
			g.Oldest = fromMilli(oldest)
			out = append(out, g)
			return err
		})
	return out, wrap(err, "count the jobs that go on")
}
