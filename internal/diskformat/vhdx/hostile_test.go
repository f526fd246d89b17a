package vhdx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// mostMemory is what a refusal may allocate, in bytes.
const mostMemory = 16 << 20

// opened stands for the file where what refuses reads one that was opened before.
var opened = bytes.NewReader(nil)

var (
	corruptKind     = diskformat.ErrCorrupt
	incompleteKind  = diskformat.ErrIncomplete
	unsupportedKind = diskformat.ErrUnsupported
)

var unknown = parseGUID("DEADBEEF-0000-0000-0000-000000000000")

// hostileHeaders are files that are wrong in one thing each. All are refused at
// opening.
var hostileHeaders = []struct {
	name  string
	poke  func(v *victim)
	kind  error
	field string
}{
	{"another format", func(v *victim) { v.Patched[0][0] = 'V' }, diskformat.ErrWrongFormat, ""},
	{"cut in the header section", func(v *victim) { v.size = frontSize - 1 }, incompleteKind, "file size"},

	{"no header", func(v *victim) { v.Patched[headerOff1][0], v.Patched[headerOff2][0] = 0, 0 }, corruptKind, "header"},
	{"both headers' checksums", func(v *victim) {
		v.seal()
		v.noSeals = true
		v.Patched[headerOff1][4000], v.Patched[headerOff2][4000] = 1, 1
	}, corruptKind, "header"},
	{"two headers of one number", func(v *victim) { set64(8, 9)(v); v.Patched[headerOff1][16] = 1 }, corruptKind, "header.SequenceNumber"},
	{"version 0", set32(64, 0), unsupportedKind, "header.Version"},
	{"version 2", set32(64, 2<<16), unsupportedKind, "header.Version"},
	{"version 2 in the current header", func(v *victim) { v.Patched[headerOff2][66] = 2 }, unsupportedKind, "header.Version"},
	{"log of version 1", func(v *victim) { v.logged(0); set32(64, 1<<16|1)(v) }, unsupportedKind, "header.LogVersion"},
	{"log length odd", set32(68, mib+4096), corruptKind, "header.LogLength"},
	{"log offset odd", set64(72, mib+512), corruptKind, "header.LogOffset"},
	{"log in the header section", set64(72, 0), corruptKind, "header.LogOffset"},
	{"log offset giant", set64(72, 1<<63), corruptKind, "header.LogOffset"},
	{"log over the metadata", set64(72, 2*mib), corruptKind, "region table"},
	{"log of 4 GiB over everything", set32(68, math.MaxUint32&^(mib-1)), corruptKind, "region table"},

	{"no region table", func(v *victim) { v.Patched[regionOff1][1], v.Patched[regionOff2][1] = 0, 0 }, corruptKind, "region table"},
	{"both region tables' checksums", func(v *victim) {
		v.seal()
		v.noSeals = true
		v.Patched[regionOff1][65000], v.Patched[regionOff2][65000] = 1, 1
	}, corruptKind, "region table"},
	{"two region tables", func(v *victim) { v.Patched[regionOff2][16+25] = 0x20 }, corruptKind, "region table"},
	{"2048 regions", func(v *victim) {
		le.PutUint32(v.Patched[regionOff1][8:], 2048)
		le.PutUint32(v.Patched[regionOff2][8:], 2048)
	}, corruptKind, "region table.EntryCount"},
	{"2^32-1 regions", func(v *victim) {
		le.PutUint32(v.Patched[regionOff1][8:], math.MaxUint32)
		le.PutUint32(v.Patched[regionOff2][8:], math.MaxUint32)
	}, corruptKind, "region table.EntryCount"},
	{"no regions", func(v *victim) {
		le.PutUint32(v.Patched[regionOff1][8:], 0)
		le.PutUint32(v.Patched[regionOff2][8:], 0)
	}, corruptKind, "region table"},
	{"no metadata", func(v *victim) { v.regions(1, func(e []byte) { copy(e, unknown[:]); e[28] = 0 }) }, corruptKind, "region table"},
	{"a required region", func(v *victim) { v.region(unknown, 8*mib, mib, 1) }, unsupportedKind, "region table"},
	{"a region twice", func(v *victim) { v.region(regionBAT, 20*mib, mib, 1) }, corruptKind, "region table"},
	{"a region not aligned", func(v *victim) { v.region(unknown, 20*mib+512, mib, 0) }, corruptKind, "region table.FileOffset"},
	{"a region in the header section", func(v *victim) { v.region(unknown, 0, mib, 0) }, corruptKind, "region table.FileOffset"},
	{"a region at the end of all numbers", func(v *victim) { v.region(unknown, math.MaxUint64&^(mib-1), mib, 0) }, corruptKind, "region table.FileOffset"},
	{"a region of odd length", func(v *victim) { v.region(unknown, 20*mib, mib-1, 0) }, corruptKind, "region table.Length"},
	{"a region of no length", func(v *victim) { v.region(unknown, 20*mib, 0, 0) }, corruptKind, "region table.Length"},
	{"a region over the table", func(v *victim) { v.region(unknown, 3*mib, mib, 0) }, corruptKind, "region table"},
	{"a region over everything", func(v *victim) { v.region(unknown, mib, math.MaxUint32&^(mib-1), 0) }, corruptKind, "region table"},
	{"the table over the log", func(v *victim) { v.regions(0, func(e []byte) { le.PutUint64(e[16:], mib) }) }, corruptKind, "region table"},
	{"the table beyond the file", func(v *victim) { v.regions(0, func(e []byte) { le.PutUint64(e[16:], 1<<40) }) }, incompleteKind, "block allocation table"},
	{"the metadata beyond the file", func(v *victim) { v.regions(1, func(e []byte) { le.PutUint64(e[16:], 1<<40) }) }, incompleteKind, "metadata table"},
	{"the metadata across the end", func(v *victim) {
		v.size = 30*mib + metadataTable - 1
		v.regions(1, func(e []byte) { le.PutUint64(e[16:], 30*mib) })
	}, incompleteKind, "metadata table"},

	{"no metadata table", func(v *victim) { v.Patched[metadataAt][0] = 'M' }, corruptKind, "metadata table.Signature"},
	{"2048 items", func(v *victim) { le.PutUint16(v.Patched[metadataAt][10:], 2048) }, corruptKind, "metadata table.EntryCount"},
	{"65535 items", func(v *victim) { le.PutUint16(v.Patched[metadataAt][10:], math.MaxUint16) }, corruptKind, "metadata table.EntryCount"},
	{"no items", func(v *victim) { le.PutUint16(v.Patched[metadataAt][10:], 0) }, corruptKind, "metadata"},
	{"an item missing", func(v *victim) { le.PutUint16(v.Patched[metadataAt][10:], 4) }, corruptKind, "metadata"},
	{"an item of the user instead", func(v *victim) { v.entryOf(1)[24] = itemUser }, corruptKind, "metadata"},
	{"a required item", func(v *victim) { v.item(unknown, itemRequired, nil) }, unsupportedKind, "metadata table"},
	{"a required item of the user", func(v *victim) { v.item(unknown, itemRequired|itemUser, nil) }, unsupportedKind, "metadata table"},
	{"an item twice", func(v *victim) { v.item(itemDiskSize, itemRequired, make([]byte, 8)) }, corruptKind, "metadata table"},
	{"an item in the table", func(v *victim) { le.PutUint32(v.entryOf(0)[16:], metadataTable-1) }, corruptKind, "metadata table.Offset"},
	{"an item across the region's end", func(v *victim) { le.PutUint32(v.entryOf(0)[16:], mib-7) }, corruptKind, "metadata table.Offset"},
	{"an item beyond the region", func(v *victim) { le.PutUint32(v.entryOf(0)[16:], math.MaxUint32) }, corruptKind, "metadata table.Offset"},
	{"an item of 1 MiB and a byte", func(v *victim) { le.PutUint32(v.entryOf(0)[20:], mib+1) }, corruptKind, "metadata table.Length"},
	{"an item of 4 GiB", func(v *victim) { le.PutUint32(v.entryOf(0)[20:], math.MaxUint32) }, corruptKind, "metadata table.Length"},
	{"an item too short", func(v *victim) { le.PutUint32(v.entryOf(1)[20:], 7) }, corruptKind, "metadata.Virtual Disk Size"},
	{"an item too long", func(v *victim) { le.PutUint32(v.entryOf(3)[20:], 8) }, corruptKind, "metadata.Logical Sector Size"},
	{"an item beyond the file", func(v *victim) {
		v.size = 30*mib + metadataTable + 32
		v.regions(1, func(e []byte) { le.PutUint64(e[16:], 30*mib) })
		v.Patched[30*mib] = v.Patched[metadataAt]
		v.Patched[30*mib+metadataTable] = v.Patched[itemsAt]
	}, incompleteKind, "metadata.Virtual Disk Size"},

	{"block of 512 KiB", func(v *victim) { le.PutUint32(v.value(0), 512<<10) }, corruptKind, "metadata.File Parameters.BlockSize"},
	{"block of 512 MiB", func(v *victim) { le.PutUint32(v.value(0), 512<<20) }, corruptKind, "metadata.File Parameters.BlockSize"},
	{"block of 3 MiB", func(v *victim) { le.PutUint32(v.value(0), 3<<20) }, corruptKind, "metadata.File Parameters.BlockSize"},
	{"block of 0", func(v *victim) { le.PutUint32(v.value(0), 0) }, corruptKind, "metadata.File Parameters.BlockSize"},
	{"a parent", func(v *victim) { v.value(0)[4] = 2 }, unsupportedKind, "metadata.File Parameters.HasParent"},
	{"a parent, and fixed", func(v *victim) { v.value(0)[4] = 3 }, unsupportedKind, "metadata.File Parameters.HasParent"},
	{"where the parent is", func(v *victim) { v.item(itemParentLocator, itemRequired, make([]byte, 20)) }, unsupportedKind, "metadata.File Parameters.HasParent"},
	{"a flag of the future", func(v *victim) { v.value(0)[4] = 4 }, corruptKind, "metadata.File Parameters"},
	{"size 0", func(v *victim) { le.PutUint64(v.value(1), 0) }, corruptKind, "metadata.Virtual Disk Size"},
	{"size odd", func(v *victim) { le.PutUint64(v.value(1), mib+1) }, corruptKind, "metadata.Virtual Disk Size"},
	{"size odd for sectors of 4096", func(v *victim) { le.PutUint32(v.value(3), 4096) }, corruptKind, "metadata.Virtual Disk Size"},
	{"size over 64 TiB", func(v *victim) { le.PutUint64(v.value(1), MaxSize+512) }, unsupportedKind, "metadata.Virtual Disk Size"},
	{"size negative", func(v *victim) { le.PutUint64(v.value(1), 1<<63) }, unsupportedKind, "metadata.Virtual Disk Size"},
	{"size of more blocks than the table has", func(v *victim) { le.PutUint64(v.value(1), 128<<10*mib) }, corruptKind, "block allocation table"},
	{"size of 64 TiB in a table of 1 MiB", func(v *victim) { le.PutUint64(v.value(1), MaxSize) }, corruptKind, "block allocation table"},
	{"size of 64 TiB in a small file", func(v *victim) {
		le.PutUint64(v.value(1), MaxSize)
		v.regions(0, func(e []byte) { le.PutUint64(e[16:], 8*mib); le.PutUint32(e[24:], 1<<30) })
	}, incompleteKind, "block allocation table"},
	{"logical sector of 520", func(v *victim) { le.PutUint32(v.value(3), 520) }, corruptKind, "metadata.Logical Sector Size"},
	{"logical sector of 0", func(v *victim) { le.PutUint32(v.value(3), 0) }, corruptKind, "metadata.Logical Sector Size"},
	{"physical sector of 1024", func(v *victim) { le.PutUint32(v.value(4), 1024) }, corruptKind, "metadata.Physical Sector Size"},

	{"a log without entries", func(v *victim) { v.logged(0) }, corruptKind, "log"},
	{"a log of no length", func(v *victim) { v.logged(0); set32(68, 0)(v) }, unsupportedKind, "header.LogLength"},
	{"a log of 64 MiB", func(v *victim) { v.logged(0); set32(68, 64*mib)(v) }, unsupportedKind, "header.LogLength"},
	{"a log beyond the file", func(v *victim) { v.logged(0); set64(72, 1<<40)(v) }, incompleteKind, "header.LogOffset"},
	{"a log of another number", func(v *victim) { v.logged(0, logEntry(unknown, 5, 0, 8*mib)) }, corruptKind, "log"},
	{"a log with a bit wrong", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, sector: make([]byte, logSector)}))
		v.Patched[logAt][5000] = 1
	}, corruptKind, "log"},
	{"a log whose oldest entry is gone", func(v *victim) { v.logged(4096, logEntry(someLog, 5, 0, 8*mib)) }, corruptKind, "log"},
	{"a log whose entry has no number", func(v *victim) { v.logged(0, logEntry(someLog, 0, 0, 8*mib)) }, corruptKind, "log"},
	{"a log of a longer file", func(v *victim) { v.logged(0, logEntry(someLog, 5, 0, 9*mib)) }, incompleteKind, "log entry.FlushedFileOffset"},
	{"a log that changes a header", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: headerOff2, sector: make([]byte, logSector)}))
	}, corruptKind, "log descriptor.FileOffset"},
	{"a log that changes itself", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: mib, sector: make([]byte, logSector)}))
	}, corruptKind, "log descriptor.FileOffset"},
	{"a log that zeroes itself", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: regionOff1, zeros: 4 * mib}))
	}, corruptKind, "log descriptor.FileOffset"},
	{"a log that changes odd places", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt + 512, sector: make([]byte, logSector)}))
	}, corruptKind, "log descriptor.FileOffset"},
	{"a log that zeroes odd lengths", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, zeros: 512}))
	}, corruptKind, "log descriptor.FileOffset"},
	{"a log that zeroes past all numbers", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, zeros: math.MaxInt64 &^ 4095}))
	}, corruptKind, "log descriptor.FileOffset"},
	{"a log that zeroes 1025 times", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, many(maxZeros+1, change{off: batAt, zeros: 4096})...))
	}, unsupportedKind, "log"},
	{"a log that zeroes what it says", func(v *victim) {
		v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: metadataAt, zeros: 4096}))
	}, corruptKind, "metadata table.Signature"},
	{"a log of entries within entries", func(v *victim) { tangle(v) }, unsupportedKind, "log"},
}

