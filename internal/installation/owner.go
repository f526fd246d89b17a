// Package installation ties a database to its image area, so that a service which starts
// with the wrong one of the two changes nothing.
//
// An installation is a database and the image area whose bytes its rows describe. The
// database has an id, made with it, and a generation. The area has an owner mark: a
// small object with that id, a generation and a nonce. Before the installation writes
// bytes to the area or removes any, and at each start, the generation grows: first in
// the database, then in the mark, with a conditional write. Hence
//
//   - the mark never tells a generation that the database does not know, whenever the
//     process is killed; a database that is behind its mark is an older copy;
//   - of two copies of a database only one goes on: the first to write the mark. The
//     other finds a nonce that it does not know;
//   - processes that share a database know each other's marks, and none of them needs
//     to write one that another has written.
package installation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/objectstore"
)

// ErrNotOwner says that the database and the image area do not belong together. The
// error's text says why, and what to run.
var ErrNotOwner = errors.New("the database and the image area do not belong together")

// Options are an Owner's settings.
type Options struct {
	// Area is what error texts call the image area.
	Area string
	// TakeOver is the command that gives the area to the database, for error texts.
	TakeOver string
	Logger   *slog.Logger
}

// Owner keeps the mark of one image area for one database. It may be used by many
// goroutines at once.
type Owner struct {
	db      *database.DB
	catalog *catalog.Catalog
	store   objectstore.Store
	opts    Options

	turn   chan struct{} // holds one value while nobody moves the mark
	rounds atomic.Int64  // how many moves have begun
	owned  atomic.Bool
}

