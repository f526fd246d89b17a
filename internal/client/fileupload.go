package client

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// FileUpload is an upload of a file in parts, which a later run can go on with:
//
//	BeginUpload or ResumeUpload, then Compare, Send, Commit.
//
// Nothing is there under the key before Commit has returned nil. Giving up is
// Abort; doing nothing leaves the parts in the store for a later run. It is for one
// goroutine; progress functions are called from several.
type FileUpload struct {
	*upload
	r    io.ReaderAt
	size int64
	part int64
	sums []sum // of all parts, once known

	mu    sync.Mutex
	there map[int]part // as the store lists them; Compare takes out those that are not the file's, Send adds
}

// Splits reports whether a file of size bytes is uploaded in parts, so that it is
// worth to go on with after a cut. A smaller one goes in one request, by Put.
func Splits(size int64) bool { return size > leastPart }

// BeginUpload begins an upload of size bytes of r, for which Splits is true.
func (s *Store) BeginUpload(ctx context.Context, bucket, key string, r io.ReaderAt, size int64) (*FileUpload, error) {
	u, err := s.begin(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	return newFileUpload(u, r, size), nil
}

// ResumeUpload takes up an upload that was begun before. The error wraps ErrNoUpload
// if the store has none of that id.
func (s *Store) ResumeUpload(ctx context.Context, bucket, key, id string, r io.ReaderAt, size int64) (*FileUpload, error) {
	f := newFileUpload(&upload{s, bucket, key, id}, r, size)
	there, err := f.parts(ctx)
	if err != nil {
		return nil, err
	}
	for number, p := range there {
		// What has another size is none of ours, whatever is in it. Completing names
		// the parts, so one beyond the last does no harm.
		if number > len(f.sums) || p.size != f.length(number) {
			delete(there, number)
		}
	}
	f.there = there
	return f, nil
}

func newFileUpload(u *upload, r io.ReaderAt, size int64) *FileUpload {
	f := &FileUpload{upload: u, r: r, size: size, part: partSize(size), there: make(map[int]part)}
	f.sums = make([]sum, (size+f.part-1)/f.part)
	return f
}

// ETagOf is the ETag that an object has whose content a FileUpload or a Put of size bytes
// of r sent. It reads them all; progress, if not nil, hears of every byte.
func ETagOf(ctx context.Context, r io.ReaderAt, size int64, progress func(int)) (string, error) {
	if !Splits(size) {
		s, err := sumOf(contextReader{ctx, io.NewSectionReader(r, 0, size)})
		return s.etag(), err
	}
	f := newFileUpload(nil, r, size)
	err := f.each(ctx, func(int) bool { return true }, func(ctx context.Context, number int) (err error) {
		f.sums[number-1], err = sumOf(contextReader{ctx, f.section(number)})
		if progress != nil {
			progress(int(f.length(number)))
		}
		return err
	})
	return composite(f.sums), err
}

// ID is the store's name for the upload.
func (f *FileUpload) ID() string { return f.id }

// length is how many bytes a part has. Parts count from 1.
func (f *FileUpload) length(number int) int64 {
	return min(f.part, f.size-int64(number-1)*f.part)
}

func (f *FileUpload) section(number int) *io.SectionReader {
	return io.NewSectionReader(f.r, int64(number-1)*f.part, f.length(number))
}

// There is how many bytes of the file the store has; before Compare, how many it
// may have.
func (f *FileUpload) There() (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for number := range f.there {
		n += f.length(number)
	}
	return n
}

func (f *FileUpload) has(number int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.there[number]
	return ok
}

// Likely reads the first part that the store has from the file, and reports whether
// it is the file's: whether an upload that somebody began is likely to be of it.
func (f *FileUpload) Likely(ctx context.Context) (bool, error) {
	for number := range f.sums {
		if p, ok := f.there[number+1]; ok {
			got, err := sumOf(contextReader{ctx, f.section(number + 1)})
			return got.etag() == p.etag, err
		}
	}
	return false, nil
}

// Compare reads what the store has from the file and compares MD5s. Parts that
// differ are sent again by Send. It returns how many bytes differ.
func (f *FileUpload) Compare(ctx context.Context, progress func(int)) (differ int64, err error) {
	same := make([]bool, len(f.sums)+1)
	err = f.each(ctx, f.has, func(ctx context.Context, number int) error {
		var err error
		if f.sums[number-1], err = sumOf(contextReader{ctx, f.section(number)}); err != nil {
			return err
		}
		same[number] = f.sums[number-1].etag() == f.there[number].etag
		if progress != nil {
			progress(int(f.length(number)))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for number := range f.there {
		if !same[number] {
			differ += f.length(number)
			delete(f.there, number)
		}
	}
	return differ, nil
}

// each does the parts that are wanted, several at once, in order.
func (f *FileUpload) each(ctx context.Context, want func(number int) bool, do func(ctx context.Context, number int) error) error {
	g, inner := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range senders {
		g.Go(func() error {
			for {
				number := int(next.Add(1))
				if number > len(f.sums) {
					return nil
				}
				if err := inner.Err(); err != nil {
					return err
				}
				if !want(number) {
					continue
				}
				if err := do(inner, number); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// Send sends what the store does not have. progress hears of every byte that is
// sent; the number is negative when a part has to be sent again.
func (f *FileUpload) Send(ctx context.Context, progress func(int)) error {
	return f.each(ctx, func(number int) bool { return !f.has(number) }, func(ctx context.Context, number int) error {
		var err error
		// The part's MD5 goes ahead of it; the second reading is from the page cache.
		if f.sums[number-1], err = sumOf(contextReader{ctx, f.section(number)}); err != nil {
			return err
		}
		open := func() *io.SectionReader { return f.section(number) }
		if _, err = f.put(ctx, number, open, f.sums[number-1], progress); err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.there[number] = part{f.length(number), f.sums[number-1].etag()}
		return nil
	})
}

// ETag is the object's, once all parts are sent.
func (f *FileUpload) ETag() string { return composite(f.sums) }

// Commit makes the object of the parts and checks it.
func (f *FileUpload) Commit(ctx context.Context) (Object, error) {
	return f.complete(ctx, f.sums, f.size)
}

// Abort gives the upload up: nothing of it is left. It works even if ctx has ended.
func (f *FileUpload) Abort(ctx context.Context) error { return f.abortAfterCut(ctx) }

// Put writes size bytes of r as one object, in parts if it is large, and gives up
// whole if it fails. progress is as for Send.
func (s *Store) Put(ctx context.Context, bucket, key string, r io.ReaderAt, size int64, progress func(int)) (Object, error) {
	if !Splits(size) {
		all := func() *io.SectionReader { return io.NewSectionReader(r, 0, size) }
		want, err := sumOf(contextReader{ctx, all()})
		if err != nil {
			return Object{}, err
		}
		return s.putWhole(ctx, bucket, key, all, want, progress)
	}
	f, err := s.BeginUpload(ctx, bucket, key, r, size)
	if err != nil {
		return Object{}, err
	}
	o, err := f.putAll(ctx, progress)
	if err != nil {
		if left := f.Abort(ctx); left != nil {
			return Object{}, fmt.Errorf("%w; its parts can't be removed: %w", err, left)
		}
		return Object{}, err
	}
	return o, nil
}

func (f *FileUpload) putAll(ctx context.Context, progress func(int)) (Object, error) {
	if err := f.Send(ctx, progress); err != nil {
		return Object{}, err
	}
	return f.Commit(ctx)
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
