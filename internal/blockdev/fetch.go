package blockdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/pinned"
	"github.com/quickims/quickims/internal/resident"
	"github.com/quickims/quickims/internal/unit"
)

const (
	// maxJoin is the longest range that neighbours are joined into, in bytes of the object
	// and of the disk.
	maxJoin = 16 << 20
	// maxRun is how much of the object is decoded as one, in bytes, unless a unit is longer.
	maxRun = 256 << 10
	// maxRunGap is how many bytes between two units are read into the same buffer: what
	// pads a record.
	maxRunGap = 4096 + 64
	// attempts is how often a unit is read that does not pass its check.
	attempts = 3
)

// fetch makes wanted units of one image resident. It runs in a goroutine of its own and
// ends when nobody wants its units, not with a read. Its steps: locate, grant, read, fill,
// land. It waits for its table before it has a grant, and for the store without one, unless
// a request is under way.
type fetch struct {
	im      *image
	unasked bool // no read waits for it as far as it knows: it tries once
	ctx     context.Context
	cancel  context.CancelFunc
	wanted  atomic.Int64 // units that are wanted
}

// job is a unit that a fetch has not landed.
type job struct {
	unit  *resident.Unit
	piece unit.Piece
	bad   int   // how often it did not pass its check
	err   error // of the last time
}

// fetch starts the fetches of units that reads wait for, in ascending order.
func (im *image) fetch(units []*resident.Unit) {
	for len(units) > 0 {
		n := im.joined(units)
		im.start(units[:n:n], nil, false)
		units = units[n:]
	}
}

// joined is how many of the units one fetch takes: neighbours, of which no more than a
// quarter of the memory holds, so that there is room for others.
func (im *image) joined(units []*resident.Unit) int {
	l := im.layout
	most := min(maxJoin/l.Unit(), im.cache.mem.Limit()/4/fetchMemory(l, 1))
	gap := pinned.MaxGap + max(l.Unit(), l.Stored())
	n := 1
	for before := l.Offset(units[0].Number()); n < len(units) && int64(n) < most; n++ {
		next := l.Offset(units[n].Number())
		if next < before || next-before > gap {
			break
		}
		before = next
	}
	return n
}

// fetchMemory is the grant that a fetch of n units takes: for the units, and for what is
// decoded at a time.
func fetchMemory(l unit.Layout, n int) int64 {
	size := int64(n) * resident.BufferSize(l.Unit())
	if l.Stored() > 0 {
		size += int64(decoding(n)) * resident.BufferSize(max(runBytes(l, n), l.Unit()))
	}
	return size
}

// decoding is how many runs of n units a fetch decodes at a time, and reads ahead of that.
func decoding(n int) int { return min(n, runtime.GOMAXPROCS(0)+1) }

// runBytes is how much of the object a fetch of n units reads and decodes as one: a unit,
// or several short ones, so that a hand-over costs little beside the decoding.
func runBytes(l unit.Layout, n int) int64 {
	return max(l.Stored(), min(int64(n)*l.Stored(), maxRun))
}

// start runs a fetch of units, with its grant or none yet.
func (im *image) start(units []*resident.Unit, g *resident.Grant, unasked bool) {
	c := im.cache
	f := &fetch{im: im, unasked: unasked}
	f.ctx, f.cancel = context.WithCancel(c.ctx)
	f.wanted.Store(int64(len(units)))
	jobs := make([]job, 0, len(units))
	for _, u := range units {
		if c.mem.Start(u, f) {
			jobs = append(jobs, job{unit: u})
		} else {
			f.Unwanted()
		}
	}
	c.run.Lock()
	closed := c.ctx.Err() != nil
	if !closed {
		c.work.Add(1)
	}
	c.run.Unlock()
	if closed {
		if g != nil {
			g.Release()
		}
		f.fail(jobs, errClosed)
		f.cancel()
		return
	}
	if unasked {
		im.unasked.Add(1)
	}
	go func() {
		defer c.work.Done()
		defer f.cancel()
		if unasked {
			defer im.unasked.Add(-1)
		}
		f.run(jobs, g)
	}()
}

// Unwanted implements resident.Fetch. The fetch ends with the last unit that is wanted.
func (f *fetch) Unwanted() {
	if f.wanted.Add(-1) == 0 {
		f.cancel()
	}
}

// fail ends the fetch of units with an error.
func (f *fetch) fail(jobs []job, err error) {
	if f.im.cache.ctx.Err() != nil {
		err = errClosed
	}
	for _, j := range jobs {
		f.im.cache.mem.Fail(j.unit, err)
	}
}

