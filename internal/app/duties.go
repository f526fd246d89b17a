package app

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/identity"
)

// duties are what a process does by itself, beside answering: it runs jobs, keeps the
// owner mark and cleans up. They may be stopped and started again.
type duties struct {
	s    *Service
	busy context.Context // of jobs; its end stops them at once

	mu    sync.Mutex
	group *errgroup.Group
	end   context.CancelFunc
	fault chan error // of capacity 1
}

func (s *Service) newDuties(busy context.Context) *duties {
	return &duties{s: s, busy: busy, fault: make(chan error, 1)}
}

// start begins them.
func (d *duties) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.s
	if err := s.queue.Start(d.busy); err != nil {
		return fmt.Errorf("start the queue: %w", err)
	}
	ctx, end := context.WithCancel(d.busy)
	group, work := errgroup.WithContext(ctx)
	d.group, d.end = group, end
	do := func(f func() error) {
		group.Go(func() error {
			err := f()
			if err != nil {
				select {
				case d.fault <- err:
				default:
				}
			}
			return err
		})
	}
	do(func() error { return s.keepOwning(work) })
	do(func() error { return s.importer.RunCleanUp(work) })
	do(func() error {
		s.every(work, surveyEvery, "compare the database with the image area", s.survey)
		return nil
	})
	do(func() error {
		s.every(work, reconcileEvery, "look for jobs that nobody holds", s.reconcile)
		return nil
	})
	do(func() error { s.every(work, purgeEvery, "remove expired tokens", s.identity.PurgeTokens); return nil })
	if s.cfg.Identity.Keystone != nil {
		do(func() error {
			s.every(work, identity.WatchEvery, "see what Keystone revoked", s.identity.Watch)
			return nil
		})
	}
	do(func() error {
		s.every(work, purgeEvery, "remove attachments that have ended", s.catalog.PurgeAttachments)
		return nil
	})
	do(func() error {
		s.every(work, purgeEvery, "remove old jobs and images", func(ctx context.Context) error { return s.catalog.Purge(ctx, s.cfg.Limits.limits()) })
		return nil
	})
	return nil
}

// stop ends them; jobs may go on until ctx ends, for a part of its time. Stopping what
// has stopped does nothing.
func (d *duties) stop(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.group == nil {
		return nil
	}
	d.end()
	err := d.s.queue.Stop(ctx)
	err = errors.Join(err, d.group.Wait())
	d.group = nil
	return err
}

// failed waits for the error of one that can't go on, or for the end of ctx.
func (d *duties) failed(ctx context.Context) error {
	select {
	case err := <-d.fault:
		return err
	case <-ctx.Done():
		return nil
	}
}
