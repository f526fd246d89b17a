package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/installation"
)

// TakenOver says what TakeOver changed.
type TakenOver struct {
	// Installation is the id of the database, Area the image area that it has now.
	Installation, Area string
	// Changed lists what was another installation's and is the database's now.
	Changed []string
}

// TakeOver ties the image area and the data folder's files to the database that the
// configuration names, whatever they belonged to. It removes nothing. The service must
// not run on the data folder.
func TakeOver(ctx context.Context, cfg Config, log *slog.Logger) (TakenOver, error) {
	s := &Service{cfg: cfg, log: log}
	defer s.Close()
	out := TakenOver{Area: cfg.area()}
	if err := s.openFolder(); err != nil {
		return out, err
	}
	if err := s.openDatabase(ctx); err != nil {
		return out, err
	}
	id, err := installation.Ensure(ctx, s.db)
	if err != nil {
		return out, err
	}
	out.Installation = id.ID
	files, err := s.bindFiles(ctx, id.ID)
	out.Changed = append(out.Changed, files...)
	if err != nil {
		return out, err
	}
	if err := s.openStore(); err != nil {
		return out, err
	}
	taken, err := cfg.newOwner(s.db, s.store, log).TakeOver(ctx)
	if taken && err == nil {
		out.Changed = append(out.Changed, "the image area "+out.Area)
	}
	return out, err
}

// bindFiles writes the installation's id into seal.key and credentials.env, and names
// those that had another one. A sealing key that does not open what is in the database
// is refused.
func (s *Service) bindFiles(ctx context.Context, id string) (changed []string, err error) {
	key, bound, err := readSeal(s.cfg.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case bound != id:
		opened, err := identity.New(s.db, identity.Options{SealKey: key})
		if err != nil {
			return nil, err
		}
		if _, err := identity.ReadSetup(ctx, s.db); err == nil {
			if err := opened.Bootstrap(ctx, identity.Seed{}); err != nil { // checks the sealing key
				return nil, sealFault(s.cfg.Data, err)
			}
		} else if !errors.Is(err, identity.ErrNotFound) {
			return nil, err
		}
		if err := writeSeal(s.cfg.Data, key, id); err != nil {
			return nil, err
		}
		if bound != "" {
			changed = append(changed, filepath.Join(s.cfg.Data, sealFile))
		}
	}
	path := filepath.Join(s.cfg.Data, credentialsFile)
	variables, err := readCredentials(path)
	if err != nil || variables[installationVariable] == "" || variables[installationVariable] == id {
		return changed, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return changed, err
	}
	text = []byte(strings.ReplaceAll(string(text), variables[installationVariable], id))
	return append(changed, path), writeSecret(path, text)
}