func many[T any](n int, x T) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = x
	}
	return all
}

// tangle makes every sector of the log begin an entry that goes on to its end
// and is unsound only in its checksum.
func tangle(v *victim) {
	v.logged(0)
	ring := v.Patched[logAt]
	for at := 0; at < mib; at += logSector {
		e := logEntry(someLog, 5, uint32(at), 8*mib)
		le.PutUint32(e[8:], mib)
		copy(ring[at:], e)
	}
}

func TestHostileHeaders(t *testing.T) {
	usual().mustOpen(t)
	for _, c := range hostileHeaders {
		v := usual()
		c.poke(v)
		v.seal()
		refused(t, c.name, c.kind, c.field, v.Patched, func(r io.ReaderAt) error {
			_, err := Open(r, v.size)
			return err
		})
	}
}

// refused checks that do refuses the file r with an error of the kind that names
// the field, at once and with little memory. Who calls it does not run in
// parallel: it measures.
func refused(t *testing.T, name string, kind error, field string, r io.ReaderAt, do func(r io.ReaderAt) error) {
	t.Helper()
	err := disktest.Refuse(t, r, mostMemory, do)
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.HasPrefix(e.Field, field) {
		t.Errorf("%s: the error is %v; it should be %q and name %q", name, err, kind, field)
	}
}

