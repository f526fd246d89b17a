// Package extents makes the extents of a disk, as [diskformat.Image] describes
// them, of what a reader's tables say range by range.
package extents

import (
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
)

// Add takes the length in bytes of the next range of the disk, and whether it is
// data. It tells whether more is wanted. A length of 0 adds nothing.
type Add func(length int64, data bool) bool

// Merge yields the extents that the ranges make which walk adds, from the disk's
// beginning to its end: neighbours of a kind are one extent. walk ends when it has
// added all, when add returns false, or with an error, which is yielded after what
// came before it, with a zero Extent.
func Merge(walk func(add Add) error) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		var last diskformat.Extent
		done := false
		flush := func() {
			if last.Length > 0 && !done {
				done = !yield(last, nil)
			}
			last = diskformat.Extent{Offset: last.End()}
		}
		err := walk(func(length int64, data bool) bool {
			if length == 0 || done {
				return !done
			}
			if last.Length > 0 && last.Data != data {
				flush()
			}
			last.Data, last.Length = data, last.Length+length
			return !done
		})
		if flush(); err != nil && !done {
			yield(diskformat.Extent{}, err)
		}
	}
}

// Known is Merge's form of extents that are known without I/O.
func Known(all iter.Seq[diskformat.Extent]) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		for e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}
