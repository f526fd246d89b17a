package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/installation"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	// verifyTime is how long a start waits for the store to say whose the image area
	// is. A start whose store does not answer goes on, and asks again while it serves.
	verifyTime = 5 * time.Second
	// verifyEvery is the pause before it asks again.
	verifyEvery = 2 * time.Second
	// markEvery is how old the owner mark may get while nothing is written, so that a
	// copy of the database that is older than this is known as such.
	markEvery = time.Minute
)

// area is what error texts call the image area.
func (c Config) area() string {
	if c.S3 != nil {
		return fmt.Sprintf("%s/%s at %s", c.S3.ImageBucket, c.S3.ImagePrefix, c.S3.Endpoint)
	}
	return c.imagesDir()
}

func (c Config) imagesDir() string { return filepath.Join(c.Data, "images") }

// takeOverCommand is the command that gives the image area to the database.
func (c Config) takeOverCommand() string {
	command := "quickims fsck --take-over --data " + c.Data
	if c.S3 != nil {
		command += " --config FILE"
	}
	if c.Database != "" {
		command += " --database URL"
	}
	return command
}

// openOwned opens the store and refuses to go on if database, image area and files do
// not belong together. Nothing was written to any of them before.
func (s *Service) openOwned(ctx context.Context) error {
	if err := s.openInstallation(ctx); err != nil {
		return err
	}
	if err := s.openStore(); err != nil {
		return err
	}
	if err := s.openOwner(ctx); err != nil {
		return err
	}
	if s.dir != nil && s.owner.Owned() {
		return s.dir.SweepTemp(time.Now())
	}
	return nil
}

// openInstallation gives the database its id and refuses files of another installation.
func (s *Service) openInstallation(ctx context.Context) error {
	id, err := installation.Ensure(ctx, s.db)
	if err != nil {
		return err
	}
	s.installation = id.ID
	if err := s.cfg.checkFiles(id.ID); err != nil {
		return err
	}
	// The database must be there after a power cut if the mark, which names it, is.
	return syncFolder(s.cfg.Data)
}

// checkFiles refuses a data folder whose seal.key or credentials.env were made for
// another installation than the database.
func (c Config) checkFiles(id string) error {
	_, sealed, err := readSeal(c.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	variables, err := readCredentials(filepath.Join(c.Data, credentialsFile))
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, id string }{{sealFile, sealed}, {credentialsFile, variables[installationVariable]}} {
		if f.id != "" && f.id != id {
			return fmt.Errorf("%w: %s belongs to installation %s, the database to installation %s. Probably the database was lost and begun anew, or the setting database (--database) is missing or names another one. "+
				"Nothing was changed. Use the database that belongs to the file; to use the file with this database all the same, run: %s",
				installation.ErrNotOwner, filepath.Join(c.Data, f.name), f.id, id, c.takeOverCommand())
		}
	}
	return nil
}

// openOwner makes sure that the image area is this database's. A store that does not
// answer is asked again by keepOwning, but who takes over leaves the service to the
// process that has it.
func (s *Service) openOwner(ctx context.Context) error {
	s.owner = s.cfg.newOwner(s.db, s.store, s.log)
	limited, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	err := s.owner.Advance(limited)
	if err == nil || errors.Is(err, installation.ErrNotOwner) || errors.Is(err, database.ErrUnavailable) || ctx.Err() != nil || s.before != nil {
		return err
	}
	s.log.Warn("image area not verified, retrying; until then nothing is imported or removed", "area", s.cfg.area(), "error", err)
	return nil
}

// newOwner makes the keeper of the image area's owner mark.
func (c Config) newOwner(db *database.DB, store objectstore.Store, log *slog.Logger) *installation.Owner {
	return installation.New(db, catalog.New(db, catalog.Options{}), store, installation.Options{Area: c.area(), TakeOver: c.takeOverCommand(), Logger: log})
}

// keepOwning verifies the image area if the start could not, and from then on keeps its
// mark young. It returns an error only if the area turns out never to have been ours.
func (s *Service) keepOwning(ctx context.Context) error {
	ever := s.owner.Owned()
	for {
		pause := markEvery
		if !s.owner.Owned() {
			pause = verifyEvery
		}
		tick := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		before := s.owner.Owned()
		err := s.owner.Advance(ctx)
		switch {
		case err == nil && !before:
			s.log.Info("image area verified", "area", s.cfg.area())
		case err == nil, ctx.Err() != nil:
		case errors.Is(err, installation.ErrNotOwner) && !ever:
			return err
		case errors.Is(err, installation.ErrNotOwner) && before:
			s.log.Error("image area lost: nothing is imported or removed any more", "area", s.cfg.area(), "error", err)
		case !errors.Is(err, installation.ErrNotOwner):
			s.log.Warn("image area not verified, retrying", "area", s.cfg.area(), "error", err)
		}
		ever = ever || err == nil
	}
}

// undoDatabase removes the SQLite database that this start made, when the start is
// refused because the image area or the files are another installation's: the next
// start must find what this one found.
func (s *Service) undoDatabase(cause error) error {
	if !s.freshDatabase || !errors.Is(cause, installation.ErrNotOwner) {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if rerr := os.Remove(filepath.Join(s.cfg.Data, databaseFile+suffix)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
