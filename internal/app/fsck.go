package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/fsck"
	"github.com/quickims/quickims/internal/installation"
)

// Fsck compares a service's database with its image area, whether the service runs or
// not. Close it.
type Fsck struct {
	// Installation is the id of the database, Area the image area.
	Installation, Area string

	service Service
	checker fsck.Checker
	owner   *installation.Owner
}

// OpenFsck opens the database and the store that a configuration names. A database and
// an image area that do not belong together are installation.ErrNotOwner.
func OpenFsck(ctx context.Context, cfg Config) (*Fsck, error) {
	if err := cfg.findDatabase(); err != nil {
		return nil, err
	}
	f := &Fsck{Area: cfg.area(), service: Service{cfg: cfg, log: slog.New(slog.DiscardHandler)}}
	if err := f.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Fsck) open(ctx context.Context, cfg Config) (err error) {
	s := &f.service
	if s.db, err = database.Open(ctx, cfg.databaseURL(), database.Options{LockTimeout: lockTimeout}); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	id, err := installation.Read(ctx, s.db)
	if err != nil {
		return fmt.Errorf("run quickims serve of this version on the database once: %w", err)
	}
	f.Installation = id.ID
	if err := s.openStore(); err != nil {
		return err
	}
	f.owner = cfg.newOwner(s.db, s.store, s.log)
	if err := f.owner.Check(ctx); err != nil {
		return err
	}
	if s.cache, err = blockdev.NewCache(s.counter, blockdev.Options{}); err != nil {
		return err
	}
	f.checker = fsck.Checker{Catalog: catalog.New(s.db, catalog.Options{}), Store: s.store, Cache: s.cache}
	f.checker.TakenOver, err = f.owner.TakenOver(ctx)
	return err
}

// Close closes what OpenFsck opened.
func (f *Fsck) Close() error { return f.service.Close() }

// Check compares the two and changes nothing.
func (f *Fsck) Check(ctx context.Context, opts fsck.Options) (fsck.Report, error) {
	return f.checker.Check(ctx, opts)
}

// Repair puts right what the report found, as fsck.Checker.Repair does, if the image
// area still is the database's.
func (f *Fsck) Repair(ctx context.Context, r *fsck.Report, now time.Time, grace time.Duration) error {
	if err := f.owner.Advance(ctx); err != nil {
		return err
	}
	return f.checker.Repair(ctx, r, now, grace)
}
