package zdisk

import (
	"testing"
	"time"
)

// Geometries worked out from the VHD specification's rules by hand, at the
// edges of its cases, and the fixtures' own.
func TestGeometry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sectors                uint64
		cylinders, heads, secs uint32
	}{
		{32825, 482, 4, 17}, // the fixtures' disk
		{1, 0, 4, 17},
		{17*4*1024 - 1, 1023, 4, 17},
		{17 * 4 * 1024, 140, 16, 31}, // 4 heads would make 1024 cylinders
		{65535 * 16 * 63, 16191, 16, 255},
		{65535*16*63 - 1, 65534, 16, 63},
		{65535 * 16 * 255, 65535, 16, 255},
		{1 << 31, 65535, 16, 255},
	} {
		want := c.cylinders<<16 | c.heads<<8 | c.secs
		if got := Geometry(c.sectors * 512); got != want {
			t.Errorf("%d sectors: %d/%d/%d, right is %d/%d/%d", c.sectors, got>>16, got>>8&255, got&255, c.cylinders, c.heads, c.secs)
		}
	}
}

func TestTimestamp(t *testing.T) {
	t.Parallel()
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]uint32{
		epoch: 0, epoch.Add(time.Second): 1, epoch.Add(-time.Hour): 0,
		epoch.Add(1<<32*time.Second - time.Second): 1<<32 - 1, epoch.AddDate(200, 0, 0): 1<<32 - 1,
	} {
		if got := Timestamp(at); got != want {
			t.Errorf("%s: %d, right is %d", at, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for size, want := range map[uint64]uint64{512: 1 << 30, 1 << 30: 1 << 30, 1<<30 + 512: 2 << 30, 1 << 40: 1 << 40} {
		if got := VirtualSize(size); got != want {
			t.Errorf("virtual size of %d: %d", size, got)
		}
	}
	for size, want := range map[uint64]uint64{0: 0, 1: 1, 2 << 20: 1, 2<<20 + 1: 2, 1 << 40: 524288} {
		if got := Blocks(size, 2<<20); got != want {
			t.Errorf("blocks of %d: %d", size, got)
		}
	}
	for n, want := range map[int64]int64{1: 4096, 4044: 4096, 4045: 8192, 1<<32 - 1: 1<<32 + 4096} {
		if got := RecordLen(n); got != want {
			t.Errorf("a record of %d takes %d", n, got)
		}
	}
}
