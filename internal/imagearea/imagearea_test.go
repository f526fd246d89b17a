package imagearea

import (
	"strings"
	"testing"
)

const image = "0f8fad5b-d9cb-469f-a165-70867728950e"

// TestSpelling: what an attempt spells is read back, and nothing else is.
func TestSpelling(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{1, 2, 40, 1<<63 - 1} {
		a := Attempt{image, n}
		if got, ok := ParsePrefix(a.Prefix()); !ok || got != a {
			t.Errorf("ParsePrefix(%q) = %v, %v", a.Prefix(), got, ok)
		}
		for _, key := range append(a.Keys(), a.Prefix()+"of/another/kind") {
			if got, ok := Of(key); !ok || got != a || !strings.HasPrefix(key, a.Prefix()) {
				t.Errorf("Of(%q) = %v, %v", key, got, ok)
			}
			if _, ok := ParsePrefix(key); ok {
				t.Errorf("%q counts as a prefix", key)
			}
		}
	}
	for _, bad := range []string{
		"", "/", image, image + "/", image + "/1", image + "/0/disk", image + "/-1/disk", image + "/+1/disk", image + "/01/disk",
		image + "/99999999999999999999/disk", image + "/x/disk", "x/1/disk", strings.ToUpper(image) + "/1/disk", "/" + image + "/1/disk",
	} {
		if a, ok := Of(bad); ok {
			t.Errorf("Of(%q) = %v, want none", bad, a)
		}
	}
}
