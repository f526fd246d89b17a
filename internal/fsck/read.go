package fsck

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"

	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// readStep is how much of a disk is picked, read and checked at a time, in bytes.
const readStep = 2 << 20

// read decodes a part of an image's data: each piece that holds data with a chance of
// percent, and at least one.
func (c *Checker) read(ctx context.Context, img catalog.ImageData, percent float64, r *Report) (*Finding, error) {
	fault := func(err error) (*Finding, error) {
		if blockdev.Damaged(err) {
			return &Finding{Kind: Unreadable, Key: img.Data.Key, Detail: err.Error()}, nil
		}
		return nil, err
	}
	dev, err := c.Cache.Open(ctx, img.ID, func(context.Context) (ims.Data, error) { return img.Data, nil })
	if err != nil {
		return fault(err)
	}
	defer dev.Close()
	type piece struct{ off, n int64 }
	var first *piece // the one to read if chance picks none
	seen, read := 0, 0
	buf := make([]byte, readStep)
	check := func(p piece) error {
		read++
		n, err := dev.ReadAtContext(ctx, buf[:p.n], p.off)
		r.ReadBytes += int64(n)
		if int64(n) == p.n || err == nil || errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	for e := range dev.Extents(0, dev.Size()) {
		if !e.Data {
			continue
		}
		for off := e.Offset; off < e.Offset+e.Length; off += readStep {
			p := piece{off, min(readStep, e.Offset+e.Length-off)}
			if seen++; rand.IntN(seen) == 0 {
				first = &p
			}
			if rand.Float64()*100 >= percent {
				continue
			}
			if err := check(p); err != nil {
				return fault(err)
			}
		}
	}
	if read == 0 && first != nil {
		if err := check(*first); err != nil {
			return fault(err)
		}
	}
	return nil, nil
}
