// Package padded reads a file that ends within its last block as if zeros followed.
package padded

import (
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
)

// Reader reads R, of Size bytes, and zeros behind its end, without a bound: whoever
// reads checks how far. It may be used by many goroutines at once if R may.
type Reader struct {
	R    io.ReaderAt
	Size int64
}

// ReadAt implements io.ReaderAt. A file that ends before Size is an error, as in
// [diskformat.ReadFull].
func (r Reader) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), r.Size-off))
	if err := diskformat.ReadFull(r.R, p[:n], off); err != nil {
		return 0, err
	}
	clear(p[n:])
	return len(p), nil
}

// Note says that a file of a format ends at byte size, within its last unit.
func Note(unit string, size int64) diskformat.Note {
	return diskformat.Note{ID: diskformat.NoteShortEnd, Text: fmt.Sprintf(
		"the file ends within its last %s, at byte %d: what is missing of that reads as zeros, as QEMU reads it; if the file was cut off, get it whole", unit, size)}
}
