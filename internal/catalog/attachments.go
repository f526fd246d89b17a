package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// An attachment lives until its row is gone or its time is over, whichever comes first,
// by the catalog's clock. All queries below find living ones alone, so that one that has
// ended is as unknown as one that never was. Beats move on the time of those in use.

// attachmentColumns are the columns of an attachment and of its image, as
// scanAttachment reads them.
const attachmentColumns = "a.id, a.project_id, a.image_id, images.name, a.user_id, a.created_at, a.expires_at, a.ttl, a.max_at, a.bytes_read, a.last_read_at"

// never is the time, in the table's milliseconds, of what does not come.
const never = math.MaxInt64

// fromMilliOrNever is the zero time for never.
func fromMilliOrNever(ms int64) time.Time {
	if ms == never {
		return time.Time{}
	}
	return fromMilli(ms)
}

// ends gives an attachment's end as the table has it, from the later of its beginning and
// its last use, its ttl and its greatest age.
func ends(from time.Time, ttl time.Duration, maxAt int64) int64 {
	if ttl == 0 {
		return maxAt
	}
	return min(from.Add(ttl).UnixMilli(), maxAt)
}

func scanAttachment(row interface{ Scan(...any) error }) (ims.Attachment, error) {
	var a ims.Attachment
	var created, expires, ttl, maxAt, read int64
	err := row.Scan(&a.ID, &a.ProjectID, &a.ImageID, &a.ImageName, &a.UserID, &created, &expires, &ttl, &maxAt, &a.BytesRead, &read)
	a.CreatedAt, a.ExpiresAt, a.EndsAt = fromMilli(created), fromMilliOrNever(expires), fromMilliOrNever(maxAt)
	a.TTL = time.Duration(ttl) * time.Millisecond
	if read != 0 {
		a.LastReadAt = fromMilli(read)
	}
	return a, orNotFound(err)
}

// Attach writes an attachment of an image that lasts for life, and gives it back with its
// times and the image's name. tokenHash is what AttachmentByToken finds it by. The
// image stays until the attachment has ended, unless its deletion is forced. It is the
// caller's, in whose project it is: it ends with what the caller proved itself with, with
// the caller's role in the project and with the caller (see EndAccess). A caller whose
// access has ended already is refused.
//
// The image may be one that is shared with the project, which accepted it (else a fault
// with status 403). ErrNotFound when the project sees no such image. Faults that a client is told of: the
// image has no data to read (IMG.0046), the project has too many attachments (IMG.0060).
// The limits hold however many call at once; those who may only look have a share of
// their own (ims.Limits.ReaderAttachments).
func (c *Catalog) Attach(ctx context.Context, by ims.Principal, a ims.Attachment, tokenHash string, life AttachLife, limits ims.Limits) (ims.Attachment, error) {
	a.ProjectID, a.UserID = by.ProjectID, by.UserID
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, a.ProjectID); err != nil {
			return err
		}
		now, err := c.holds(ctx, tx, by)
		if err != nil {
			return err
		}
		reader := !now.May(ims.ActionImagesUpdate)
		img, err := lockReadable(ctx, tx, a.ProjectID, a.ImageID)
		if err != nil {
			return err
		}
		if !img.ReadableBy(now.IsAdmin() && img.ProjectID == a.ProjectID) {
			return ims.Faultf(ims.CodeImageNotActive, "the image is %s, it has no data to read", img.Status)
		}
		if err := c.roomToAttach(ctx, tx, a.ProjectID, reader, limits); err != nil {
			return err
		}
		a.CreatedAt = c.now()
		maxAt := life.maxAt(a.CreatedAt)
		expires := ends(a.CreatedAt, life.TTL, maxAt)
		a.ImageName, a.TTL, a.ExpiresAt, a.EndsAt = img.Name, life.TTL, fromMilliOrNever(expires), fromMilliOrNever(maxAt)
		_, err = tx.ExecContext(ctx, `INSERT INTO attachments (id, project_id, image_id, token_hash, user_id, created_at, expires_at, ttl, max_at, by_token, by_key, by_reader)
			VALUES `+placeholders(1, 12),
			a.ID, a.ProjectID, a.ImageID, tokenHash, a.UserID, a.CreatedAt.UnixMilli(), expires, life.TTL.Milliseconds(), maxAt,
			by.Credential.TokenHash, by.Credential.AccessKey, reader)
		return err
	})
	if err != nil {
		return ims.Attachment{}, fmt.Errorf("attach image %s: %w", a.ImageID, err)
	}
	return a, nil
}

// roomToAttach is nil if the project may have one attachment more. It has the turn.
func (c *Catalog) roomToAttach(ctx context.Context, tx *database.Tx, projectID string, reader bool, limits ims.Limits) error {
	now := c.now().UnixMilli()
	has, err := count(ctx, tx, "SELECT COUNT(*) FROM attachments WHERE project_id = $1 AND expires_at > $2", projectID, now)
	if err != nil {
		return err
	}
	if has >= limits.Attachments {
		return ims.Faultf(ims.CodeTooManyJobs, "the project has %d attachments, the limit is %d; detach one first", has, limits.Attachments)
	}
	if !reader {
		return nil
	}
	if has, err = count(ctx, tx, "SELECT COUNT(*) FROM attachments WHERE project_id = $1 AND expires_at > $2 AND by_reader", projectID, now); err != nil {
		return err
	}
	if most := limits.ReaderAttachments(); has >= most {
		return ims.Faultf(ims.CodeTooManyJobs, "the readers of the project have %d attachments, their limit is %d; detach one first", has, most)
	}
	return nil
}