// hostileTables are sound at opening; reading and mapping say what is wrong.
var hostileTables = []struct {
	name string
	poke func(v *victim)
	kind error
}{
	{"state 4", bat(2, 4), corruptKind},
	{"state 5", bat(9, 5|5*mib), corruptKind},
	{"present in part", bat(0, statePartial|5*mib), unsupportedKind},
	{"reserved bits", bat(3, statePresent|8|5*mib), corruptKind},
	{"more reserved bits", bat(3, statePresent|1<<19|5*mib), corruptKind},
	{"at 0", bat(4, statePresent), corruptKind},
	{"in the log", bat(4, statePresent|logAt), corruptKind},
	{"in the metadata", bat(4, statePresent|metadataAt), corruptKind},
	{"in the table", bat(4, statePresent|batAt), corruptKind},
	{"at the file's end", bat(4, statePresent|8*mib), incompleteKind},
	{"beyond the file", bat(4, statePresent|1<<40), incompleteKind},
	{"at the end of all numbers", bat(4, statePresent|math.MaxUint64&^(mib-1)), incompleteKind},
	{"negative", bat(4, statePresent|1<<63), incompleteKind},
	{"across the end", func(v *victim) { v.size -= mib - 1535 }, incompleteKind},
}

func TestHostileTables(t *testing.T) {
	for _, c := range hostileTables {
		v := usual()
		c.poke(v)
		f, err := v.open()
		if err != nil {
			t.Errorf("%s: opening: %v", c.name, err)
			continue
		}
		const field = "block allocation table"
		refused(t, c.name, c.kind, field, opened, func(io.ReaderAt) error {
			_, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, f.Size()))
			return err
		})
		p := make([]byte, f.Size())
		refused(t, c.name+", at once", c.kind, field, opened, func(io.ReaderAt) error {
			_, err := f.ReadAt(p, 0)
			return err
		})
		refused(t, c.name+", mapping", c.kind, field, opened, func(io.ReaderAt) error { return mapAll(f) })
	}
}

