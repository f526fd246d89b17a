// Package blockdev is an image as a read-only block device: bytes are fetched from
// the image area when they are read, and checked before anybody gets them. What
// can't be read or does not pass its check is an error, never zeros.
package blockdev

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// ErrChecksum means that an image's bytes are not those that were imported.
var ErrChecksum = errors.New("checksum mismatch")

// Damaged reports whether an error of a Device says that the image's data is not what
// was imported any more: another try won't help.
func Damaged(err error) bool {
	return errors.Is(err, ErrChecksum) || errors.Is(err, objectstore.ErrChanged) || errors.Is(err, objectstore.ErrNotFound) ||
		errors.Is(err, diskformat.ErrCorrupt) || errors.Is(err, diskformat.ErrIncomplete)
}

// Device is an image as a disk. It may be used by many goroutines at once.
type Device struct {
	disk io.ReaderAt
	size int64
}

// Open makes a device of an image's data. Every read is conditional on the ETag
// that the data was adopted with. ctx bounds all reads.
func Open(ctx context.Context, store objectstore.Store, data ims.Data) (*Device, error) {
	if data.Key == "" {
		return nil, errors.New("open an image: it has no data yet")
	}
	object := objectstore.NewReaderAt(ctx, store, objectstore.Location{Bucket: objectstore.ImageArea, Key: data.Key},
		objectstore.ObjectInfo{Size: data.Size, ETag: data.ETag})
	switch diskformat.Format(data.Format) {
	case diskformat.ZVHD2:
		f, err := zvhd2.Open(object, data.Size)
		if err != nil {
			return nil, fmt.Errorf("open the data of an image: %w", err)
		}
		if f.Size() != data.VirtualSize {
			return nil, fmt.Errorf("open the data of an image: its disk has %d bytes, %d were imported", f.Size(), data.VirtualSize)
		}
		return &Device{disk: f, size: f.Size()}, nil
	case diskformat.Raw:
		if data.BitmapKey == "" {
			return &Device{disk: object, size: data.Size}, nil
		}
		mf := objectstore.NewReaderAt(ctx, store, objectstore.Location{Bucket: objectstore.ImageArea, Key: data.BitmapKey},
			objectstore.ObjectInfo{Size: data.BitmapSize, ETag: data.BitmapETag})
		m, err := bitmap.Parse(mf, data.BitmapSize, data.Size)
		if err != nil {
			return nil, fmt.Errorf("open the bitmap of an image: %w", err)
		}
		return &Device{disk: &mappedRaw{object: object, m: m, size: data.Size}, size: data.Size}, nil
	}
	return nil, fmt.Errorf("open an image: %q is no format that can be served", data.Format)
}

// Size is the disk's size in bytes, as a machine sees it.
func (d *Device) Size() int64 { return d.size }

// ReadAt implements io.ReaderAt.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.disk.ReadAt(p, off) }

// Close releases the device. Reads under way may finish.
func (d *Device) Close() error { return nil }

// mappedRaw is a RAW disk with its bitmap: holes are not fetched, and blocks that
// have a checksum are fetched whole and checked.
type mappedRaw struct {
	object io.ReaderAt
	m      *bitmap.Map
	size   int64

	mu        sync.Mutex
	last      []byte // the block fetched last, for readers of small pieces
	lastBlock int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ReadAt implements io.ReaderAt.
func (r *mappedRaw) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a disk: the offset %d is negative", off)
	}
	if off >= r.size {
		return 0, io.EOF
	}
	var atEnd error
	if rest := r.size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		block, within := at/bitmap.BlockSize, at%bitmap.BlockSize
		part := p[n:min(len(p), n+int(bitmap.BlockSize-within))]
		if err := r.readPart(part, block, within); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, atEnd
}

func (r *mappedRaw) readPart(p []byte, block, within int64) error {
	if !r.m.Block(block) {
		clear(p)
		return nil
	}
	sum, ok := r.m.Checksum(block)
	if !ok {
		return diskformat.ReadFull(r.object, p, block*bitmap.BlockSize+within)
	}
	r.mu.Lock()
	if r.last != nil && r.lastBlock == block {
		copy(p, r.last[within:])
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	start := block * bitmap.BlockSize
	buf := make([]byte, min(bitmap.BlockSize, r.size-start))
	if err := diskformat.ReadFull(r.object, buf, start); err != nil {
		return err
	}
	if got := crc32.Checksum(buf, castagnoli); got != sum {
		return fmt.Errorf("block %d (bytes %d to %d): %w: %08x, the bitmap says %08x", block, start, start+int64(len(buf)), ErrChecksum, got, sum)
	}
	copy(p, buf[within:])
	r.mu.Lock()
	r.last, r.lastBlock = buf, block
	r.mu.Unlock()
	return nil
}
