package client

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
)

// Bounds of what a Writer holds in memory.
const (
	// chunkSize is what the memory of parts is handed out in.
	chunkSize = 1 << 20
	// maxHeld is the most that a Writer holds, in bytes: the part that is being
	// filled and those on their way. It is more than the largest part, that of an
	// object of little more than 1 TiB, 107 MiB.
	maxHeld = 112 << 20
)

// errWriterDone is what a Writer answers that was committed or cancelled.
var errWriterDone = errors.New("the upload has ended")

// Writer uploads what is written to it, as it comes: parts are sent, several at
// once, while the next is filled, and Write waits when as much is held as Held says. Nothing is
// there under the key before Commit has returned nil. It is for one goroutine.
//
// The parts can't be told again from what comes in, so an upload that was cut can't
// be gone on with.
type Writer struct {
	s           *Store
	ctx         context.Context
	stop        context.CancelCauseFunc
	bucket, key string
	opts        WriterOptions
	partSize    int64

	up      *upload // nil before the first part is full
	filling *bufferedPart
	sums    []sum
	size    int64
	done    bool

	chunks chan []byte   // free memory; nil is a chunk that was never used
	slots  chan struct{} // a place for each sender
	wg     sync.WaitGroup
}

// WriterOptions are those of a Writer.
type WriterOptions struct {
	// MaxSize is the most that will be written, in bytes; it settles the size of the
	// parts.
	MaxSize int64
	// Progress hears of every byte that is sent, from several goroutines; the number
	// is negative when a part has to be sent again.
	Progress func(int)
	// Began hears of the upload's id once there is one, before anything is sent. Its
	// error ends the upload.
	Began func(id string) error
}

// NewWriter makes a Writer; nothing is sent yet. When ctx ends the upload fails;
// Cancel is needed all the same.
func (s *Store) NewWriter(ctx context.Context, bucket, key string, opts WriterOptions) *Writer {
	w := &Writer{s: s, bucket: bucket, key: key, opts: opts, partSize: min(partSize(opts.MaxSize), maxHeld), slots: make(chan struct{}, senders)}
	w.ctx, w.stop = context.WithCancelCause(ctx)
	w.chunks = make(chan []byte, w.Held()/chunkSize)
	for range cap(w.chunks) {
		w.chunks <- nil
	}
	return w
}

// Held is the most that the Writer holds in memory, in bytes: at most 112 MiB, and
// less if the parts are small.
func (w *Writer) Held() int64 { return min(maxHeld, (senders+1)*w.partSize) }

// Write takes p in. An error is that of the upload, whatever part of it failed.
func (w *Writer) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if err := w.ready(); err != nil {
			return n, err
		}
		took, err := w.fill(p[n:])
		n += took
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (w *Writer) ready() error {
	if w.done {
		return errWriterDone
	}
	return context.Cause(w.ctx)
}

// fill takes in what fits into one chunk, and sends the part if it is needed.
func (w *Writer) fill(p []byte) (int, error) {
	if w.filling != nil && w.filling.size == w.partSize {
		// More is to come, so it is not the last one, and there are parts.
		if err := w.send(); err != nil {
			return 0, err
		}
	}
	if w.filling == nil {
		w.filling = &bufferedPart{hash: md5.New()}
	}
	b := w.filling
	if b.size%chunkSize == 0 {
		select {
		case chunk := <-w.chunks:
			if chunk == nil {
				chunk = make([]byte, chunkSize)
			}
			b.chunks = append(b.chunks, chunk)
		case <-w.ctx.Done():
			return 0, context.Cause(w.ctx)
		}
	}
	n := copy(b.chunks[len(b.chunks)-1][b.size%chunkSize:], p)
	b.hash.Write(p[:n])
	b.size += int64(n)
	w.size += int64(n)
	return n, nil
}

// send hands the part that was filled to a sender.
func (w *Writer) send() error {
	if len(w.sums) == maxParts {
		return fmt.Errorf("PUT %s:%s: more than the %d bytes that were to come", w.bucket, w.key, w.opts.MaxSize)
	}
	if w.up == nil {
		up, err := w.s.begin(w.ctx, w.bucket, w.key)
		if err != nil {
			return err
		}
		w.up = up
		if w.opts.Began != nil {
			if err := w.opts.Began(up.id); err != nil {
				return err
			}
		}
	}
	b := w.filling
	w.filling = nil
	want := sum(b.hash.Sum(nil))
	w.sums = append(w.sums, want)
	number := len(w.sums)
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		clean, err := w.up.put(w.ctx, number, b.reader, want, w.opts.Progress)
		if err != nil {
			w.stop(err)
			return
		}
		for _, chunk := range b.chunks {
			if !clean {
				chunk = nil // somebody may still read it
			}
			w.chunks <- chunk // has a place for all
		}
	})
	return nil
}

// Size is how much was written so far, in bytes.
func (w *Writer) Size() int64 { return w.size }

// Context ends when the upload has failed or ended: whoever makes what is written may
// stop then.
func (w *Writer) Context() context.Context { return w.ctx }

// Err is what ended the upload, nil if it goes on.
func (w *Writer) Err() error { return context.Cause(w.ctx) }

// Commit sends what is left, makes the object and checks it. After an error, Cancel.
func (w *Writer) Commit() (Object, error) {
	if err := w.ready(); err != nil {
		return Object{}, err
	}
	if w.filling == nil {
		w.filling = &bufferedPart{hash: md5.New()}
	}
	if w.up == nil {
		b := w.filling
		o, err := w.s.putWhole(w.ctx, w.bucket, w.key, b.reader, sum(b.hash.Sum(nil)), w.opts.Progress)
		w.done = err == nil
		return o, err
	}
	if err := w.send(); err != nil {
		return Object{}, err
	}
	w.wg.Wait()
	if err := context.Cause(w.ctx); err != nil {
		return Object{}, err
	}
	o, err := w.up.complete(w.ctx, w.sums, w.size)
	w.done = err == nil
	return o, err
}

// Cancel gives the upload up: nothing of it is left if the error is nil. After a
// Commit that succeeded it does nothing.
func (w *Writer) Cancel() error {
	if w.done {
		return nil
	}
	w.done = true
	w.stop(errWriterDone)
	w.wg.Wait()
	if w.up == nil {
		return nil
	}
	return w.up.abortAfterCut(w.ctx)
}

// bufferedPart is a part in memory.
type bufferedPart struct {
	chunks [][]byte
	size   int64
	hash   hash.Hash
}

// reader reads the part; several may do at once.
func (b *bufferedPart) reader() *io.SectionReader { return io.NewSectionReader(b, 0, b.size) }

// ReadAt reads within the part's size.
func (b *bufferedPart) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < b.size {
		chunk := b.chunks[off/chunkSize][off%chunkSize : min(chunkSize, b.size-off/chunkSize*chunkSize)]
		k := copy(p[n:], chunk)
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
