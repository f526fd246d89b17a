package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// How a Source remembers what it read: small reads come from pages of 64 KiB,
// because each read of the disk may be a request over a network or a block to
// decompress; 128 of them make 8 MiB.
const (
	pageSize  = 64 << 10
	pageCount = 128
)

// minSpend is what a read costs at least, so that many small ones end too.
const minSpend = 64

// Source is a disk or a section of it, for one goroutine at a time.
type Source struct {
	*meter
	base, size int64
}

// meter is what the sections of one disk share.
type meter struct {
	ctx   context.Context
	disk  io.ReaderAt
	end   int64
	left  int64
	pages [pageCount]page
}

type page struct {
	no   int64
	data []byte // of room, as far as it was read
	room *[pageSize]byte
}

var rooms = sync.Pool{New: func() any { return new([pageSize]byte) }}

// Release lets go of what s and its sections remember. They can be used on, at the
// cost of reading it again. Without Release the memory is garbage with s.
func (m *meter) Release() {
	for i := range m.pages {
		if p := &m.pages[i]; p.room != nil {
			rooms.Put(p.room)
			*p = page{}
		}
	}
}

// NewSource makes a Source of a disk of size bytes that works until ctx ends or
// the budget, in bytes, is used up. What is read from the disk counts, in whole
// pages, and so does what is served from them: 64 bytes at least each time.
func NewSource(ctx context.Context, disk io.ReaderAt, size, budget int64) *Source {
	return &Source{meter: &meter{ctx: ctx, disk: disk, end: max(size, 0), left: budget}, size: max(size, 0)}
}

// Size in bytes.
func (s *Source) Size() int64 { return s.size }

// Section is the part of s from off on; it shares the budget. A part that
// reaches beyond the end is ErrCorrupt.
func (s *Source) Section(off, size int64) (*Source, error) {
	if off < 0 || size < 0 || off > s.size || size > s.size-off {
		return nil, Errorf(ErrCorrupt, "%d bytes at %d reach beyond the end at %d", size, off, s.size)
	}
	return &Source{meter: s.meter, base: s.base + off, size: size}, nil
}

// ReadFull fills p from off. Bytes beyond the end are ErrCorrupt, since
// something on the disk must have pointed there.
func (s *Source) ReadFull(p []byte, off int64) error {
	if off < 0 || off > s.size || int64(len(p)) > s.size-off {
		return Errorf(ErrCorrupt, "%d bytes at %d reach beyond the end at %d", len(p), off, s.size)
	}
	if err := s.Spend(max(int64(len(p)), minSpend)); err != nil {
		return err
	}
	off += s.base
	if len(p) >= pageSize {
		return s.fetch(p, off)
	}
	for len(p) > 0 {
		data, err := s.page(off / pageSize)
		if err != nil {
			return err
		}
		n := copy(p, data[off%pageSize:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Spend takes n bytes off the budget for work that reads nothing.
func (m *meter) Spend(n int64) error {
	if err := context.Cause(m.ctx); err != nil {
		return err
	}
	if n > m.left {
		m.left = 0
		return Errorf(ErrLimit, "too many bytes would have to be read")
	}
	m.left -= n
	return nil
}

func (m *meter) page(no int64) ([]byte, error) {
	p := &m.pages[no%pageCount]
	if p.data != nil && p.no == no {
		return p.data, nil
	}
	at := no * pageSize
	if p.room == nil {
		p.room = rooms.Get().(*[pageSize]byte)
	}
	data := p.room[:min(pageSize, m.end-at)]
	p.data = nil // what is half read is not kept
	if err := m.Spend(int64(len(data))); err != nil {
		return nil, err
	}
	if err := m.fetch(data, at); err != nil {
		return nil, err
	}
	p.no, p.data = no, data
	return data, nil
}

func (m *meter) fetch(p []byte, at int64) error {
	n, err := m.disk.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil // io.ReaderAt may say io.EOF with the last full read
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading bytes %d to %d of the disk: %w", at, at+int64(len(p)), err)
}

// Disk is the whole disk as an [io.ReaderAt], outside the budget, for code that
// has limits of its own.
func (m *meter) Disk() io.ReaderAt { return m.disk }
