package vhd

import (
	"bytes"
	"errors"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
)

// A UUID that was changed at one end alone changes no disk; whatever else differs makes
// it two disks.
func TestUUIDOfTheCopy(t *testing.T) {
	t.Parallel()
	whole := victim()
	if notes := whole.mustOpen(t).Notes(); len(notes) > 0 {
		t.Errorf("a sound file: %v", notes)
	}
	disk := whole.disk()
	for name, b := range map[string]func(m *made) []byte{
		"footer": func(m *made) []byte { return m.footer() },
		"copy":   func(m *made) []byte { return m.b[:footerLen] },
	} {
		m := victim()
		b(m)[offUUID+3] ^= 0xff
		seal(b(m), offChecksum)
		f := m.mustOpen(t)
		notes := f.Notes()
		if len(notes) != 1 || notes[0].ID != diskformat.NoteFooter {
			t.Errorf("UUID of the %s: %v", name, notes)
		}
		got := make([]byte, f.Size())
		if err := diskformat.ReadFull(f, got, 0); err != nil || !bytes.Equal(got, disk[:len(got)]) {
			t.Errorf("UUID of the %s: another disk, %v", name, err)
		}

		m = victim()
		b(m)[offSize+6] ^= 2 // 512 bytes
		seal(b(m), offChecksum)
		if _, err := m.open(); !errors.Is(err, diskformat.ErrAmbiguous) {
			t.Errorf("size in the %s: %v", name, err)
		}
	}
	m := victim()
	m.b = m.b[:len(m.b)-footerLen]
	if notes := m.mustOpen(t).Notes(); len(notes) != 1 || notes[0].ID != diskformat.NoteFooter {
		t.Errorf("no footer: %v", notes)
	}
}
