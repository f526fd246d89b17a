package ims

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLeastMinDisk(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]int64{1: 1, GiB - 1: 1, GiB: 1, GiB + 1: 2, TiB: 1024, 1<<63 - 1: 1 << 33} {
		if got := LeastMinDisk(n); got != want {
			t.Errorf("%d bytes: got %d GiB, want %d", n, got, want)
		}
	}
	if LeastMinDisk(MaxDiskSize) != MaxDiskGiB {
		t.Error("the largest disk does not have the largest min_disk")
	}
}

// TestOneCodeForEachLimit: a file above 1 TiB is IMG.0059, a disk of no image's size
// IMG.0055, wherever it is noticed.
func TestOneCodeForEachLimit(t *testing.T) {
	t.Parallel()
	for size, want := range map[int64]Code{1: "", MaxFileSize: "", MaxFileSize + 1: CodeFileTooBig} {
		if err := CheckFileSize("the file", size); CodeOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("a file of %d bytes: %v, want %q", size, err, want)
		}
	}
	for size, want := range map[int64]Code{1: "", MaxDiskSize: "", MaxDiskSize + 1: CodeDiskSize, 0: CodeDiskSize} {
		if err := CheckDiskSize(size); CodeOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("a disk of %d bytes: %v, want %q", size, err, want)
		}
	}
}

func TestBitmapKeys(t *testing.T) {
	t.Parallel()
	for key, want := range map[string][]string{
		"image01.raw":   {"image01.mf", "image01.bmap", "image01.raw.bmap"},
		"a.b/disk":      {"a.b/disk.mf", "a.b/disk.bmap", "a.b/disk.bmap"},
		"x/.raw":        {"x/.raw.mf", "x/.raw.bmap", "x/.raw.bmap"},
		"x/d.tar.raw.y": {"x/d.tar.raw.mf", "x/d.tar.raw.bmap", "x/d.tar.raw.y.bmap"},
	} {
		if got := BitmapKeys(key); !slices.Equal(got, want) || got[0] != BitmapKey(key) {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 64)
	for s, want := range map[string]string{
		"": "", "short": "short", long: long, long + "x": long + "…", "a\xffb": "a\ufffdb",
		strings.Repeat("\xff", 1<<20): "\ufffd…",
	} {
		if got := Clip(s); got != want {
			t.Errorf("%.20q: %q, want %q", s, got, want)
		}
	}
	if got := ClipTo("abc", 2); got != "ab…" {
		t.Errorf("ClipTo: %q", got)
	}
	if got := Clip(strings.Repeat("\U0001F4BE", 100)); !utf8.ValidString(got) || utf8.RuneCountInString(got) != 65 {
		t.Errorf("wide characters: %q", got)
	}
}