// Opened lists the users, with the project, that have attachments.
func Opened(ctx context.Context, q database.Querier) ([]ims.Ended, error) {
	rows, err := q.QueryContext(ctx, `SELECT DISTINCT user_id, project_id FROM attachments`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []ims.Ended
	for rows.Next() {
		var e ims.Ended
		if err := rows.Scan(&e.UserID, &e.ProjectID); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, database.Fault(rows.Err())
}

// EndAccess ends the attachments of an access that has ended, and a project's
// memberships with the project. It is called in the transaction that ends the grant.
func EndAccess(ctx context.Context, tx *database.Tx, e ims.Ended) error {
	w := &where{}
	w.add("TRUE")
	for column, value := range map[string]string{"user_id": e.UserID, "project_id": e.ProjectID, "by_key": e.AccessKey} {
		if value != "" {
			w.add(column+" = ?", value)
		}
	}
	if len(e.TokenHashes) == 0 && len(w.args) == 0 {
		return errors.New("end access: nothing says which")
	}
	hashes := e.TokenHashes
	for {
		part := hashes[:min(len(hashes), maxLiving)]
		hashes = hashes[len(part):]
		query, args := "DELETE FROM attachments WHERE "+w.text.String(), slices.Clone(w.args)
		if len(part) > 0 {
			query += " AND by_token IN " + placeholders(len(args)+1, len(part))
			args = append(args, anys(part)...)
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("end attachments: %w", err)
		}
		if len(hashes) == 0 {
			break
		}
	}
	if e.ProjectID == "" || e.UserID != "" {
		return nil
	}
	return endMemberships(ctx, tx, e.ProjectID)
}

// Attachment reads one of a project's attachments, with who is connected.
func (c *Catalog) Attachment(ctx context.Context, projectID, id string) (ims.Attachment, error) {
	if !ims.ValidUUID(id) {
		return ims.Attachment{}, ErrNotFound
	}
	a, err := scanAttachment(c.db.QueryRowContext(ctx, "SELECT "+attachmentColumns+` FROM attachments a JOIN images ON images.id = a.image_id
		WHERE a.project_id = $1 AND a.id = $2 AND a.expires_at > $3`, projectID, id, c.now().UnixMilli()))
	if err == nil {
		one := []ims.Attachment{a}
		err = c.addUses(ctx, c.db, one)
		a = one[0]
	}
	return a, wrap(err, "read attachment "+id)
}

// Attachments lists a project's attachments, the newest first, those of one image when
// imageID is not "". marker, if not "", continues behind that attachment; one that
// has ended or never was is ErrNotFound. limit is at least 1.
func (c *Catalog) Attachments(ctx context.Context, projectID, imageID, marker string, limit int) ([]ims.Attachment, error) {
	w := &where{}
	w.add("a.project_id = ? AND a.expires_at > ?", projectID, c.now().UnixMilli())
	w.equal("a.image_id", imageID)
	if marker != "" {
		from, err := c.Attachment(ctx, projectID, marker)
		if err != nil {
			return nil, err
		}
		w.add("(a.created_at, a.id) < (?, ?)", from.CreatedAt.UnixMilli(), from.ID)
	}
	if w.none {
		return nil, nil
	}
	w.args = append(w.args, min(limit, ims.MaxListLimit))
	var out []ims.Attachment
	err := each(ctx, c.db, "SELECT "+attachmentColumns+" FROM attachments a JOIN images ON images.id = a.image_id WHERE "+w.text.String()+
		fmt.Sprintf(" ORDER BY a.created_at DESC, a.id DESC LIMIT $%d", len(w.args)), w.args, func(rows *sql.Rows) error {
		a, err := scanAttachment(rows)
		out = append(out, a)
		return err
	})
	if err == nil {
		err = c.addUses(ctx, c.db, out)
	}
	return out, wrap(err, "list the attachments of project "+projectID)
}

// Detach ends an attachment. A second time is ErrNotFound. While somebody is connected it
// is a fault that says who (IMG.0035, KindConflict), unless force is set.
func (c *Catalog) Detach(ctx context.Context, projectID, id string, force bool) error {
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		a, err := c.lockAttachment(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		one := []ims.Attachment{a}
		if err := c.addUses(ctx, tx, one); err != nil {
			return err
		}
		if used := one[0]; used.Connections > 0 && !force {
			return ims.Faultf(ims.CodeConflict, "attachment %s is in use by %s: end what reads it first, or detach it with force, which cuts that off",
				id, connected(used.Connections, used.Addresses)).WithKind(ims.KindConflict)
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM attachments WHERE id = $1", id)
		return err
	})
	return wrap(err, "end attachment "+id)
}

// AttachmentByToken finds an attachment by the hash of its token, and its image. A token
// that has ended, and one of an image that has no data to read, is ErrNotFound like one
// that never was. Whoever holds a token acts for its project: this query names none.
func (c *Catalog) AttachmentByToken(ctx context.Context, tokenHash string) (ims.Attachment, ims.Image, error) {
	fail := func(err error) (ims.Attachment, ims.Image, error) {
		return ims.Attachment{}, ims.Image{}, wrap(err, "find an attachment")
	}
	row := c.db.QueryRowContext(ctx, "SELECT "+attachmentColumns+`, images.project_id FROM attachments a JOIN images ON images.id = a.image_id
		WHERE a.token_hash = $1 AND a.expires_at > $2 AND images.deleted_at IS NULL`, tokenHash, c.now().UnixMilli())
	var owner string
	a, err := scanAttachment(scanMore{row, &owner})
	if err != nil {
		return fail(err)
	}
	img, err := selectImage(ctx, c.db, owner, a.ImageID)
	if err == nil && !img.ReadableBy(true) { // those that are no admins' ended when the image was deactivated
		err = ErrNotFound
	}
	if err != nil {
		return fail(err)
	}
	return a, img, nil
}

// scanMore scans one column more than it is asked for.
type scanMore struct {
	row  *database.Row
	more any
}

func (s scanMore) Scan(dest ...any) error { return s.row.Scan(append(dest, s.more)...) }

// maxLiving is how many ids one query of Living names.
const maxLiving = 500

// Living gives those of the ids whose attachments have neither been ended nor are too old,
// and when they will be too old; the zero time is never. It is for the process that serves
// connections of them, whoever's they are: they do not end by their time while it does.
func (c *Catalog) Living(ctx context.Context, ids []string) (map[string]time.Time, error) {
	living := make(map[string]time.Time, len(ids))
	for part := range slices.Chunk(ids, maxLiving) {
		args := []any{c.now().UnixMilli()}
		for _, id := range part {
			args = append(args, id)
		}
		err := each(ctx, c.db, "SELECT id, max_at FROM attachments WHERE max_at > $1 AND id IN "+placeholders(2, len(part)), args, func(rows *sql.Rows) error {
			var id string
			var maxAt int64
			err := rows.Scan(&id, &maxAt)
			living[id] = fromMilliOrNever(maxAt)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("ask which attachments live: %w", err)
		}
	}
	return living, nil
}

// CountAttachments counts the attachments of all projects.
func (c *Catalog) CountAttachments(ctx context.Context) (int, error) {
	n, err := count(ctx, c.db, "SELECT COUNT(*) FROM attachments WHERE expires_at > $1", c.now().UnixMilli())
	return n, wrap(err, "count the attachments")
}

// purgeAfter is how long the row of an attachment whose time is over stays: one that was
// in use all the time lives on when the database was away for that long.
const purgeAfter = time.Hour

// PurgeAttachments removes the rows of those whose time is over, some time later, and of
// processes that have not said for as long who is connected.
func (c *Catalog) PurgeAttachments(ctx context.Context) error {
	before := c.now().Add(-purgeAfter).UnixMilli()
	_, err := c.db.ExecContext(ctx, "DELETE FROM attachment_uses WHERE seen_at <= $1", before)
	if err == nil {
		_, err = c.db.ExecContext(ctx, "DELETE FROM attachments WHERE expires_at <= $1", before)
	}
	return wrap(err, "remove the attachments that have ended")
}

// refuseAttached is the fault of deleting an image that somebody reads. The image is
// locked: none can be added meanwhile. It names the addresses of who is connected in the
// image's project; of other projects it gives the number alone.
func (c *Catalog) refuseAttached(ctx context.Context, tx *database.Tx, projectID, imageID string) error {
	var list []ims.Attachment
	err := each(ctx, tx, "SELECT "+attachmentColumns+" FROM attachments a JOIN images ON images.id = a.image_id WHERE a.image_id = $1 AND a.expires_at > $2 ORDER BY a.id",
		[]any{imageID, c.now().UnixMilli()}, func(rows *sql.Rows) error {
			a, err := scanAttachment(rows)
			list = append(list, a)
			return err
		})
	if err != nil || len(list) == 0 {
		return err
	}
	if err := c.addUses(ctx, tx, list); err != nil {
		return err
	}
	connections, addresses := 0, []string{}
	for _, a := range list {
		connections += a.Connections
		if a.ProjectID == projectID {
			addresses = append(addresses, a.Addresses...)
		}
	}
	return ims.Faultf(ims.CodeConflict, "image %s is attached (attachments: %d, those of projects that it is shared with among them), in use by %s: detach it first, or delete it with force, which ends that",
		imageID, len(list), connected(connections, addresses)).WithKind(ims.KindConflict)
}

// endAttachments ends all attachments of an image, in all projects.
func endAttachments(ctx context.Context, tx *database.Tx, imageID string) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM attachments WHERE image_id = $1", imageID)
	return err
}
