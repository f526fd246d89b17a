// Package ordered works on a sequence in parallel and hands the results on in the
// sequence's order, with a fixed number of jobs under way: memory does not grow
// with the sequence, however far a worker lags behind.
package ordered

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"
)

// job is a caller's job on its way.
type job[J any] struct {
	j    *J
	done chan error // has a place: the worker tells the drain
}

// Run fills the jobs one after the other, works on them in as many goroutines as
// workers says, and drains them in the order in which they were filled; a job that
// was drained is filled anew. fill and drain each run in one goroutine at a time,
// beside each other. fill ends the sequence with io.EOF. The first other error, or
// ctx's, ends it all and is returned; nothing runs any more then.
func Run[J any](ctx context.Context, jobs []*J, workers int, fill, work, drain func(*J) error) error {
	n := len(jobs)
	free := make(chan *job[J], n)
	todo := make(chan *job[J], n)  // in any order to the workers,
	order := make(chan *job[J], n) // in order to the drain
	for _, j := range jobs {
		free <- &job[J]{j, make(chan error, 1)}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		for {
			select {
			case <-gctx.Done():
				return gctx.Err()
			case j := <-free:
				switch err := fill(j.j); {
				case err == io.EOF:
					return gctx.Err()
				case err != nil:
					return err
				}
				todo <- j // both have places for all jobs
				order <- j
			}
		}
	})
	for range workers {
		g.Go(func() error {
			for j := range todo {
				err := gctx.Err()
				if err == nil {
					err = work(j.j)
				}
				j.done <- err
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range order {
			if err := <-j.done; err != nil {
				return err
			}
			if err := gctx.Err(); err != nil {
				return err
			}
			if err := drain(j.j); err != nil {
				return err
			}
			free <- j
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