// mapAll maps f, and checks that the extents are in order up to an error.
func mapAll(f *File) error {
	at, first, was := int64(0), true, false
	for e, err := range f.Map(context.Background()) {
		if err != nil {
			return err
		}
		if e.Offset != at || e.Length <= 0 || !first && e.Data == was {
			return fmt.Errorf("the extent %+v follows what ends at %d", e, at)
		}
		at, first, was = e.End(), false, e.Data
	}
	if at != f.Size() {
		return fmt.Errorf("the map ends at %d of %d", at, f.Size())
	}
	return nil
}

// A file that ends too early anywhere is refused, at opening or when it is
// read; never is something else read.
func TestTruncated(t *testing.T) {
	t.Parallel()
	want := usualDisk()
	got := make([]byte, len(want))
	sound := usual()
	sound.seal()
	for n := int64(0); n < sound.size-mib+1536; n += 1 + n/3*2 {
		f, err := Open(sound.Patched, n)
		if err == nil {
			_, err = f.ReadAt(got, 0)
		}
		kind := diskformat.ErrIncomplete
		if n < 8 {
			kind = diskformat.ErrWrongFormat
		}
		if !errors.Is(err, kind) {
			t.Fatalf("cut after %d of %d bytes: %v", n, sound.size, err)
		}
	}
	// What is not of the disk need not be in the file.
	f, err := Open(sound.Patched, sound.size-mib+1536)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("without the last block's unused end: another disk, %v", err)
	}
}