func (f *fetch) run(jobs []job, g *resident.Grant) {
	mem, l := f.im.cache.mem, f.im.layout
	r := f.im.disk.NewReader(f.ctx, fetchMemory(l, len(jobs)))
	defer r.Close()
	if f.locate(jobs, f.im.tableNow) != nil {
		if g != nil {
			g.Release()
			g = nil
		}
		jobs = f.locateAll(jobs)
	}
	for len(jobs) > 0 {
		if g == nil {
			var err error
			if g, err = mem.Grant(f.ctx, fetchMemory(l, len(jobs))); err != nil {
				f.fail(jobs, err)
				return
			}
		}
		left, err := f.pass(r, g, jobs)
		g.Release()
		g = nil
		jobs = f.next(r, left, err)
	}
}

// next waits until the units that a pass has left may be tried again, and returns them.
// Those for which there is no other try have failed.
func (f *fetch) next(r *pinned.Reader, left []job, err error) []job {
	keep := left[:0]
	for _, j := range left {
		if j.bad >= attempts {
			f.fail([]job{j}, j.err)
		} else {
			keep = append(keep, j)
		}
	}
	if err == nil || len(keep) == 0 {
		return keep
	}
	if f.unasked && pinned.Passes(err) {
		if keep = f.asked(keep); len(keep) == 0 {
			return nil
		}
	}
	if err = r.Await(err); err != nil {
		f.fail(keep, fmt.Errorf("read the data of image %s: %w", f.im.id, err))
		return nil
	}
	return keep
}

// asked gives up the units that no read waits for, and returns the others.
func (f *fetch) asked(jobs []job) []job {
	f.unasked = false
	keep := jobs[:0]
	for _, j := range jobs {
		if !f.im.cache.mem.Unasked(j.unit) {
			keep = append(keep, j)
		}
	}
	return keep
}

// locate says of the units where they lie.
func (f *fetch) locate(jobs []job, t unit.ReadTable) error {
	numbers, pieces := make([]int64, len(jobs)), make([]unit.Piece, len(jobs))
	for i := range jobs {
		numbers[i] = jobs[i].unit.Number()
	}
	if err := f.im.layout.Locate(t, numbers, pieces); err != nil {
		return err
	}
	for i := range jobs {
		jobs[i].piece = pieces[i]
	}
	return nil
}

// locateAll is locate where the table has to be waited for. It returns the units of which
// it could be read; the others have failed.
func (f *fetch) locateAll(jobs []job) []job {
	read := int64(0) // of the table, last
	t := func(p []byte, off int64) error {
		read = off
		return f.im.table.read(f.ctx, p, off)
	}
	var err error
	for try := 1; ; try++ {
		if err = f.locate(jobs, t); err == nil {
			return jobs
		}
		if !errors.Is(err, diskformat.ErrCorrupt) || try == attempts {
			break
		}
		f.im.forgetTable(read)
	}
	// A part of the table is damaged. It fails the units that need it, and no others.
	var good []job
	for i := range jobs {
		if errors.Is(err, diskformat.ErrCorrupt) {
			if uerr := f.locate(jobs[i:i+1], t); uerr == nil {
				good = append(good, jobs[i])
				continue
			} else if errors.Is(uerr, diskformat.ErrCorrupt) {
				f.im.forgetTable(read)
				f.fail(jobs[i:i+1], fmt.Errorf("read the checksums of image %s: %w", f.im.id, uerr))
				continue
			} else {
				err = uerr
			}
		}
		f.fail(jobs[i:i+1], fmt.Errorf("read the checksums of image %s: %w", f.im.id, err))
	}
	return good
}

// errNotNow says that the table has to be fetched.
var errNotNow = errors.New("not at hand")

// tableNow reads of the layout's table what is at hand.
func (im *image) tableNow(p []byte, off int64) error {
	if im.table != nil && im.table.TryRead(p, off) {
		return nil
	}
	return errNotNow
}

// forgetTable drops what is kept of the table around an entry that is damaged.
func (im *image) forgetTable(off int64) {
	part := im.table.im
	u := off / part.layout.Unit()
	im.cache.mem.Forget(part.key(u))
	part.disk.Drop(part.layout.Offset(u), unit.Len(part.layout, u))
}

