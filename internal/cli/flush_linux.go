package cli

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flushEvery is how often a file that is being written is told to go to the disk.
const flushEvery = 200 * time.Millisecond

// flushAlong has what is written to f go to the disk beside the writing, so that
// the sync at the end has little left to wait for. It promises nothing. stop ends
// it.
func flushAlong(f *os.File) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(flushEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				// From 0 to the end; a file system that can't do it is synced at the end.
				if unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) != nil {
					return
				}
			}
		}
	}()
	return func() { close(quit); <-ended }
}
