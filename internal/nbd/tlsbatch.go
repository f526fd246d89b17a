package nbd

import (
	"net"
	"sync"
)

// batchBytes is how much is collected before it is written on.
const batchBytes = 128 << 10

// batches are buffers for what is collected.
var batches = sync.Pool{New: func() any { b := make([]byte, 0, batchBytes+32<<10); return &b }}

// batched lies under TLS, which writes each record of 16 KiB by itself: between hold
// and flush they are collected, so that they leave in few system calls.
type batched struct {
	net.Conn
	mu  sync.Mutex
	buf *[]byte // nil: nothing is held back
}

func (b *batched) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = batches.Get().(*[]byte)
}

func (b *batched) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf == nil {
		return b.Conn.Write(p)
	}
	*b.buf = append(*b.buf, p...)
	if len(*b.buf) < batchBytes {
		return len(p), nil
	}
	err := b.write()
	return len(p), err
}

func (b *batched) write() error {
	_, err := b.Conn.Write(*b.buf)
	*b.buf = (*b.buf)[:0]
	return err
}

// flush writes what was held back, and holds nothing back from now on.
func (b *batched) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.write()
	batches.Put(b.buf)
	b.buf = nil
	return err
}
