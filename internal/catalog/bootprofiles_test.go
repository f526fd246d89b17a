package catalog

import (
	"bytes"
	"testing"
)

// TestBootProfiles: each project has its own, a later one replaces it, and they go with the
// image.
func TestBootProfiles(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		for _, p := range []struct{ project, profile string }{{mine, "a"}, {"member", "b"}, {mine, "c\x00\xff"}} {
			must(t, c.PutBootProfile(t.Context(), img.ID, p.project, []byte(p.profile)))
		}
		for project, want := range map[string]string{mine: "c\x00\xff", "member": "b", "another": ""} {
			if got, err := c.BootProfile(t.Context(), img.ID, project); err != nil || !bytes.Equal(got, []byte(want)) {
				t.Errorf("of %s: %q, %v", project, got, err)
			}
		}
		must(t, c.DeleteImage(t.Context(), mine, img.ID, false))
		must(t, c.PutBootProfile(t.Context(), img.ID, "another", []byte("d")))
		must(t, c.PutBootProfile(t.Context(), "no-such-image", mine, []byte("d")))
		if got, err := c.BootProfile(t.Context(), img.ID, "another"); err != nil || got != nil {
			t.Errorf("a deleted image got the profile %q, %v", got, err)
		}
	})
}
