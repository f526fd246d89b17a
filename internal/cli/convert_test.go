package cli

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"512": 512, "10M": 10 << 20, "10m": 10 << 20, "10MiB": 10 << 20, "1MB": 1 << 20, "1G": 1 << 30, "1T": 1 << 40, "3K": 3 << 10, "7B": 7,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1.5G", "M", "1P", "10 M", "9999999999T", "99999999999999999999", "1MM", "0x10"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestTargetFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ output, out, want, err string }{
		{"", "a.zvhd2", "zvhd2", ""}, {"", "a.RAW", "raw", ""}, {"", "a.img", "raw", ""}, {"", "a.zvhd", "zvhd", ""}, {"", "a", "", ""}, {"", "-", "", ""},
		{"raw", "a.qcow2", "raw", ""}, {"ZVHD2", "a.raw", "zvhd2", ""}, {"zvhd", "-", "zvhd", ""},
		{"", "a.qcow2", "qcow2", ""}, {"vpc", "a", "vhd", ""}, {"", "a.vhdx", "vhdx", ""},
		{"", "a.vdi", "", "does not write vdi"}, {"qed", "a", "", "must be one of"},
	} {
		got, err := (&ConvertCmd{Output: c.output, Out: c.out}).target()
		name := ""
		if got != nil {
			name = string(got.Name)
		}
		if name != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("-O %q %s: %q, %v", c.output, c.out, name, err)
		}
	}
}

// A disk whose partition table tells of more than there is was likely cut off: whoever
// looks at it or converts it is told.
func TestACutDiskIsSpokenOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "cut.raw")
	disk := make([]byte, 1<<20)
	copy(disk[510:], "\x55\xaa")
	entry := disk[446:462] // a partition of 8 MiB from sector 1 on
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], 1)
	binary.LittleEndian.PutUint32(entry[12:], 8<<20/512)
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	status, stdout, _ := run(t, "info", path)
	if status != statusOK || !strings.Contains(stdout, "mbr, 1; it reaches beyond the disk's end") {
		t.Errorf("info: status %d:\n%s", status, stdout)
	}
	status, _, stderr := run(t, "convert", path, filepath.Join(dir, "cut.zvhd2"))
	if status != statusOK || !strings.Contains(stderr, "reaches beyond the disk's end") {
		t.Errorf("convert: status %d, %q", status, stderr)
	}
	binary.LittleEndian.PutUint32(entry[12:], 1<<20/512-1)
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	_, stdout, _ = run(t, "info", path)
	_, _, stderr = run(t, "convert", path, filepath.Join(dir, "whole.zvhd2"))
	if strings.Contains(stdout+stderr, "beyond") {
		t.Errorf("a disk that is whole:\n%s%s", stdout, stderr)
	}
}

// TestFrames: what --frame asked for is what info and map tell, both forms hold the same
// disk, and formats without frames refuse the flag.
func TestFrames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	disk := make([]byte, 5<<20)
	copy(disk[3<<20:], "content")
	must(t, os.WriteFile(raw, disk, 0o600))
	for frame, want := range map[string]struct {
		size            int64
		info, kind, sum string
	}{
		"":      {64 << 10, "64 KiB, each read alone", "data, frames of 64 KiB", "the frame table is that of the records"},
		"unit":  {64 << 10, "64 KiB, each read alone", "data, frames of 64 KiB", "the frame table is that of the records"},
		"block": {2 << 20, "2 MiB, a whole block", "data, frames of 2 MiB", "every checksum holds;"},
	} {
		out := filepath.Join(dir, frame+".zvhd2")
		args := []string{"convert", raw, out}
		if frame != "" {
			args = append(args, "--frame", frame)
		}
		if status, _, stderr := run(t, args...); status != statusOK {
			t.Fatalf("--frame %s: status %d, %s", frame, status, stderr)
		}
		_, stdout, _ := run(t, "info", "--json", out)
		var info infoDoc
		if err := json.Unmarshal([]byte(stdout), &info); err != nil || info.FrameSize != want.size {
			t.Errorf("--frame %s: info --json: %d, %v", frame, info.FrameSize, err)
		}
		if _, stdout, _ = run(t, "info", out); !strings.Contains(stdout, want.info) {
			t.Errorf("--frame %s: info:\n%s", frame, stdout)
		}
		if _, stdout, _ = run(t, "map", out); !strings.Contains(stdout, want.kind) {
			t.Errorf("--frame %s: map:\n%s", frame, stdout)
		}
		if status, stdout, stderr := run(t, "verify", out); status != statusOK || !strings.Contains(stdout, want.sum) {
			t.Errorf("--frame %s: verify: status %d, %s%s", frame, status, stdout, stderr)
		}
		if status, stdout, stderr := run(t, "verify", out, "--against", raw); status != statusOK {
			t.Errorf("--frame %s: verify --against: status %d, %s%s", frame, status, stdout, stderr)
		}
	}
	for _, args := range [][]string{
		{"--frame", "block", "-O", "raw", raw, filepath.Join(dir, "a")},
		{"--frame", "block", "-O", "zvhd", raw, filepath.Join(dir, "a")},
		{"--frame", "block", filepath.Join(dir, "block.zvhd2"), filepath.Join(dir, "a")}, // becomes RAW
		{"--frame", "64k", raw, filepath.Join(dir, "a.zvhd2")},
	} {
		if status, _, stderr := run(t, append([]string{"convert"}, args...)...); status != statusUsage || !strings.Contains(stderr, "frame") {
			t.Errorf("convert %v: status %d, %s", args, status, stderr)
		}
	}
}
