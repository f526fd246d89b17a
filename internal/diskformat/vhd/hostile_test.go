package vhd

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

func wantKind(t testing.TB, err, kind error, field string) {
	t.Helper()
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.Contains(e.Field, field) {
		t.Fatalf("the error is %v; it should be %q and name %q", err, kind, field)
	}
}

// footer32 and the like poke a field and make the checksums right again.
func footer32(off int, x uint32) func(*made) {
	return func(m *made) { be.PutUint32(m.footer()[off:], x); m.seal() }
}

func footer64(off int, x uint64) func(*made) {
	return func(m *made) { be.PutUint64(m.footer()[off:], x); m.seal() }
}

func header32(off int, x uint32) func(*made) {
	return func(m *made) { be.PutUint32(m.header()[off:], x); m.seal() }
}

func header64(off int, x uint64) func(*made) {
	return func(m *made) { be.PutUint64(m.header()[off:], x); m.seal() }
}

func bat(i int, x uint32) func(*made) {
	return func(m *made) { be.PutUint32(m.b[madeTable+4*i:], x) }
}

func fixed(off int, x uint64) func(*made) {
	return func(m *made) {
		m.b = newFixed().b
		be.PutUint64(m.footer()[off:], x)
		seal(m.footer(), offChecksum)
	}
}

