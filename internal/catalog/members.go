package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// An image is its owner's. A member sees it, and once it has accepted, reads and
// attaches it; everybody sees, reads and attaches a public one. All else is the owner's,
// to whom a member's id means nothing more than a name. Who changes members or publishes
// holds the image's lock.

const memberColumns = "image_id, member_id, status, created_at, updated_at"

func scanMember(row interface{ Scan(...any) error }) (ims.Member, error) {
	var m ims.Member
	var created, updated int64
	err := row.Scan(&m.ImageID, &m.ProjectID, &m.Status, &created, &updated)
	m.CreatedAt, m.UpdatedAt = fromMilli(created), fromMilli(updated)
	return m, orNotFound(err)
}

// memberStatuses makes texts of statuses.
func memberStatuses(list []ims.MemberStatus) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// VisibleImage reads an image of a project's own, a public one, or one that is shared
// with it; of the last it gives the membership too. ErrNotFound for all others.
func (c *Catalog) VisibleImage(ctx context.Context, projectID, id string) (ims.Image, *ims.Member, error) {
	img, err := selectImage(ctx, c.db, projectID, id)
	if !errors.Is(err, ErrNotFound) || !ims.ValidUUID(id) {
		return img, nil, err
	}
	owner, m, err := seen(ctx, c.db, projectID, id)
	if err != nil {
		return ims.Image{}, nil, wrap(err, "read image "+id)
	}
	img, err = selectImage(ctx, c.db, owner, id)
	if err == nil && m == nil && img.Visibility() != ims.VisibilityPublic {
		return ims.Image{}, nil, ErrNotFound // it was withdrawn meanwhile
	}
	return img, m, err
}

// seen finds what makes an image of another project visible to a project: it is public,
// or shared, which has a membership.
func seen(ctx context.Context, q database.Querier, projectID, id string) (owner string, m *ims.Member, err error) {
	err = orNotFound(q.QueryRowContext(ctx, "SELECT project_id FROM images WHERE id = $1 AND "+isPublic, id).Scan(&owner))
	if !errors.Is(err, ErrNotFound) {
		return owner, nil, err
	}
	owner, found, err := membership(ctx, q, projectID, id)
	return owner, &found, err
}

// isPublic is the condition on an image that all projects see. An index has those.
const isPublic = "visibility = 'public' AND deleted_at IS NULL AND status <> 'killed'"

// membership finds what makes an image of another project visible to a project.
func membership(ctx context.Context, q database.Querier, projectID, id string) (owner string, m ims.Member, err error) {
	row := q.QueryRowContext(ctx, `SELECT m.image_id, m.member_id, m.status, m.created_at, m.updated_at, images.project_id
		FROM image_members m JOIN images ON images.id = m.image_id
		WHERE m.member_id = $1 AND m.image_id = $2 AND images.deleted_at IS NULL`, projectID, id)
	m, err = scanMember(scanMore{row, &owner})
	return owner, m, err
}

// lockReadable locks an image that a project may read: its own, a public one, or one that
// is shared with it and that it accepted. It stays readable until the transaction ends.
func lockReadable(ctx context.Context, tx *database.Tx, projectID, id string) (ims.Image, error) {
	img, err := lockImage(ctx, tx, projectID, id)
	if !errors.Is(err, ErrNotFound) || !ims.ValidUUID(id) {
		return img, err
	}
	owner, _, err := seen(ctx, tx, projectID, id)
	if err != nil {
		return ims.Image{}, err
	}
	if img, err = lockImage(ctx, tx, owner, id); err != nil {
		return ims.Image{}, err
	}
	// Only now nobody changes it.
	_, m, err := seen(ctx, tx, projectID, id)
	if err != nil {
		return ims.Image{}, err
	}
	return img, MayRead(m)
}

// MayRead is nil if a member has accepted the image, and for who sees it and is no member:
// its owner, or everybody if it is public. Else the fault says what to do.
func MayRead(m *ims.Member) error {
	if m == nil || m.Status == ims.MemberAccepted {
		return nil
	}
	return ims.Faultf(ims.CodeNotAllowed, "the image is shared with this project, which has not accepted it: its membership is %s", m.Status).
		WithKind(ims.KindForbidden)
}

