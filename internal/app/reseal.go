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
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/installation"
)

// Reseal makes a new seal.key in place of one that is lost, damaged or another
// database's, and deletes all access keys, whose secrets nobody can read without the old
// one. It returns how many there were. What it replaces it keeps under another name. A seal.key that opens them is an error, and
// nothing is changed. No service may use the database meanwhile; one on the data folder is
// an error.
func Reseal(ctx context.Context, cfg Config, log *slog.Logger) (keys int, err error) {
	if err := cfg.findDatabase(); err != nil {
		return 0, err
	}
	s := &Service{cfg: cfg, log: log}
	defer s.Close()
	if err := s.openFolder(); err != nil {
		return 0, err
	}
	if err := s.openDatabase(ctx); err != nil {
		return 0, err
	}
	if _, err := identity.ReadSetup(ctx, s.db); err != nil {
		return 0, fmt.Errorf("the database has no projects yet: start the service on it once: %w", err)
	}
	id, err := installation.Ensure(ctx, s.db)
	if err != nil {
		return 0, err
	}
	path := filepath.Join(cfg.Data, sealFile)
	if key, _, err := readSeal(cfg.Data); err == nil {
		with, err := identity.New(s.db, identity.Options{SealKey: key, End: catalog.EndAccess})
		if err != nil {
			return 0, err
		}
		switch err := with.Bootstrap(ctx, identity.Seed{}); { // checks the sealing key
		case err == nil:
			return 0, fmt.Errorf("make a new %s: the one that is there opens the database's secret keys; nothing was changed", path)
		case !errors.Is(err, identity.ErrSealKey):
			return 0, err
		}
	}
	key := randomBytes(sealSize)
	with, err := identity.New(s.db, identity.Options{SealKey: key, End: catalog.EndAccess})
	if err != nil {
		return 0, err
	}
	// A kill after this leaves a start that is refused, and this to be run again.
	if keys, err = with.DeleteAllAccessKeys(ctx); err != nil {
		return 0, err
	}
	// What is replaced may be the only copy of another installation's.
	err = os.Rename(path, fmt.Sprintf("%s.replaced-%d", path, time.Now().Unix()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	return keys, writeSeal(cfg.Data, key, id.ID)
}

// findDatabase refuses a data folder on which no service was started yet.
func (c Config) findDatabase() error {
	if c.Database != "" {
		return nil
	}
	_, err := os.Stat(filepath.Join(c.Data, databaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open data directory %s: no service found; run quickims serve on it first: %w", c.Data, err)
	}
	return err
}