// hostile are files that are wrong in one thing each. All must be refused at
// opening, whatever the rest of the file holds.
var hostile = []struct {
	name  string
	poke  func(m *made)
	kind  error
	field string
}{
	{"no bytes", func(m *made) { m.b = nil }, diskformat.ErrWrongFormat, "footer.cookie"},
	{"no cookie", func(m *made) { m.b[0], m.footer()[0] = 0, 0 }, diskformat.ErrWrongFormat, "footer.cookie"},
	{"less than the cookie", func(m *made) { m.b = m.b[:7] }, diskformat.ErrWrongFormat, "footer.cookie"},
	{"cut after the cookie", func(m *made) { m.b = m.b[:8] }, diskformat.ErrIncomplete, "footer copy"},
	{"cut in the footer's copy", func(m *made) { m.b = m.b[:300] }, diskformat.ErrIncomplete, "footer copy"},
	{"cut before the copy's last byte", func(m *made) { m.b = m.b[:511] }, diskformat.ErrIncomplete, "footer copy"},
	{"cut after the footer's copy", func(m *made) { m.b = m.b[:512] }, diskformat.ErrIncomplete, "footer copy"},
	{"cut soon after the footer's copy", func(m *made) { m.b = m.b[:600] }, diskformat.ErrIncomplete, "footer copy"},
	{"cut at the header's first sector's end", func(m *made) { m.b = m.b[:1023] }, diskformat.ErrIncomplete, "footer copy"},
	{"cut a sector into the header", func(m *made) { m.b = m.b[:1024] }, diskformat.ErrIncomplete, "data_offset"},
	{"a damaged footer alone", func(m *made) { m.b = m.b[:512]; m.b[100] = 1 }, diskformat.ErrCorrupt, "footer.checksum"},
	{"a fixed disk's footer alone", func(m *made) { m.b = newFixed().footer() }, diskformat.ErrIncomplete, "current_size"},
	{"no copy", func(m *made) { m.b[0] = 0 }, diskformat.ErrCorrupt, "footer copy"},
	{"checksum of both footers", func(m *made) { m.footer()[100] = 1; copy(m.b, m.footer()) }, diskformat.ErrCorrupt, "footer copy.checksum"},
	{"checksum of a fixed disk", func(m *made) { m.b = newFixed().b; m.footer()[100] = 1 }, diskformat.ErrCorrupt, "footer.checksum"},
	{"checksum field of a fixed disk", func(m *made) { m.b = newFixed().b; m.footer()[offChecksum] ^= 1 }, diskformat.ErrCorrupt, "footer.checksum"},
	{"the copy of another disk", func(m *made) { b := bytes.Clone(m.b[:512]); footer64(offSize, 4096)(m); copy(m.b, b) }, diskformat.ErrAmbiguous, "footer copy"},
	{"a fixed disk that begins as a dynamic one", func(m *made) {
		be.PutUint32(m.footer()[offDiskType:], typeFixed)
		seal(m.footer(), offChecksum)
	}, diskformat.ErrAmbiguous, "footer copy"},
	{"a dynamic disk that begins as a fixed one", func(m *made) {
		be.PutUint32(m.b[offDiskType:], typeFixed)
		seal(m.b[:512], offChecksum)
	}, diskformat.ErrAmbiguous, "footer copy"},
	{"a fixed disk's footer at the front alone", func(m *made) {
		footer32(offDiskType, typeFixed)(m)
		m.footer()[0] = 0
	}, diskformat.ErrIncomplete, "footer"},
	{"version 2", footer32(offVersion, 2<<16), diskformat.ErrUnsupported, "file_format_version"},
	{"version 0", footer32(offVersion, 0), diskformat.ErrUnsupported, "file_format_version"},
	{"type 0", footer32(offDiskType, 0), diskformat.ErrUnsupported, "disk_type"},
	{"type 5", footer32(offDiskType, 5), diskformat.ErrUnsupported, "disk_type"},
	{"type giant", footer32(offDiskType, math.MaxUint32), diskformat.ErrUnsupported, "disk_type"},
	{"differencing", func(m *made) { m.differencing("parent.vhd") }, diskformat.ErrUnsupported, "disk_type"},
	{"differencing, no name", func(m *made) { m.differencing("") }, diskformat.ErrUnsupported, "disk_type"},

	{"current_size odd", footer64(offSize, 4097), diskformat.ErrCorrupt, "current_size"},
	{"current_size over 2040 GiB", footer64(offSize, 2040<<30+512), diskformat.ErrUnsupported, "current_size"},
	{"current_size negative", footer64(offSize, 1<<63), diskformat.ErrUnsupported, "current_size"},
	{"current_size all ones", footer64(offSize, math.MaxUint64), diskformat.ErrUnsupported, "current_size"},
	{"current_size with too many blocks", footer64(offSize, 2040<<30), diskformat.ErrUnsupported, "current_size"},
	{"current_size one block more", footer64(offSize, 7*madeBlock+512), diskformat.ErrCorrupt, "max_table_entries"},
	{"fixed: current_size more than the file", fixed(offSize, 8704), diskformat.ErrIncomplete, "current_size"},
	{"fixed: current_size over 64 TiB", fixed(offSize, 64<<40+512), diskformat.ErrUnsupported, "current_size"},
	{"fixed: current_size all ones", fixed(offSize, math.MaxUint64), diskformat.ErrUnsupported, "current_size"},
	{"fixed: current_size odd", fixed(offSize, 1), diskformat.ErrCorrupt, "current_size"},

	{"data_offset 0", footer64(offDataOffset, 0), diskformat.ErrCorrupt, "data_offset"},
	{"data_offset not aligned", footer64(offDataOffset, 513), diskformat.ErrCorrupt, "data_offset"},
	{"data_offset none", footer64(offDataOffset, math.MaxUint64), diskformat.ErrCorrupt, "data_offset"},
	{"data_offset negative", footer64(offDataOffset, 1<<63), diskformat.ErrCorrupt, "data_offset"},
	{"data_offset beyond the file", footer64(offDataOffset, 1<<40), diskformat.ErrIncomplete, "data_offset"},
	{"data_offset where no header is", footer64(offDataOffset, 1024), diskformat.ErrCorrupt, "header.cookie"},
	{"header's cookie", func(m *made) { m.header()[0] = 'C'; m.seal() }, diskformat.ErrCorrupt, "header.cookie"},
	{"header's checksum", func(m *made) { m.header()[800] = 1 }, diskformat.ErrCorrupt, "header.checksum"},
	{"header's version", header32(dynOffVersion, 2<<16), diskformat.ErrUnsupported, "header_version"},
	{"blocks of 0", header32(dynOffBlockSize, 0), diskformat.ErrUnsupported, "block_size"},
	{"blocks of 256", header32(dynOffBlockSize, 256), diskformat.ErrUnsupported, "block_size"},
	{"blocks of 3 MiB", header32(dynOffBlockSize, 3<<20), diskformat.ErrUnsupported, "block_size"},
	{"blocks of 128 MiB", header32(dynOffBlockSize, 128<<20), diskformat.ErrUnsupported, "block_size"},
	{"blocks of 2 GiB", header32(dynOffBlockSize, 1<<31), diskformat.ErrUnsupported, "block_size"},
	{"max_table_entries 0", header32(dynOffEntries, 0), diskformat.ErrCorrupt, "max_table_entries"},
	{"max_table_entries one less", header32(dynOffEntries, 6), diskformat.ErrCorrupt, "max_table_entries"},
	{"table_offset 0", header64(dynOffTable, 0), diskformat.ErrCorrupt, "table_offset"},
	{"table_offset not aligned", header64(dynOffTable, madeTable+4), diskformat.ErrCorrupt, "table_offset"},
	{"table_offset in the header", header64(dynOffTable, 1024), diskformat.ErrCorrupt, "table_offset"},
	{"table_offset at the end", func(m *made) { header64(dynOffTable, uint64(len(m.b)-512))(m) }, diskformat.ErrIncomplete, "table_offset"},
	{"table_offset far away", header64(dynOffTable, 1<<50), diskformat.ErrIncomplete, "table_offset"},
	{"table_offset so that the end overflows", header64(dynOffTable, math.MaxUint64&^511), diskformat.ErrIncomplete, "table_offset"},

	{"an entry beyond the file", bat(2, 100000), diskformat.ErrIncomplete, "BAT"},
	{"an entry far beyond the file", bat(2, unused-1), diskformat.ErrIncomplete, "BAT"},
	{"an entry over the footer", func(m *made) { bat(2, uint32(len(m.b)/512-9))(m) }, diskformat.ErrIncomplete, "BAT"},
	{"an entry in the footer's copy", bat(2, 0), diskformat.ErrCorrupt, "BAT"},
	{"an entry in the header", bat(2, madeHeader/512), diskformat.ErrCorrupt, "BAT"},
	{"an entry in the BAT", bat(2, madeTable/512), diskformat.ErrCorrupt, "BAT"},
	{"cut in the last block", func(m *made) { m.b = m.b[:len(m.b)-footerLen-1] }, diskformat.ErrIncomplete, "BAT"},
	{"cut in the BAT", func(m *made) { m.b = m.b[:madeTable+20] }, diskformat.ErrIncomplete, "table_offset"},
	{"cut in the header", func(m *made) { m.b = m.b[:madeHeader+1000] }, diskformat.ErrIncomplete, "data_offset"},
}

