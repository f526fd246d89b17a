package vhdx

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

// batSector is the first sector of the block allocation table with entries
// changed: block, entry, block, entry and so on.
func batSector(v *victim, changes ...uint64) []byte {
	s := bytes.Clone(v.Patched[batAt][:logSector])
	for i := 0; i < len(changes); i += 2 {
		le.PutUint64(s[8*changes[i]:], changes[i+1])
	}
	return s
}

// The entries that count are applied in their order, and no others, and the
// file's new end is known; the file itself stays as it is.
func TestLog(t *testing.T) {
	t.Parallel()
	disk := usualDisk()
	forget := func(blocks ...int) []byte {
		d := bytes.Clone(disk)
		for _, b := range blocks {
			clear(d[b*mib : min(len(d), (b+1)*mib)])
		}
		return d
	}
	moved := bytes.Clone(disk)
	copy(moved[1*mib:2*mib], moved[3*mib:])
	copy(moved[2*mib:3*mib], moved[4*mib:])
	const at3, at4 = payloadAt, payloadAt + mib
	sector := func(v *victim, changes ...uint64) change {
		return change{off: batAt, sector: batSector(v, changes...)}
	}
	for _, c := range []struct {
		name    string
		make    func(v *victim)
		entries int
		want    []byte
	}{
		{"an entry without changes", func(v *victim) { v.logged(0, logEntry(someLog, 5, 0, 8*mib)) }, 1, disk},
		{"a sector", func(v *victim) {
			v.logged(8192, logEntry(someLog, 5, 8192, 8*mib, sector(v, 3, stateZero)))
		}, 1, forget(3)},
		{"its first and last bytes", func(v *victim) {
			// Block 0's entry is the first 8 bytes, that of block 511 the last.
			s := batSector(v, 0, stateUnmapped)
			copy(s[logSector-4:], "last")
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, sector: s}))
		}, 1, forget(0)},
		{"two entries, the later wins", func(v *victim) {
			e1 := logEntry(someLog, 5, 0, 8*mib, sector(v, 3, stateZero, 4, stateZero))
			e2 := logEntry(someLog, 6, 0, 8*mib, sector(v, 4, stateZero))
			v.logged(0, e1, e2)
		}, 2, forget(4)},
		{"the tail is the second", func(v *victim) {
			// The first was applied long since; its sector changed after.
			e1 := logEntry(someLog, 5, 0, 8*mib, sector(v, 3, stateZero))
			e2 := logEntry(someLog, 6, uint32(len(e1)), 8*mib)
			v.logged(0, e1, e2)
		}, 1, disk},
		{"around the ring's end", func(v *victim) {
			const start = mib - logSector // the entry's data sector is at 0
			e1 := logEntry(someLog, 1<<40, start, 8*mib, sector(v, 3, stateZero))
			e2 := logEntry(someLog, 1<<40+1, start, 8*mib, sector(v, 1, at3|statePresent, 2, at4|statePresent))
			v.logged(start, e1, e2)
		}, 2, moved},
		{"leftovers of older logs", func(v *victim) {
			v.logged(0, logEntry(unknown, 9, 0, 8*mib, sector(v, 3, stateZero)))
			v.logged(16384, logEntry(someLog, 4, 16384, 8*mib, sector(v, 0, stateZero)))
			v.logged(64<<10, logEntry(someLog, 7, 64<<10, 8*mib, sector(v, 9, stateZero)))
			v.logged(32<<10, logEntry(someLog, 6, 32<<10, 8*mib, sector(v, 4, stateZero)))
		}, 1, forget(9)},
		{"zeros", func(v *victim) {
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, zeros: 4096}))
		}, 1, forget(0, 3, 4, 9)},
		{"a sector after zeros", func(v *victim) {
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, zeros: mib}, sector(v)))
		}, 1, disk},
		{"zeros after a sector", func(v *victim) {
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, sector(v), change{off: batAt - 8192, zeros: 8192 + 4096}))
		}, 1, forget(0, 3, 4, 9)},
		{"an entry of many sectors of descriptors", func(v *victim) {
			changes := many(300, change{off: batAt + 8192, zeros: 4096})
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, append(changes, sector(v, 3, stateZero))...))
		}, 1, forget(3)},
		{"a file that was to grow", func(v *victim) {
			bat(3, 0)(v)
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, sector(v, 3, 9*mib|statePresent)))
			le.PutUint64(v.Patched[logAt][56:], 10*mib)
			sealEntry(v.Patched[logAt][:2*logSector])
		}, 1, forget(3)},
		{"region tables", func(v *victim) {
			// The log holds the second copy whole; in the file it is not sound.
			v.seal()
			sound := bytes.Clone(v.Patched[regionOff2])
			v.noSeals = true
			clear(v.Patched[regionOff1][:4])
			clear(v.Patched[regionOff2][:4])
			v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: regionOff2, sector: sound[:logSector]}))
			for _, h := range []int64{headerOff1, headerOff2} {
				le.PutUint32(v.Patched[h][4:], checksum(v.Patched[h]))
			}
		}, 1, disk},
	} {
		v := usual()
		c.make(v)
		f, err := v.open()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.Replayed() != c.entries {
			t.Errorf("%s: %d entries were applied, right is %d", c.name, f.Replayed(), c.entries)
		}
		got := make([]byte, f.Size())
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: another disk, %v", c.name, err)
		}
		if err := mapAll(f); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Logs that QEMU applies to the file have the same effect as with us in
