package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// ChangeMembers carries a request about members out: for each of its pairs the image is
// shared with the project, or is not any more, or the project, which is then the caller's
// own, answers status to the offer. All or nothing, in one transaction that also writes
// the job. A pair for which there is nothing to do counts as done.
//
// Faults that a client is told of: those of AddMember, an image that the project does not
// see (IMG.0027) or does not own (IMG.0047).
func (c *Catalog) ChangeMembers(ctx context.Context, job ims.MemberJob, status ims.MemberStatus) error {
	job.EndedAt = c.now()
	pairs := slices.Clone(job.Pairs)
	// Whoever locks several images does so in the order of their ids.
	slices.SortStableFunc(pairs, func(a, b ims.MemberPair) int { return strings.Compare(a.ImageID, b.ImageID) })
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		for first := 0; first < len(pairs); {
			last := first
			for last < len(pairs) && pairs[last].ImageID == pairs[first].ImageID {
				last++
			}
			if err := c.changeMembersOf(ctx, tx, job, pairs[first:last], status); err != nil {
				return err
			}
			first = last
		}
		if err := insertMemberJob(ctx, tx, job); err != nil {
			return err
		}
		// A project has the newest rows, and all of its last request.
		_, err := tx.ExecContext(ctx, `DELETE FROM member_jobs WHERE project_id = $1 AND ended_at <
			(SELECT ended_at FROM member_jobs WHERE project_id = $1 ORDER BY ended_at DESC, id LIMIT 1 OFFSET $2)`, job.ProjectID, keepMost-1)
		return err
	})
	return wrap(err, "change members")
}

// changeMembersOf carries the pairs of one image out.
func (c *Catalog) changeMembersOf(ctx context.Context, tx *database.Tx, job ims.MemberJob, pairs []ims.MemberPair, status ims.MemberStatus) error {
	id := pairs[0].ImageID
	if !ims.ValidUUID(id) {
		return noImage(id)
	}
	if job.Type == ims.JobUpdateMembers {
		return c.answerOfferOf(ctx, tx, job.ProjectID, id, status)
	}
	img, err := lockOwn(ctx, tx, job.ProjectID, id)
	if err != nil {
		return err
	}
	changed := false
	for _, p := range pairs {
		var did bool
		if job.Type == ims.JobDeleteMembers {
			did, err = removeMember(ctx, tx, id, p.ProjectID)
		} else if err = mayShare(img, p.ProjectID, false); err == nil {
			did, err = insertMember(ctx, tx, ims.Member{ImageID: id, ProjectID: p.ProjectID, Status: ims.MemberPending, CreatedAt: job.EndedAt})
		}
		if err != nil {
			return err
		}
		changed = changed || did
	}
	if !changed {
		return nil
	}
	return c.countMembers(ctx, tx, img)
}

// answerOfferOf writes the answer of a project to the offer of an image.
func (c *Catalog) answerOfferOf(ctx context.Context, tx *database.Tx, projectID, id string, status ims.MemberStatus) error {
	owner, m, err := seen(ctx, tx, projectID, id)
	switch {
	case errors.Is(err, ErrNotFound):
		if _, err := selectImage(ctx, tx, projectID, id); err == nil {
			return ims.Faultf(ims.CodeNotAllowed, "the image %s is the project's own; only a project that it is shared with accepts or rejects it", id).WithKind(ims.KindForbidden)
		}
		return noImage(id)
	case err != nil:
		return err
	case m == nil:
		return ims.Faultf(ims.CodeSharePublic, "the image %s is public: nobody accepts or rejects it", id)
	}
	if _, err := lockImage(ctx, tx, owner, id); errors.Is(err, ErrNotFound) {
		return noImage(id)
	} else if err != nil {
		return err
	}
	if err := c.answerOffer(ctx, tx, projectID, id, status); errors.Is(err, ErrNotFound) {
		return noImage(id)
	} else if err != nil {
		return err
	}
	return nil
}

// lockOwn locks an image of the project's own. Who sees it and does not own it is told so.
func lockOwn(ctx context.Context, tx *database.Tx, projectID, id string) (ims.Image, error) {
	img, err := lockImage(ctx, tx, projectID, id)
	if !errors.Is(err, ErrNotFound) {
		return img, err
	}
	if _, _, err := seen(ctx, tx, projectID, id); errors.Is(err, ErrNotFound) {
		return img, noImage(id)
	} else if err != nil {
		return img, err
	}
	return img, ims.Faultf(ims.CodeOwnerOnly, "the image %s belongs to another project; only its owner can change its members", id).WithKind(ims.KindForbidden)
}

// noImage is the fault of an image that the project does not see, among several.
func noImage(id string) error {
	return ims.NotFoundf(ims.CodeImageUnknown, "the project has no image with the id %s", ims.Clip(id))
}

const memberJobColumns = "id, parent_id, project_id, type, image_id, member_id, number, ended_at"

func insertMemberJob(ctx context.Context, tx *database.Tx, job ims.MemberJob) error {
	insert := func(id, parent string, p ims.MemberPair, number int) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO member_jobs ("+memberJobColumns+") VALUES "+placeholders(1, 8),
			id, parent, job.ProjectID, string(job.Type), p.ImageID, p.ProjectID, number, job.EndedAt.UnixMilli())
		return err
	}
	if err := insert(job.ID, "", ims.MemberPair{}, 0); err != nil {
		return err
	}
	for i, p := range job.Pairs {
		if err := insert(p.JobID, job.ID, p, i+1); err != nil {
			return err
		}
	}
	return nil
}

// MemberJob reads a request about members, or the part of one that has this id.
// ErrNotFound when the project sent none.
func (c *Catalog) MemberJob(ctx context.Context, projectID, id string) (ims.MemberJob, error) {
	if !ims.ValidJobID(id) {
		return ims.MemberJob{}, ErrNotFound
	}
	job := ims.MemberJob{ID: id, ProjectID: projectID}
	found := false
	err := each(ctx, c.db, `SELECT id, type, image_id, member_id, ended_at FROM member_jobs
		WHERE project_id = $1 AND (id = $2 OR parent_id = $2) ORDER BY number`, []any{projectID, id}, func(rows *sql.Rows) error {
		var p ims.MemberPair
		var ended int64
		if err := rows.Scan(&p.JobID, &job.Type, &p.ImageID, &p.ProjectID, &ended); err != nil {
			return err
		}
		found, job.EndedAt = true, fromMilli(ended)
		if p.ImageID != "" {
			job.Pairs = append(job.Pairs, p)
		}
		return nil
	})
	if err != nil {
		return ims.MemberJob{}, fmt.Errorf("read job %s: %w", id, err)
	}
	if !found {
		return ims.MemberJob{}, ErrNotFound
	}
	return job, nil
}
