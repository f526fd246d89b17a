package inspect

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
)

// What a look at the system on a disk may cost an import. A usual Debian disk takes 30
// reads of 64 KiB, which lie in 12 blocks of ZVHD2.
const (
	maxReads   = 40                     // of a RAW file, each of at most 64 KiB
	maxDecodes = 8                      // of blocks of a ZVHD2 file, each of at most 2 MiB
	keptBlocks = 3                      // of them that are kept at a time
	maxTime    = 200 * time.Millisecond // after which nothing more is read, from memory neither
)

// System looks at the system on the disk, as far as that costs little: see
// [diskcheck.Glance]. It finds nothing on a disk that holds nothing known.
func (f Found) System(ctx context.Context) diskcheck.Report {
	if f.Disk == nil || slices.ContainsFunc(f.Notes, func(n diskformat.Note) bool {
		return n.ID == diskformat.NoteNoContent || n.ID == diskformat.NoteEncrypted
	}) {
		return diskcheck.Report{}
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	b := &bounded{disk: f.Disk, left: maxReads}
	if z, ok := f.Disk.(*zvhd2.File); ok {
		b.disk, b.left = &blocks{file: z, left: maxDecodes}, math.MaxInt
	}
	return diskcheck.Glance(ctx, b, f.VirtualSize)
}

// errEnough ends the look at a system.
var errEnough = errors.New("enough was read")

// bounded is a disk of which only so much is read.
type bounded struct {
	disk io.ReaderAt
	left int // reads
}

func (b *bounded) ReadAt(p []byte, off int64) (int, error) {
	if b.left--; b.left < 0 {
		return 0, errEnough
	}
	return b.disk.ReadAt(p, off)
}

// blocks reads a ZVHD2 file by whole blocks, the last few of which it keeps.
type blocks struct {
	file *zvhd2.File
	left int // blocks that may be decoded
	kept []decoded
}

type decoded struct {
	block int64
	plain []byte
}

// ReadAt implements io.ReaderAt for reads within the disk, for one goroutine.
func (b *blocks) ReadAt(p []byte, off int64) (int, error) {
	size, n := b.file.BlockSize(), 0
	for n < len(p) {
		block, within := (off+int64(n))/size, (off+int64(n))%size
		part := p[n:min(int64(len(p)), int64(n)+size-within)]
		plain, err := b.block(block)
		if err != nil {
			return n, err
		}
		if plain == nil {
			clear(part)
		} else if copy(part, plain[min(within, int64(len(plain))):]) < len(part) {
			return n, io.EOF
		}
		n += len(part)
	}
	return n, nil
}

// block is a block decoded; nil for one of zeros.
func (b *blocks) block(block int64) ([]byte, error) {
	if _, _, stored := b.file.Record(uint32(block)); !stored {
		return nil, nil
	}
	for _, k := range b.kept {
		if k.block == block {
			return k.plain, nil
		}
	}
	if b.left--; b.left < 0 {
		return nil, errEnough
	}
	plain := make([]byte, 0)
	if len(b.kept) == keptBlocks {
		plain, b.kept = b.kept[0].plain, b.kept[1:]
	}
	start := block * b.file.BlockSize()
	n := min(b.file.BlockSize(), b.file.Size()-start)
	if int64(cap(plain)) < n {
		plain = make([]byte, n)
	}
	plain = plain[:n]
	if got, err := b.file.ReadAt(plain, start); int64(got) < n {
		return nil, err
	}
	b.kept = append(b.kept, decoded{block, plain})
	return plain, nil
}

// maxNote is how long the text of a note is, in characters.
const maxNote = 600

// SystemNotes are the warnings and errors of a report, one note for each check, whose ID
// it has. Of a disk that holds nothing known there are none: that has a note of its own.
func SystemNotes(r diskcheck.Report) (notes []diskformat.Note) {
	if r.Table == diskformat.NoTable && !slices.ContainsFunc(r.Partitions, func(p diskcheck.Partition) bool { return p.Content != "" }) {
		return nil
	}
	for _, severity := range []diskcheck.Severity{diskcheck.Error, diskcheck.Warning} {
		texts, order, fixes := map[diskcheck.ID][]string{}, []diskcheck.ID(nil), map[diskcheck.ID]string{}
		for _, f := range r.Findings {
			if f.Severity != severity || r.TableNoted && f.ID == diskcheck.PartitionTable {
				continue // TableNotes has it
			}
			if texts[f.ID] == nil {
				order = append(order, f.ID)
				fixes[f.ID] = f.Fix
			}
			texts[f.ID] = append(texts[f.ID], f.Found)
		}
		for _, id := range order {
			text := strings.Join(texts[id], "; ") + ". " + fixes[id]
			if severity == diskcheck.Error {
				text = "the machine will not start or cannot be reached: " + text
			}
			notes = append(notes, diskformat.Note{ID: string(id), Text: ims.ClipTo(strings.TrimSpace(text), maxNote)})
		}
	}
	return notes
}