// within gives the parts of what a project may see that a list is made of: its own images,
// those that are shared with it, public ones. Each is a condition with an index of its own.
func (w *where) within(projectID string, f ims.ImageFilter) ([]string, error) {
	statuses := f.MemberStatus
	if len(statuses) == 0 {
		statuses = []ims.MemberStatus{ims.MemberAccepted}
	}
	if len(statuses) > len(ims.MemberStatuses) {
		return nil, ims.Faultf(ims.CodeBadFormat, "%d values of member_status, at most %d are allowed", len(statuses), len(ims.MemberStatuses))
	}
	// The enterprise project of another's image is the other's.
	inEnterprise := f.EnterpriseProjectID != "" && f.EnterpriseProjectID != ims.AllEnterpriseProjects
	others := !f.OwnAlone && f.Owner != projectID
	var parts []string
	if !f.ForeignAlone && (f.Owner == "" || f.Owner == projectID) {
		own := w.bind("project_id = ?", projectID) + map[ims.Visibility]string{
			ims.VisibilityShared:    " AND (members > 0 OR visibility = 'shared')",
			ims.VisibilityPrivate:   " AND members = 0 AND visibility = 'private'",
			ims.VisibilityCommunity: " AND visibility = 'community'",
			ims.VisibilityPublic:    " AND visibility = 'public'",
		}[f.Visibility]
		if f.OwnAlone {
			own += " AND visibility <> 'public'"
		}
		if f.SharedAlone {
			own += " AND members > 0"
		}
		if inEnterprise {
			w.none = w.none || !database.Storable(f.EnterpriseProjectID)
			own += w.bind(" AND enterprise_project_id = ?", f.EnterpriseProjectID)
		}
		parts = append(parts, own)
	}
	if others && !inEnterprise && (f.Visibility == "" || f.Visibility == ims.VisibilityShared) {
		args := append([]any{projectID}, anys(memberStatuses(statuses))...)
		parts = append(parts, w.bind("id IN (SELECT m.image_id FROM image_members m WHERE m.member_id = ? AND m.status IN "+marks(len(statuses))+")", args...))
	}
	if others && !f.ForeignAlone && !f.SharedAlone && (f.Visibility == "" && !inEnterprise || f.Visibility == ims.VisibilityPublic) {
		parts = append(parts, isPublic+w.bind(" AND project_id <> ?", projectID))
	}
	return parts, nil
}

// marks is "(?, …)" for n arguments of where.add.
func marks(n int) string {
	s := "(?"
	for range n - 1 {
		s += ", ?"
	}
	return s + ")"
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// AddMember shares an image with a project, whose answer is pending. An image without
// data is shared if early is set. Faults that a client is told of: the image is not active
// (IMG.0046), the project is its owner (IMG.0076), the image is public (IMG.0089), it
// is a member already (IMG.0035, a conflict), there are ims.MaxMembers (IMG.0088).
func (c *Catalog) AddMember(ctx context.Context, projectID, id, member string, early bool) (ims.Member, error) {
	var m ims.Member
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		img, err := lockImage(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		if err := mayShare(img, member, early); err != nil {
			return err
		}
		now := c.now()
		m = ims.Member{ImageID: id, ProjectID: member, Status: ims.MemberPending, CreatedAt: now, UpdatedAt: now}
		added, err := insertMember(ctx, tx, m)
		if err != nil {
			return err
		}
		if !added {
			return ims.Faultf(ims.CodeConflict, "the image is shared with project %s already", member).WithKind(ims.KindConflict)
		}
		return c.countMembers(ctx, tx, img)
	})
	if err != nil {
		return ims.Member{}, fmt.Errorf("share image %s: %w", id, err)
	}
	return m, nil
}

// mayShare is the fault of sharing an image with a project, nil for none.
func mayShare(img ims.Image, member string, early bool) error {
	switch {
	case img.Status != ims.ImageActive && (!early || img.Status == ims.ImageKilled):
		return ims.Faultf(ims.CodeImageNotActive, "the image %s is %s; only an active one can be shared", img.ID, img.Status)
	case member == img.ProjectID:
		return ims.Faultf(ims.CodeShareWithSelf, "member is the project that the image belongs to")
	case img.MadeVisible == ims.VisibilityPublic:
		return ims.Faultf(ims.CodeSharePublic, "the image %s is public: all projects see it, it has no members", img.ID)
	}
	return nil
}

// insertMember adds a member that may be one already.
func insertMember(ctx context.Context, tx *database.Tx, m ims.Member) (added bool, err error) {
	n, err := affected(tx.ExecContext(ctx, "INSERT INTO image_members ("+memberColumns+`) VALUES ($1, $2, $3, $4, $4)
		ON CONFLICT (image_id, member_id) DO NOTHING`, m.ImageID, m.ProjectID, string(m.Status), m.CreatedAt.UnixMilli()))
	return n > 0, err
}

// countMembers keeps the image's number of members right, which is at most ims.MaxMembers.
func (c *Catalog) countMembers(ctx context.Context, tx *database.Tx, img ims.Image) error {
	var members int
	err := tx.QueryRowContext(ctx, "UPDATE images SET members = "+membersOf+", updated_at = $3 WHERE project_id = $1 AND id = $2 RETURNING members", img.ProjectID, img.ID, c.now().UnixMilli()).Scan(&members)
	if err == nil && members > max(img.Members, ims.MaxMembers) {
		return ims.Faultf(ims.CodeMemberQuota, "the image %s would have %d members; at most %d are allowed", img.ID, members, ims.MaxMembers)
	}
	return err
}

