package app

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/nbd"
)

// watchEvery is how often it is asked which of the attachments in use have ended.
const watchEvery = time.Second

// newsPause is how long news of clients are gathered before the database is told.
const newsPause = 50 * time.Millisecond

// exports are the disks that NBD clients name: the name is an attachment's token.
type exports struct {
	disks   disks
	catalog *catalog.Catalog
	log     *slog.Logger

	mu       sync.Mutex
	open     map[*export]struct{}
	prepared map[string][]*export // opened by prepare, of a token
	beats    beats
	boots    *boots // nil: nothing is learned of starts

	opened, bytes atomic.Int64
}

func newExports(d disks, boots *boots, log *slog.Logger) *exports {
	return &exports{boots: boots, disks: d, catalog: d.catalog, log: log, open: map[*export]struct{}{}, prepared: map[string][]*export{}, beats: newBeats(d.catalog)}
}

// Open finds the disk of a token. Whatever is wrong with a token, the way to the answer
// is the same: its hash is looked up in the database.
func (e *exports) Open(ctx context.Context, name string) (nbd.Export, error) {
	if x := e.takePrepared(name); x != nil {
		return x, nil
	}
	x, first, err := e.openNow(ctx, name)
	if err != nil {
		return nil, err
	}
	if e.boots != nil && first {
		x.boot.Store(e.boots.begin(x))
	}
	return x, nil
}

// prepare opens the disk of a token for the next Open of it, whose client reads it
// already in another process. A token that is none any more is left to that Open.
func (e *exports) prepare(ctx context.Context, name string) error {
	x, _, err := e.openNow(ctx, name)
	if errors.Is(err, nbd.ErrUnknownExport) {
		return nil
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prepared[name] = append(e.prepared[name], x)
	return nil
}

// isPrepared reports whether a disk is prepared for the next Open of a token.
func (e *exports) isPrepared(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.prepared[name]) > 0
}

func (e *exports) takePrepared(name string) *export {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.prepared[name]
	if len(list) == 0 {
		return nil
	}
	e.prepared[name] = list[1:]
	return list[0]
}

// closePrepared closes what was prepared and not opened.
func (e *exports) closePrepared() {
	e.mu.Lock()
	all := e.prepared
	e.prepared = map[string][]*export{}
	e.mu.Unlock()
	for _, list := range all {
		for _, x := range list {
			if err := x.Close(); err != nil {
				e.log.Warn("closing a disk failed", "image_id", x.img.ID, "error", err)
			}
		}
	}
}

// openNow opens the disk of a token; first: nobody else has this attachment open here.
func (e *exports) openNow(ctx context.Context, name string) (x *export, first bool, err error) {
	a, img, err := e.catalog.AttachmentByToken(ctx, ims.HashAttachToken(name))
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, false, nbd.ErrUnknownExport
	}
	if err != nil {
		return nil, false, err
	}
	dev, err := e.disks.device(ctx, img)
	if err != nil {
		return nil, false, tell(img, err)
	}
	x = &export{Device: dev, img: img, of: e, id: a.ID, project: a.ProjectID, endsAt: a.EndsAt, ended: make(chan struct{})}
	first = true
	e.mu.Lock()
	for other := range e.open {
		first = first && other.id != x.id
	}
	e.open[x] = struct{}{}
	e.mu.Unlock()
	e.opened.Add(1)
	e.log.Info("disk opened over NBD", "attachment_id", a.ID, "project_id", a.ProjectID, "image_id", a.ImageID)
	return x, first, nil
}

// inUse is how many exports are open, one for each connection.
func (e *exports) inUse() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.open)
}

// watch says who is connected and ends what has ended, until ctx ends.
func (e *exports) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := e.endExpired(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("could not look for attachments that have ended", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.beats.soon:
			// Clients that come and go in a row are told of together.
			select {
			case <-ctx.Done():
				return
			case <-time.After(newsPause):
			}
		}
	}
}

