package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// BeatEvery is how often a process that serves attachments says who is connected.
const BeatEvery = 10 * time.Second

// beatGrace is how long what a process said counts: some beats may be late or lost. After
// a crash an attachment lasts so much longer, and no shorter than its ttl.
const beatGrace = 3 * BeatEvery

// maxAddresses is how many addresses a process tells of an attachment.
const maxAddresses = 16

// AttachLife is how long an attachment lasts.
type AttachLife struct {
	TTL    time.Duration // without a connection; 0 for ever
	MaxAge time.Duration // though it is in use; 0 for any age
}

func (l AttachLife) maxAt(created time.Time) int64 {
	if l.MaxAge == 0 {
		return never
	}
	return created.Add(l.MaxAge).UnixMilli()
}

// Use is what one process says of an attachment that it serves.
type Use struct {
	AttachmentID string
	Connections  int      // 0: nobody is connected any more
	Addresses    []string // the clients'; the first of many are kept
	Read         int64    // bytes since the last beat
	At           time.Time
}

// Beat notes who is connected in a process, and moves on the time of what is in use, also
// of an attachment whose time ran out while the database was away. An attachment that was
// ended or is too old stays ended. It is all or nothing; a Use may come again.
func (c *Catalog) Beat(ctx context.Context, process string, uses []Use) error {
	uses = slices.Clone(uses)
	// In one order in all processes, so that none waits for another in a circle.
	slices.SortFunc(uses, func(a, b Use) int { return strings.Compare(a.AttachmentID, b.AttachmentID) })
	for part := range slices.Chunk(uses, maxLiving) {
		err := c.db.InTx(ctx, func(tx *database.Tx) error {
			for _, u := range part {
				if err := c.beat(ctx, tx, process, u); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("say who is connected: %w", err)
		}
	}
	return nil
}

func (c *Catalog) beat(ctx context.Context, tx *database.Tx, process string, u Use) error {
	now, until, read := c.now().UnixMilli(), u.At, int64(0)
	if u.Connections > 0 {
		until = until.Add(beatGrace)
	}
	if u.Read > 0 {
		read = u.At.UnixMilli()
	}
	n, err := affected(tx.ExecContext(ctx, `UPDATE attachments SET
			expires_at = CASE WHEN ttl = 0 OR ttl + $2 > max_at THEN max_at ELSE ttl + $2 END,
			bytes_read = bytes_read + $3,
			last_read_at = CASE WHEN last_read_at < $4 THEN $4 ELSE last_read_at END
		WHERE id = $1 AND max_at > $5 AND (expires_at > $5 OR $6 > 0)`,
		u.AttachmentID, until.UnixMilli(), u.Read, read, now, u.Connections))
	if err != nil || n == 0 {
		return err
	}
	if u.Connections == 0 {
		_, err = tx.ExecContext(ctx, "DELETE FROM attachment_uses WHERE attachment_id = $1 AND process = $2", u.AttachmentID, process)
		return err
	}
	addresses, err := json.Marshal(u.Addresses[:min(len(u.Addresses), maxAddresses)])
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO attachment_uses (attachment_id, process, connections, addresses, seen_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (attachment_id, process) DO UPDATE SET connections = excluded.connections, addresses = excluded.addresses, seen_at = excluded.seen_at`,
		u.AttachmentID, process, u.Connections, string(addresses), u.At.UnixMilli())
	return err
}

// addUses adds to attachments who is connected.
func (c *Catalog) addUses(ctx context.Context, q database.Querier, list []ims.Attachment) error {
	at := make(map[string]int, len(list))
	for i, a := range list {
		at[a.ID] = i
	}
	for part := range slices.Chunk(list, maxLiving) {
		args := []any{c.now().Add(-beatGrace).UnixMilli()}
		for _, a := range part {
			args = append(args, a.ID)
		}
		err := each(ctx, q, "SELECT attachment_id, connections, addresses FROM attachment_uses WHERE seen_at > $1 AND attachment_id IN "+
			placeholders(2, len(part))+" ORDER BY attachment_id, process", args, func(rows *sql.Rows) error {
			var id, addresses string
			var connections int
			if err := rows.Scan(&id, &connections, &addresses); err != nil {
				return err
			}
			var names []string
			if err := json.Unmarshal([]byte(addresses), &names); err != nil {
				return fmt.Errorf("addresses of attachment %s: %w", id, err)
			}
			a := &list[at[id]]
			a.Connections += connections
			a.Addresses = append(a.Addresses, names...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// connected tells a client who is connected.
func connected(connections int, addresses []string) string {
	switch connections {
	case 0:
		return "nobody at the moment"
	case 1:
		return strings.TrimSpace("1 connection " + from(connections, addresses))
	}
	return strings.TrimSpace(fmt.Sprintf("%d connections %s", connections, from(connections, addresses)))
}

func from(connections int, addresses []string) string {
	if len(addresses) == 0 {
		return ""
	}
	shown := addresses[:min(len(addresses), maxAddresses)]
	text := "from " + strings.Join(shown, ", ")
	if more := connections - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// lockAttachment reads a project's living attachment and keeps others from changing it
// until the transaction ends.
func (c *Catalog) lockAttachment(ctx context.Context, tx *database.Tx, projectID, id string) (ims.Attachment, error) {
	if !ims.ValidUUID(id) {
		return ims.Attachment{}, ErrNotFound
	}
	now, one := c.now().UnixMilli(), 0
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM attachments WHERE project_id = $1 AND id = $2 AND expires_at > $3"+tx.ForUpdate(), projectID, id, now).Scan(&one)
	if err != nil {
		return ims.Attachment{}, orNotFound(err)
	}
	return scanAttachment(tx.QueryRowContext(ctx, "SELECT "+attachmentColumns+` FROM attachments a JOIN images ON images.id = a.image_id
		WHERE a.id = $1`, id))
}

// RenewAttachment begins an attachment's time anew, with another ttl or greatest age where
// they are given; the age counts from its making. What ends it with an access stays as
// it was made. The caller's access must hold still. Faults that a client is told of: it
// would be over already (IMG.0001). ErrNotFound when it has ended.
func (c *Catalog) RenewAttachment(ctx context.Context, by ims.Principal, id string, ttl, maxAge *time.Duration) (ims.Attachment, error) {
	var a ims.Attachment
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := c.holds(ctx, tx, by); err != nil {
			return err
		}
		var err error
		if a, err = c.lockAttachment(ctx, tx, by.ProjectID, id); err != nil {
			return err
		}
		one := []ims.Attachment{a}
		if err := c.addUses(ctx, tx, one); err != nil {
			return err
		}
		a = one[0]
		life := AttachLife{TTL: a.TTL, MaxAge: a.MaxAge()}
		if ttl != nil {
			life.TTL = *ttl
		}
		if maxAge != nil {
			life.MaxAge = *maxAge
		}
		now, maxAt := c.now(), life.maxAt(a.CreatedAt)
		if maxAt <= now.UnixMilli() {
			return ims.Faultf(ims.CodeBadFormat, "max_age_seconds is %d, but the attachment is %d seconds old: name more, or detach it",
				int64(life.MaxAge/time.Second), int64(now.Sub(a.CreatedAt)/time.Second))
		}
		from := now
		if a.Connections > 0 {
			from = from.Add(beatGrace)
		}
		expires := ends(from, life.TTL, maxAt)
		a.TTL, a.ExpiresAt, a.EndsAt = life.TTL, fromMilliOrNever(expires), fromMilliOrNever(maxAt)
		_, err = tx.ExecContext(ctx, "UPDATE attachments SET ttl = $2, max_at = $3, expires_at = $4 WHERE id = $1",
			id, life.TTL.Milliseconds(), maxAt, expires)
		return err
	})
	return a, wrap(err, "renew attachment "+id)
}