// Members lists an image's members, the earliest first: all for its owner, for a member
// itself alone; of a public image none. ErrNotFound for who does not see the image.
func (c *Catalog) Members(ctx context.Context, projectID, id string) ([]ims.Member, error) {
	img, self, err := c.VisibleImage(ctx, projectID, id)
	switch {
	case err != nil:
		return nil, err
	case self != nil:
		return []ims.Member{*self}, nil
	case img.ProjectID != projectID:
		return nil, nil
	}
	var out []ims.Member
	err = each(ctx, c.db, "SELECT "+memberColumns+" FROM image_members WHERE image_id = $1 ORDER BY created_at, member_id", []any{id}, func(rows *sql.Rows) error {
		m, err := scanMember(rows)
		out = append(out, m)
		return err
	})
	return out, wrap(err, "list the members of image "+id)
}

// Member reads one member as Members shows it. ErrNoMember when the image can be seen,
// the member not.
func (c *Catalog) Member(ctx context.Context, projectID, id, member string) (ims.Member, error) {
	list, err := c.Members(ctx, projectID, id)
	if err != nil {
		return ims.Member{}, err
	}
	if i := slices.IndexFunc(list, func(m ims.Member) bool { return m.ProjectID == member }); i >= 0 {
		return list[i], nil
	}
	return ims.Member{}, ErrNoMember
}

// SetMemberStatus writes what a project answers to the offer of an image. Whoever does
// not accept it (any more) has its attachments ended in the same moment.
func (c *Catalog) SetMemberStatus(ctx context.Context, projectID, id string, status ims.MemberStatus) (ims.Member, error) {
	if !ims.ValidUUID(id) {
		return ims.Member{}, ErrNotFound
	}
	var m ims.Member
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		owner, _, err := membership(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		if _, err := lockImage(ctx, tx, owner, id); err != nil {
			return err
		}
		if err := c.answerOffer(ctx, tx, projectID, id, status); err != nil {
			return err
		}
		_, m, err = membership(ctx, tx, projectID, id)
		return err
	})
	return m, wrap(err, "answer to image "+id)
}

// answerOffer writes a member's answer under the image's lock. ErrNotFound if it is no
// member any more.
func (c *Catalog) answerOffer(ctx context.Context, tx *database.Tx, projectID, id string, status ims.MemberStatus) error {
	n, err := affected(tx.ExecContext(ctx, "UPDATE image_members SET status = $3, updated_at = $4 WHERE member_id = $1 AND image_id = $2",
		projectID, id, string(status), c.now().UnixMilli()))
	switch {
	case err != nil:
		return err
	case n == 0:
		return ErrNotFound
	case status != ims.MemberAccepted:
		return endAttachmentsOf(ctx, tx, projectID, id)
	}
	return nil
}

// DeleteMember ends the sharing of an image with a project, and its attachments of it.
// ErrNoMember when it is no member.
func (c *Catalog) DeleteMember(ctx context.Context, projectID, id, member string) error {
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		img, err := lockImage(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		removed, err := removeMember(ctx, tx, id, member)
		if err != nil {
			return err
		}
		if !removed {
			return ErrNoMember
		}
		return c.countMembers(ctx, tx, img)
	})
	return wrap(err, "stop sharing image "+id)
}

// removeMember removes a member that may be none, and its attachments.
func removeMember(ctx context.Context, tx *database.Tx, id, member string) (removed bool, err error) {
	n, err := affected(tx.ExecContext(ctx, "DELETE FROM image_members WHERE image_id = $1 AND member_id = $2", id, member))
	if err != nil || n == 0 {
		return false, err
	}
	return true, endAttachmentsOf(ctx, tx, member, id)
}

// endMemberships ends the sharing of all images with a project.
func endMemberships(ctx context.Context, tx *database.Tx, member string) error {
	images, err := texts(ctx, tx, "SELECT image_id FROM image_members WHERE member_id = $1 ORDER BY image_id", member)
	if err != nil {
		return err
	}
	for _, id := range images {
		// The image's lock first, as everybody who changes members.
		if _, err := tx.ExecContext(ctx, "UPDATE images SET members = members - 1 WHERE id = $1", id); err != nil {
			return err
		}
		n, err := affected(tx.ExecContext(ctx, "DELETE FROM image_members WHERE image_id = $1 AND member_id = $2", id, member))
		if err == nil && n == 0 { // its owner was quicker
			_, err = tx.ExecContext(ctx, "UPDATE images SET members = members + 1 WHERE id = $1", id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endSharing removes all members of an image. Unless it is public, the attachments of all
// other projects end.
func (c *Catalog) endSharing(ctx context.Context, tx *database.Tx, img ims.Image) error {
	if img.MadeVisible != ims.VisibilityPublic {
		if _, err := tx.ExecContext(ctx, "DELETE FROM attachments WHERE image_id = $1 AND project_id <> $2", img.ID, img.ProjectID); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM image_members WHERE image_id = $1", img.ID); err != nil {
		return err
	}
	return c.countMembers(ctx, tx, img)
}

// endAttachmentsOf ends a project's attachments of an image.
func endAttachmentsOf(ctx context.Context, tx *database.Tx, projectID, imageID string) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM attachments WHERE project_id = $1 AND image_id = $2", projectID, imageID)
	return err
}