// memory.
func TestLogAgainstQEMU(t *testing.T) {
	qemutest.Run(t, 8, func(t *rapid.T, dir string) {
		v := usual()
		// Fewer blocks than are stored, so that entries can be brought back.
		lost := rapid.SliceOfNDistinct(rapid.SampledFrom([]int{0, 3, 4, 9}), 0, 3, rapid.ID[int]).Draw(t, "lost")
		whole := bytes.Clone(v.Patched[batAt][:logSector])
		for _, b := range lost {
			bat(b, 0)(v)
		}
		start := int64(logSector * rapid.IntRange(0, mib/logSector-1).Draw(t, "start"))
		first := rapid.Uint64Range(1, 1<<62).Draw(t, "sequence")
		var entries [][]byte
		var places []int64
		var tails []int
		var changed [][]change
		at := start
		for i := range rapid.IntRange(1, 4).Draw(t, "entries") {
			var changes []change
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				c := change{off: batAt}
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					c.zeros = 4096
				case 1:
					c.sector = bytes.Clone(whole)
				default:
					c.sector = bytes.Clone(whole)
					for range rapid.IntRange(1, 3).Draw(t, "poked") {
						b := rapid.IntRange(0, 9).Draw(t, "block")
						le.PutUint64(c.sector[8*b:], rapid.SampledFrom([]uint64{0, stateZero, stateUnmapped,
							statePresent | payloadAt, statePresent | (payloadAt + 3*mib)}).Draw(t, "state"))
					}
				}
				changes = append(changes, c)
			}
			oldest := 0
			if i > 0 {
				oldest = tails[i-1] // it never goes back
			}
			places, changed = append(places, at), append(changed, changes)
			tails = append(tails, rapid.IntRange(oldest, i).Draw(t, "tail"))
			e := logEntry(someLog, first+uint64(i), uint32(places[tails[i]]), v.size, changes...)
			entries = append(entries, e)
			at = (at + int64(len(e))) % mib
		}
		head := len(entries) - 1
		if rapid.Bool().Draw(t, "torn") { // the last entry was not written whole
			e := entries[head]
			e[len(e)-5] ^= 1
			head--
		}
		// What is older than the tail is in the file already: QEMU goes through
		// it again, which must not matter.
		if head >= 0 {
			for _, c := range slices.Concat(changed[:tails[head]]...) {
				clear(v.Patched[batAt][:logSector])
				copy(v.Patched[batAt], c.sector)
			}
		}
		v.logged(start, entries...)
		path := filepath.Join(dir, "disk.vhdx")
		if err := v.write(path); err != nil {
			t.Fatal(err)
		}
		r, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		f, err := Open(r, v.size)
		if err != nil {
			// Only if nothing whole is left; QEMU then goes on without a log.
			if len(entries) > 1 {
				t.Fatal(err)
			}
			return
		}
		ours := make([]byte, f.Size())
		if _, err := f.ReadAt(ours, 0); err != nil {
			t.Fatal(err)
		}
		applied := filepath.Join(dir, "applied.vhdx")
		if err := v.write(applied); err != nil {
			t.Fatal(err)
		}
		qemutest.Img(t, dir, "check", "-q", "-r", "all", "-f", "vhdx", applied)
		theirs, err := os.ReadFile(qemutest.Raw(t, applied, "vhdx"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, theirs) {
			t.Fatal("QEMU makes another disk of it")
		}
	})
}