// Not parallel: it measures.
func TestHostile(t *testing.T) {
	victim().mustOpen(t)
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			m := victim()
			c.poke(m)
			err := disktest.Refuse(t, bytes.NewReader(m.b), 1<<20, func(r io.ReaderAt) error {
				_, err := Open(r, int64(len(m.b)))
				return err
			})
			wantKind(t, err, c.kind, c.field)
		})
	}
	if _, err := Open(bytes.NewReader(nil), -1); err == nil {
		t.Error("a negative size was opened")
	}
}

// The refusal of a differencing disk names its parent, quoted, or says that it has no
// name.
func TestParentIsNamed(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"C:\\größer\x1b.vhd": `differs from its parent "C:\\größer\x1b.vhd"; merge`,
		"":                   `differs from its parent, which the file does not name; merge`,
	} {
		m := victim()
		m.differencing(name)
		if _, err := m.open(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parent %q: %v", name, err)
		}
	}
}

// The largest BAT that is read, and reads all over a disk whose blocks have the
// largest bitmaps. Not parallel: it measures.
func TestLargest(t *testing.T) {
	m := victim()
	header32(dynOffEntries, math.MaxUint32)(m)
	header32(dynOffBlockSize, 512<<10)(m)
	footer64(offSize, 1<<40)(m)
	file := disktest.Patched{0: m.b[:madeTable], madeTable + 8<<20: nil}
	table := make([]byte, 64<<10)
	for i := 0; i < len(table); i += 4 {
		be.PutUint32(table[i:], 16<<20/512)
	}
	for off := range int64(8 << 20 / len(table)) {
		file[madeTable+off*int64(len(table))] = table
	}
	n := disktest.Allocated(func() {
		f, err := Open(file, 1<<40)
		if err != nil {
			t.Error(err)
			return
		}
		for e := range f.Extents() {
			if e.Length != 1<<40 || !e.Data {
				t.Errorf("%+v", e)
			}
		}
	})
	if n > 16<<20 {
		t.Errorf("%d bytes were allocated", n)
	}

	header32(dynOffBlockSize, MaxBlockSize)(m)
	for off, p := range file {
		if off == 0 {
			copy(p, m.b)
		}
	}
	peak := disktest.Peak(t, func() {
		f, err := Open(file, 1<<40)
		if err != nil {
			t.Error(err)
			return
		}
		p := make([]byte, 512)
		for i := range int64(1000) { // more than are kept
			if _, err := f.ReadAt(p, i*f.Info().BlockSize); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if peak > 16<<20 {
		t.Errorf("%d bytes were held", peak)
	}
}