// A read that fails is the source's error and not a fault of the file.
func TestFailingSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("the line is dead")
	for _, at := range []int64{0, headerOff2, regionOff2 + 100, metadataAt, itemsAt + 33, batAt, payloadAt + 1000} {
		v := usual()
		v.seal()
		f, err := Open(disktest.Failing{R: v.Patched, At: at, Err: broken}, v.size)
		for range 2 {
			if f != nil {
				_, err = f.ReadAt(make([]byte, f.Size()), 0)
			}
			var e *diskformat.Error
			if !errors.Is(err, broken) || errors.As(err, &e) {
				t.Errorf("failing at %d: %v", at, err)
			}
		}
	}
	v := usual()
	v.logged(0, logEntry(someLog, 5, 0, 8*mib))
	v.seal()
	if _, err := Open(disktest.Failing{R: v.Patched, At: logAt + 9999, Err: broken}, v.size); !errors.Is(err, broken) {
		t.Errorf("failing in the log: %v", err)
	}
	if _, err := Open(bytes.NewReader([]byte(identifier)), 8*mib); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source shorter than its size: %v", err)
	}
	for _, size := range []int64{-1, math.MaxInt64} {
		if _, err := Open(v.Patched, size); err == nil {
			t.Errorf("a file of %d bytes was opened", size)
		}
	}
}
