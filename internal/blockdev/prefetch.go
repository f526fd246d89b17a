package blockdev

import (
	"context"
	"fmt"
)

// Prefetch starts to fetch the data of a range that is not held, from the front, and
// does not wait for it. Of all that was asked for so and was not read yet no more is
// kept than an eighth of the memory, of one image half as much, which leaves some for
// what is fetched ahead of sequential readers; what there is no room for is fetched when
// it is read. Of a file on this machine that is read as it is nothing is fetched: the
// machine keeps and reads ahead what it holds.
func (d *Device) Prefetch(_ context.Context, off, n int64) error {
	if d.closed.Load() {
		return fmt.Errorf("prefetch image %s: %w", d.im.id, errClosed)
	}
	if off < 0 || n < 0 || n > d.Size()-off {
		return fmt.Errorf("prefetch image %s: %d bytes at %d are not in a disk of %d", d.im.id, n, off, d.Size())
	}
	if n == 0 || d.local() != nil {
		return nil
	}
	unit := d.BlockSize()
	first, end := off/unit, (off+n+unit-1)/unit
	d.fetchFrom(first, end, (end-first)*unit, d.im.cache.mem.limit/8)
	return nil
}
