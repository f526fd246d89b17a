package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/bootprofile"
	"github.com/quickims/quickims/internal/catalog"
)

const (
	// recordTime is how long the reads of an attachment are those of a start.
	recordTime = 2 * time.Minute
	// maxRecordings is how many starts are recorded at a time.
	maxRecordings = 16
	// recordPause is how long after a recording no other one of the image begins.
	recordPause = time.Minute
	// mergeTime bounds the writing of what was learned.
	mergeTime = 10 * time.Second
	// replayPause is how long a replay waits before it looks again for room.
	replayPause = 2 * time.Millisecond
)

// boots learns from the starts of machines what they read of an image, and has it fetched
// for the next one. What a project's machines read serves that project, and what the
// owner's read those who have nothing of their own.
type boots struct {
	catalog *catalog.Catalog
	log     *slog.Logger

	ctx  context.Context // of replays
	stop context.CancelFunc

	mu     sync.Mutex
	active int                  // recordings
	busy   map[string]time.Time // images of which none may begin before that time
	closed bool
	work   sync.WaitGroup
}

func newBoots(c *catalog.Catalog, log *slog.Logger) *boots {
	ctx, stop := context.WithCancel(context.Background())
	return &boots{catalog: c, log: log, ctx: ctx, stop: stop, busy: map[string]time.Time{}}
}

// Close ends what is under way; what recordings that have ended say is written first.
func (b *boots) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.work.Wait()
}

// do runs f beside.
func (b *boots) do(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.work.Go(f)
	}
}

// recording is the start of a machine that is being recorded.
type recording struct {
	of     *boots
	image  string
	to     string // project
	chunks *bootprofile.Recorder
	size   int64
	timer  *time.Timer
	once   sync.Once
}

// begin has fetched what the first connection of an attachment will read, and records what
// it does read. It returns nil if that is not recorded.
func (b *boots) begin(x *export) *recording {
	b.do(func() { b.replay(x) })
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for image, until := range b.busy {
		if now.After(until) {
			delete(b.busy, image)
		}
	}
	if _, taken := b.busy[x.img.ID]; taken || b.active >= maxRecordings || b.closed {
		return nil
	}
	b.active++
	b.busy[x.img.ID] = now.Add(recordTime + recordPause)
	r := &recording{of: b, image: x.img.ID, to: x.project, size: x.Size(), chunks: bootprofile.NewRecorder(x.Size())}
	r.timer = time.AfterFunc(recordTime, r.end)
	return r
}

// read notes a read.
func (r *recording) read(off int64, n int) (more bool) {
	if r.chunks.Read(off, int64(n)) {
		return true
	}
	r.end()
	return false
}

// end merges the recording with what is known, in the background.
func (r *recording) end() {
	r.once.Do(func() {
		r.timer.Stop()
		b := r.of
		b.mu.Lock()
		b.active--
		b.busy[r.image] = time.Now().Add(recordPause)
		b.mu.Unlock()
		chunks := r.chunks.Chunks()
		if chunks == nil {
			return
		}
		b.do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), mergeTime)
			defer cancel()
			p, err := b.profile(ctx, r.image, r.to, r.size)
			if err == nil {
				if p == nil {
					p = bootprofile.New(r.size)
				}
				p.Merge(chunks)
				err = b.catalog.PutBootProfile(ctx, r.image, r.to, p.Bytes())
			}
			if err != nil {
				b.log.Warn("could not keep what a machine read at its start", "image_id", r.image, "error", err)
			}
		})
	})
}

// profile is what a project's starts of an image have taught, nil if that is nothing.
func (b *boots) profile(ctx context.Context, image, project string, size int64) (*bootprofile.Profile, error) {
	bytes, err := b.catalog.BootProfile(ctx, image, project)
	if err != nil || bytes == nil {
		return nil, err
	}
	p, err := bootprofile.Parse(bytes, size)
	if err != nil {
		b.log.Warn("a boot profile is learned anew", "image_id", image, "error", err)
		return nil, nil
	}
	return p, nil
}

// replay starts to fetch what the machine will read, as far as there is memory for it.
func (b *boots) replay(x *export) {
	p, err := b.profile(b.ctx, x.img.ID, x.project, x.Size())
	if err == nil && p == nil && x.img.ProjectID != x.project {
		p, err = b.profile(b.ctx, x.img.ID, x.img.ProjectID, x.Size())
	}
	if err != nil {
		if b.ctx.Err() == nil {
			b.log.Warn("could not look up what machines read at their start", "image_id", x.img.ID, "error", err)
		}
		return
	}
	if p == nil {
		return
	}
	tick := time.NewTicker(replayPause)
	defer tick.Stop()
	late := time.NewTimer(recordTime)
	defer late.Stop()
	for _, r := range p.Replay() {
		for off, end := r.Off, r.Off+r.Len; off < end; {
			upTo, err := x.Want(off, end-off)
			switch {
			case err != nil: // the disk is closed
				return
			case upTo > off:
				off = upTo
				continue
			}
			// As much is on its way, or lies unread, as may.
			select {
			case <-tick.C:
			case <-late.C:
				return
			case <-b.ctx.Done():
				return
			}
		}
	}
}
