package vhdx

import (
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
)

// A disk of 4096-byte sectors says so, one of 512 says nothing.
func TestSectorSizeIsNoted(t *testing.T) {
	t.Parallel()
	for sector, want := range map[uint32]int{512: 0, 4096: 1} {
		notes := newVictim(8*mib, mib, sector).mustOpen(t).Notes()
		if len(notes) != want {
			t.Errorf("sectors of %d: %v", sector, notes)
		}
		for _, n := range notes {
			if n.ID != diskformat.NoteSectorSize || !strings.Contains(n.Text, "4096") {
				t.Errorf("%+v", n)
			}
		}
	}
}