// pass reads the units and lands them, range by range, until a read fails with err. It
// returns what is left: the units from there on, and those that did not pass their check.
func (f *fetch) pass(r *pinned.Reader, g *resident.Grant, jobs []job) (left []job, err error) {
	for len(jobs) > 0 && err == nil {
		n := rangeOf(jobs)
		first, last := jobs[0].piece, jobs[n-1].piece
		r.Range(first.Off, last.Off+last.Len-first.Off)
		var rest []job
		if f.im.layout.Stored() == 0 {
			rest, err = f.readUnits(r, g, jobs[:n])
		} else {
			rest, err = f.readStored(r, g, jobs[:n])
		}
		left = append(left, rest...)
		jobs = jobs[n:]
	}
	return append(left, jobs...), err
}

// rangeOf is how many of the units, from the first on, come with one request.
func rangeOf(jobs []job) int {
	first := jobs[0].piece
	for n := 1; n < len(jobs); n++ {
		end, next := jobs[n-1].piece.Off+jobs[n-1].piece.Len, jobs[n].piece
		if next.Off < end || next.Off-end > pinned.MaxGap || next.Off+next.Len-first.Off > maxJoin {
			return n
		}
	}
	return len(jobs)
}

// readUnits reads units that lie in the object as they are.
func (f *fetch) readUnits(r *pinned.Reader, g *resident.Grant, jobs []job) (left []job, err error) {
	for i, j := range jobs {
		data := g.Buffer(j.piece.Len)
		if err := r.Read(data, j.piece.Off); err != nil {
			g.Free(data)
			return append(left, jobs[i:]...), err
		}
		if f.land(&j, g, data, data) != nil {
			left = append(left, j)
		}
	}
	return left, nil
}

// readStored reads units that have to be decoded, in runs, which are decoded beside the
// reading.
func (f *fetch) readStored(r *pinned.Reader, g *resident.Grant, jobs []job) (left []job, err error) {
	l := f.im.layout
	size := runBytes(l, len(jobs))
	// What is read goes into buffers of the size of units where that is enough: few sizes
	// are in use then, and one buffer serves for the other.
	whole := resident.BufferSize(l.Unit())
	if size == l.Stored() && !slices.ContainsFunc(jobs, func(j job) bool { return j.piece.Len > whole }) {
		size = l.Unit()
	}
	buffers := make(chan []byte, decoding(len(jobs)))
	for range cap(buffers) {
		buffers <- nil
	}
	var mu sync.Mutex
	var work sync.WaitGroup
	for len(jobs) > 0 && err == nil {
		buf := <-buffers
		if buf == nil {
			buf = g.Buffer(size)
		}
		run, n := runOf(jobs, int64(cap(buf)))
		if n > 0 {
			err = r.Read(buf[:n], run[0].piece.Off)
		}
		if err != nil {
			buffers <- buf
			break
		}
		jobs = jobs[len(run):]
		decode := func() {
			for _, j := range run {
				at := j.piece.Off - run[0].piece.Off
				if f.land(&j, g, g.Buffer(unit.Len(l, j.piece.Unit)), buf[at:at+j.piece.Len]) != nil {
					mu.Lock()
					left = append(left, j)
					mu.Unlock()
				}
			}
			buffers <- buf
		}
		if len(jobs) == 0 {
			decode()
		} else {
			work.Go(decode)
		}
	}
	work.Wait()
	for range cap(buffers) {
		if buf := <-buffers; buf != nil {
			g.Free(buf)
		}
	}
	slices.SortFunc(left, func(a, b job) int { return cmp.Compare(a.piece.Off, b.piece.Off) })
	return append(left, jobs...), err
}

// runOf is the units, from the first on, that are read into a buffer of size bytes, and
// how many bytes of the object they take: neighbours with next to nothing between, at
// least one.
func runOf(jobs []job, size int64) (run []job, bytes int64) {
	first := jobs[0].piece.Off
	bytes = jobs[0].piece.Len
	for n := 1; n < len(jobs); n++ {
		p := jobs[n].piece
		if gap := p.Off - first - bytes; gap < 0 || gap > maxRunGap || p.Off+p.Len-first > min(size, maxRun) {
			return jobs[:n:n], bytes
		}
		bytes = p.Off + p.Len - first
	}
	return jobs, bytes
}

// land fills a unit's buffer and makes the unit resident. If the bytes do not pass their
// check the buffer is freed.
func (f *fetch) land(j *job, g *resident.Grant, data, stored []byte) error {
	if err := f.im.layout.Fill(data, stored, j.piece); err != nil {
		g.Free(data)
		if j.bad++; j.bad == 1 {
			f.im.disk.Drop(j.piece.Off, j.piece.Len)
		}
		j.err = fmt.Errorf("read the data of image %s: %w", f.im.id, err)
		return j.err
	}
	f.im.cache.mem.Land(j.unit, g, data)
	return nil
}
