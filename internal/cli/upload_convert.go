package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

const (
	// maxEncoders bounds the blocks that are compressed at once.
	maxEncoders = 8
	// encoderMemory is what one takes, a little more than zvhd2.Options says.
	encoderMemory = 14 << 20
	// workMemory is for what the upload holds and the encoders; all of the program
	// shall stay below 256 MiB.
	workMemory = 200 << 20
	// softLimit has the collector work harder instead of letting memory grow by what
	// is not used any more.
	softLimit = 224 << 20
	// smallDisk is up to where the most that a disk can become is taken for what it
	// becomes: its parts are of the least size all the same.
	smallDisk = 64 << 30
	// A block that can't be compressed and its entries in index and frame table take at
	// most this many bytes more than the block: zstd's 14 bytes for each frame of 64 KiB,
	// the record's head and tail, 276 bytes of index, frame table and frame sums, all
	// with room.
	blockOverhead = 32 << 10
	// fileOverhead is more than header and copies, bitmap, footer and what index and
	// frame table are rounded up by.
	fileOverhead = 4 << 20
)

// uploadConverted uploads a disk as ZVHD2, which is made on the way: parts are sent
// as they are made, no file is written. If it fails nothing is left in the store.
func (s *session) uploadConverted(ctx context.Context, store *client.Store, d *diskFile, to objectName, restart bool) (client.Object, error) {
	object, err := s.putConverted(ctx, store, d, to, restart)
	if err != nil {
		return object, fmt.Errorf("upload %s to %s: %w", d.path, to, interrupted(ctx, err))
	}
	return object, nil
}

func (s *session) putConverted(ctx context.Context, store *client.Store, d *diskFile, to objectName, restart bool) (client.Object, error) {
	state := s.newState(store, d.source, to)
	state.Converted = true
	if restart {
		if err := s.abandon(ctx, store, d.source, to); err != nil {
			return client.Object{}, err
		}
	} else if earlier := state.earlier(); earlier != nil && earlier.Converted {
		// One that could not even clean up behind itself.
		if err := store.Abandon(ctx, to.bucket, to.key, earlier.UploadID); err != nil {
			return client.Object{}, err
		}
		state.forget()
	}
	most, err := largest(ctx, d)
	if err != nil {
		return client.Object{}, err
	}
	m := s.bytesMeter("convert and upload", d.OrigSize)
	p := &pace{show: m.at}
	w := store.NewWriter(ctx, to.bucket, to.key, client.WriterOptions{
		MaxSize: most, Progress: p.sent,
		Began: func(id string) error {
			state.UploadID = id
			state.save()
			return nil
		},
	})
	object, err := s.convertInto(w, d, most, p)
	m.close(err)
	if err == nil {
		state.forget()
		return object, nil
	}
	if left := w.Cancel(); left != nil {
		s.note("parts of no use are left in the store, the next run removes them: %v", left)
	} else if state.UploadID != "" {
		state.forget()
	}
	return client.Object{}, err
}

// convertInto writes a file of at most most bytes.
func (s *session) convertInto(w *client.Writer, d *diskFile, most int64, p *pace) (client.Object, error) {
	if s.Getenv("GOMEMLIMIT") == "" {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(softLimit))
	}
	// The frame table is in memory until it is written.
	room := workMemory - w.Held() - most/zvhd2.DefaultBlockSize*zvhd2.FrameEntrySize
	_, err := zvhd2.Convert(w.Context(), w, d, d.OrigSize, zvhd2.ConvertOptions{
		Data: d.Data(w.Context()),
		Options: zvhd2.Options{
			Concurrency: int(max(1, min(int64(runtime.GOMAXPROCS(0)), maxEncoders, room/encoderMemory))),
			Progress:    func(done, _ int64) { p.made(w.Size(), done) },
		},
	})
	if failed := w.Err(); failed != nil {
		return client.Object{}, failed // what stopped the conversion
	}
	if err != nil {
		return client.Object{}, err
	}
	if err := d.unchanged(); err != nil {
		return client.Object{}, err
	}
	return w.Commit()
}

// largest is the most that a disk becomes as ZVHD2, in bytes.
func largest(ctx context.Context, d *diskFile) (int64, error) {
	blocks := (d.OrigSize-1)/zvhd2.DefaultBlockSize + 1
	if d.OrigSize > smallDisk {
		blocks = 0
		for _, err := range sparse.Blocks(d.Data(ctx), d.OrigSize, zvhd2.DefaultBlockSize) {
			if err != nil {
				return 0, err
			}
			blocks++
		}
	}
	return blocks*(zvhd2.DefaultBlockSize+blockOverhead) + fileOverhead, nil
}

// A pace shows one progress for making and sending: what of the disk is made counts
// when it is sent.
type pace struct {
	show func(done int64)

	mu    sync.Mutex
	out   int64 // bytes sent
	shown int64 // of the disk
	marks []mark
}

// mark says that what was made up to file, in bytes, is the disk up to done.
type mark struct{ file, done int64 }

// made says how much was made. Both numbers never decrease.
func (p *pace) made(file, done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.marks); n > 0 && p.marks[n-1].file == file {
		p.marks[n-1].done = done // holes make nothing
	} else {
		p.marks = append(p.marks, mark{file, done})
	}
	p.update()
}

// sent says that n more bytes were sent; less than none, that they are sent again.
func (p *pace) sent(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out += int64(n)
	p.update()
}

func (p *pace) update() {
	i := 0
	for i < len(p.marks) && p.marks[i].file <= p.out {
		p.shown = p.marks[i].done
		i++
	}
	if i > 0 {
		p.marks = append(p.marks[:0], p.marks[i:]...)
		p.show(p.shown)
	}
}