// endExpired ends the exports whose attachments have ended: too old, detached, or gone
// with their image, whichever process was told so. Those in use do not end by their time:
// the database is told first that they are. While it does not answer, those that are too
// old end all the same.
func (e *exports) endExpired(ctx context.Context) error {
	told := e.beats.tell(ctx)
	ids := map[string]bool{}
	e.mu.Lock()
	for x := range e.open {
		ids[x.id] = true
	}
	e.mu.Unlock()
	if len(ids) == 0 {
		return told
	}
	asked := make([]string, 0, len(ids))
	for id := range ids {
		asked = append(asked, id)
	}
	var living map[string]time.Time
	err := told
	if err == nil {
		living, err = e.catalog.Living(ctx, asked)
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for x := range e.open {
		ended := false
		if err == nil && ids[x.id] { // one that was opened since the question is looked at the next time
			endsAt, lives := living[x.id]
			x.endsAt, ended = endsAt, !lives // it may have been renewed
		}
		if ended || !x.endsAt.IsZero() && !x.endsAt.After(now) {
			x.end()
		}
	}
	return err
}

// export is a disk that one connection reads.
type export struct {
	*blockdev.Device
	img     ims.Image
	of      *exports
	id      string                    // the attachment's
	project string                    // whose attachment it is
	endsAt  time.Time                 // zero: never; used by endExpired alone once it is open
	use     atomic.Pointer[use]       // nil before the visit
	boot    atomic.Pointer[recording] // nil: it is not recorded
	once    sync.Once
	ended   chan struct{}
}

// Ended implements nbd.Ender.
func (x *export) Ended() <-chan struct{} { return x.ended }

func (x *export) end() { x.once.Do(func() { close(x.ended) }) }

// Owner implements nbd.Owned.
func (x *export) Owner() string { return x.project }

// Visit implements nbd.Visited.
func (x *export) Visit(client net.Addr) { x.use.Store(x.of.beats.come(x, client)) }

// count counts bytes that were read.
func (x *export) count(off int64, n int) {
	if r := x.boot.Load(); r != nil && !r.read(off, n) {
		x.boot.Store(nil)
	}
	x.of.bytes.Add(int64(n))
	if u := x.use.Load(); u != nil {
		u.read.Add(int64(n))
	}
}

// ReadAtContext implements nbd.Export.
func (x *export) ReadAtContext(ctx context.Context, p []byte, off int64) error {
	n, err := x.Device.ReadAtContext(ctx, p, off)
	x.count(off, n)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return tell(x.img, x.of.disks.damage.read(ctx, x.img, err))
}

// tell lets the client know if an active image's bytes are gone.
func tell(img ims.Image, err error) error {
	if img.Status != ims.ImageActive || !blockdev.Missing(err) {
		return err
	}
	return &nbd.Told{Text: "the data of image " + img.ID + " is missing in the image area", Err: err}
}

var (
	_ nbd.Warmed     = (*export)(nil)
	_ nbd.Prefetcher = (*export)(nil)
	_ nbd.Visited    = (*export)(nil)
)

// ReadWarm implements nbd.Warmed.
func (x *export) ReadWarm(p []byte, off int64) bool {
	if !x.Device.TryRead(p, off) {
		return false
	}
	x.count(off, len(p))
	return true
}

// Extents implements nbd.Export.
func (x *export) Extents(off, n int64) iter.Seq[nbd.Extent] {
	return func(yield func(nbd.Extent) bool) {
		for e := range x.Device.Extents(off, n) {
			if !yield(nbd.Extent{Offset: e.Offset, Length: e.Length, Hole: !e.Data}) {
				return
			}
		}
	}
}

// Close implements nbd.Export.
func (x *export) Close() error {
	x.of.mu.Lock()
	delete(x.of.open, x)
	x.of.mu.Unlock()
	x.of.beats.leave(x)
	if r := x.boot.Load(); r != nil {
		r.end()
	}
	return x.Device.Close()
}