// New makes an Owner. It neither reads nor writes anything.
func New(db *database.DB, c *catalog.Catalog, store objectstore.Store, opts Options) *Owner {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	o := &Owner{db: db, catalog: c, store: store, opts: opts, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// Owned reports whether the area was the database's when that was last looked at.
func (o *Owner) Owned() bool { return o.owned.Load() }

// Check says whether the area is the database's, without moving the mark. Its errors are
// those of Advance.
func (o *Owner) Check(ctx context.Context) error {
	mark, _, err := o.readMark(ctx)
	if err != nil {
		return err
	}
	id, err := Read(ctx, o.db)
	if err != nil {
		return err
	}
	return o.judge(ctx, mark, id)
}

// maxMoves bounds how often Advance meets another process that moves the mark.
const maxMoves = 100

// Advance makes sure that the area is the database's and that its mark tells a
// generation that grew after the call began. ErrNotOwner: it is not, and nothing was
// written. Any other error means that this is not known now: the store or the database
// did not answer.
func (o *Owner) Advance(ctx context.Context) error {
	begun := o.rounds.Load()
	select {
	case <-o.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
	if o.rounds.Load() > begun && o.owned.Load() {
		return nil // another one's move began after the call, and went well
	}
	o.rounds.Add(1)
	err := o.advance(ctx)
	switch {
	case err == nil:
		o.owned.Store(true)
	case errors.Is(err, ErrNotOwner):
		o.owned.Store(false)
	default:
		o.rounds.Add(-1) // it is no move that others may go by
	}
	return err
}

// readMark is readMark whose error names the command to run.
func (o *Owner) readMark(ctx context.Context) (*Mark, []byte, error) {
	mark, data, err := readMark(ctx, o.store)
	if errors.Is(err, ErrNotOwner) {
		err = fmt.Errorf("%w: %s", err, o.opts.TakeOver)
	}
	return mark, data, err
}

func (o *Owner) advance(ctx context.Context) error {
	var mine int64 // the first generation that was begun
	for range maxMoves {
		mark, data, err := o.readMark(ctx)
		if err != nil {
			return err
		}
		// The database is read after the mark: its marks are begun before they are written.
		id, err := Read(ctx, o.db)
		if err != nil {
			return err
		}
		if err := o.judge(ctx, mark, id); err != nil {
			return err
		}
		if mark != nil && mine > 0 && mark.Generation >= mine {
			return nil // another process of this database was quicker
		}
		next, err := begin(ctx, o.db, 0)
		if err != nil {
			return err
		}
		if mine == 0 {
			mine = next.Generation
		}
		if mark != nil {
			next.TakenOver = mark.TakenOver
		}
		if err := faultpoint.Hit(faultpoint.MarkBegun); err != nil {
			return err
		}
		err = o.write(ctx, data, next)
		if err == nil {
			return faultpoint.Hit(faultpoint.MarkWritten)
		}
		if !errors.Is(err, objectstore.ErrChanged) {
			return err
		}
	}
	return fmt.Errorf("%w: %d other writes of the owner mark came first", objectstore.ErrUnavailable, maxMoves)
}

func (o *Owner) write(ctx context.Context, was []byte, next Mark) error {
	now, err := next.encode()
	if err != nil {
		return err
	}
	if err := o.store.Swap(ctx, markAt, was, now); err != nil {
		return fmt.Errorf("write the owner mark of the image area: %w", err)
	}
	return nil
}

// judge says whether a database may write to an area with that mark, or with none.
func (o *Owner) judge(ctx context.Context, mark *Mark, id Identity) error {
	if mark == nil {
		return o.judgeContents(ctx, id)
	}
	if mark.Installation != id.ID {
		images, err := o.catalog.CountImages(ctx)
		if err != nil {
			return err
		}
		probably := fmt.Sprintf("The database has %d images of its own; probably the configuration names the image area of another installation", images)
		if images == 0 {
			probably = "The database knows no images; probably it was lost and begun anew, or the setting database (--database) is missing or names another one"
		}
		return o.refuse("belongs to installation %s, the database to installation %s. %s", mark.Installation, id.ID, probably)
	}
	known, err := knows(ctx, o.db, *mark, id)
	if err != nil || known {
		return err
	}
	if mark.Generation > id.Generation {
		return o.refuse("has generation %d of installation %s, the database generation %d of installation %s. The database is older than the area; probably it is a restored backup, and a newer one is in use or was lost",
			mark.Generation, mark.Installation, id.Generation, id.ID)
	}
	return o.refuse("was last written (generation %d) by another copy of the database of installation %s than this one (generation %d of installation %s). Probably a backup was started beside it",
		mark.Generation, mark.Installation, id.Generation, id.ID)
}

// sampled is how many active images are looked for in an area without a mark.
const sampled = 16

// judgeContents decides about an area without a mark: one that is new, or that was used
// before there were marks. The two belong together if most of the database's active
// images lie there; without any, if no other image's data does.
func (o *Owner) judgeContents(ctx context.Context, id Identity) error {
	images, err := o.catalog.ActiveData(ctx, "", sampled)
	if err != nil {
		return err
	}
	if len(images) == 0 {
		stranger, err := o.stranger(ctx)
		if err != nil || stranger == "" {
			return err
		}
		return o.refuse("has no owner mark and holds images (%s), the database (installation %s) knows none. Probably it was lost and begun anew, or the setting database (--database) is missing or names another one",
			stranger, id.ID)
	}
	found := 0
	for _, img := range images {
		info, err := o.store.Stat(ctx, objectstore.Location{Bucket: objectstore.ImageArea, Key: img.Data.Key})
		switch {
		case err == nil && info.Size == img.Data.Size:
			found++
		case err != nil && !errors.Is(err, objectstore.ErrNotFound) && !errors.Is(err, objectstore.ErrChanged):
			return err
		}
	}
	if 2*found > len(images) {
		return nil
	}
	return o.refuse("has no owner mark, and of %d active images of the database (installation %s) it holds %d. Probably the configuration names another image area, or its file system is not mounted",
		len(images), id.ID, found)
}

// stranger finds the key of an image's data that the database does not know. Keys of
// images begin with a hexadecimal digit; what else lies in the area is no image's.
func (o *Owner) stranger(ctx context.Context) (string, error) {
	for _, digit := range "0123456789abcdef" {
		list, err := o.store.List(ctx, objectstore.ImageArea, string(digit), "", objectstore.MaxList)
		if err != nil {
			return "", err
		}
		for _, object := range list {
			a, ok := imagearea.Of(object.Key)
			if !ok {
				continue
			}
			if known, err := o.catalog.Known(ctx, a); err != nil || !known {
				return object.Key, err
			}
		}
	}
	return "", nil
}

func (o *Owner) refuse(why string, args ...any) error {
	return fmt.Errorf("%w: the image area %s %s. Nothing was changed. Use the database and the image area that belong together; to give this area to this database all the same, run: %s",
		ErrNotOwner, o.opts.Area, fmt.Sprintf(why, args...), o.opts.TakeOver)
}

// takenOver is why a job fails that was unfinished at a take-over.
const takenOver = "the operator gave the image area to this database while the job was unfinished; start it again"

// unknownLead is by how much the generation grows at a take-over of an area whose mark is
// lost or damaged: nobody knows how far ahead another database was.
const unknownLead = 1 << 32

// TakeOver gives the area to the database, whatever its mark says, for an operator who
// asked for it. Jobs that the database takes for unfinished fail first: in an older copy
// of a database their images may be active by now. What their attempts wrote becomes
// unknown and stays, and no later attempt writes over it. It returns false if the area is
// the database's already.
func (o *Owner) TakeOver(ctx context.Context) (bool, error) {
	mark, data, err := readMark(ctx, o.store)
	if err != nil && !errors.Is(err, ErrNotOwner) {
		return false, err
	}
	id, err := Read(ctx, o.db)
	if err != nil {
		return false, err
	}
	least := id.Generation + unknownLead
	if mark != nil {
		least = mark.Generation
		if mark.Installation == id.ID {
			if known, err := knows(ctx, o.db, *mark, id); err != nil || known {
				return false, err
			}
		}
	}
	if err := o.catalog.EndUnfinished(ctx, takenOver); err != nil {
		return false, err
	}
	next, err := begin(ctx, o.db, least)
	if err != nil {
		return false, err
	}
	next.TakenOver = next.WrittenAt
	return true, o.write(ctx, data, next)
}

// TakenOver is when the area was last given to an installation by TakeOver, zero if never
// or if the mark is not there.
func (o *Owner) TakenOver(ctx context.Context) (time.Time, error) {
	mark, _, err := o.readMark(ctx)
	if err != nil || mark == nil {
		return time.Time{}, err
	}
	return mark.TakenOver, nil
}
