package diskcheck

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/filesystem"
)

var le = binary.LittleEndian

// Limits of a partition table, as in package diskformat; tools write 128 entries
// of 128 bytes. Linux counts at most 255 logical partitions, no tool makes more
// than 60.
const (
	gptMaxEntries   = 1024
	gptMaxEntrySize = 4096
	gptMaxTable     = 256 << 10
	maxLogical      = 60
	maxVolumes      = 64 // that are looked into
)

// Types of partitions that matter here, from the UEFI specification, the
// Discoverable Partitions Specification and GRUB's and Microsoft's documentation.
const (
	typeEFISystem = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeBIOSBoot  = "21686148-6449-6e6f-744e-656564454649"
	typeMicrosoft = "e3c9e316-0b5c-4db8-817d-f92df00215ae" // reserved
	mbrEFISystem  = "0xef"
	mbrProtective = 0xee
)

// partitions reads the partition table.
func (c *checker) partitions() {
	hints, err := diskformat.ReadHints(c.src.Disk(), c.Size)
	if err != nil {
		return // the disk's own error, which Check sees
	}
	c.Table = hints.Table
	switch hints.Table {
	case diskformat.GPT:
		c.gpt()
	case diskformat.MBR:
		c.mbr()
	default:
		c.Partitions = []Partition{{Size: c.Size}}
	}
	if c.Table == diskformat.NoTable {
		return // whether that is bad depends on what the disk holds
	}
	var beyond []string
	for _, p := range c.Partitions {
		if p.Start > c.Size || p.Size > c.Size-p.Start {
			beyond = append(beyond, fmt.Sprintf("partition %d ends at byte %d", p.Number, p.Start+p.Size))
		}
	}
	if len(beyond) > 0 {
		c.TableNoted = true
		c.add(PartitionTable, Error, "Make the image again from the whole disk; this one was cut off, or the disk was made smaller than its partitions.",
			"%s, but the disk ends at %d", strings.Join(beyond, ", "), c.Size)
		return
	}
	if !c.has(PartitionTable) {
		partitions := "1 partition"
		if n := len(c.Partitions); n != 1 {
			partitions = fmt.Sprintf("%d partitions", n)
		}
		c.add(PartitionTable, OK, "", "%s with %s", strings.ToUpper(string(c.Table)), partitions)
	}
}

func (c *checker) has(id ID) bool {
	for _, f := range c.Findings {
		if f.ID == id {
			return true
		}
	}
	return false
}

// gptTable is a header of a GPT and its entries.
type gptTable struct {
	backup     uint64 // the sector of the other header
	entries    []byte
	eachLength int
}

// readGPT reads the header in a sector; ok is false if it is none, or damaged.
func readGPT(src *filesystem.Source, sector int64, lba uint64) (t gptTable, ok bool) {
	b := make([]byte, sector)
	if lba > uint64(src.Size()/sector) || src.ReadFull(b, int64(lba)*sector) != nil || string(b[:8]) != "EFI PART" {
		return t, false
	}
	size, sum := le.Uint32(b[12:]), le.Uint32(b[16:])
	if size < 92 || int64(size) > sector {
		return t, false
	}
	clear(b[16:20])
	if crc32.ChecksumIEEE(b[:size]) != sum || le.Uint64(b[24:]) != lba {
		return t, false
	}
	at, n, each := le.Uint64(b[72:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	if n == 0 || n > gptMaxEntries || each < 128 || each > gptMaxEntrySize || n*each > gptMaxTable || at > uint64(src.Size()/sector) {
		return t, false
	}
	t = gptTable{backup: le.Uint64(b[32:]), entries: make([]byte, n*each), eachLength: int(each)}
	if src.ReadFull(t.entries, int64(at)*sector) != nil || crc32.ChecksumIEEE(t.entries) != le.Uint32(b[88:]) {
		return t, false
	}
	return t, true
}

func (c *checker) gpt() {
	var t gptTable
	for _, c.sectorSize = range []int64{diskformat.SectorSize, 4096} {
		var ok bool
		if t, ok = readGPT(c.src, c.sectorSize, 1); ok {
			break
		}
	}
	if len(t.entries) > 0 && c.sectorSize != diskformat.SectorSize {
		c.TableNoted = true
		c.add(PartitionTable, Error, "Start the machine with a disk of 4096-byte sectors (QEMU: logical_block_size=4096), or partition a disk of 512-byte sectors and copy the partitions into it.",
			"the GPT was made for sectors of %d bytes; the disks of images have sectors of 512 bytes, and neither firmware nor kernel finds the table there", c.sectorSize)
	}
	for i, e := 1, t.entries; len(e) >= t.eachLength && len(e) > 0; i, e = i+1, e[t.eachLength:] {
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > last || last >= 1<<50 { // what no disk has, and would overflow
			c.add(PartitionTable, Error, "Repair the partition table (gdisk), then make the image again.",
				"partition %d would go from sector %d to %d", i, first, last)
			continue
		}
		c.Partitions = append(c.Partitions, Partition{
			Number: i, Start: int64(first) * c.sectorSize, Size: int64(last-first+1) * c.sectorSize,
			Type: guid(e[:16]), Name: utf16Text(e[56:128]), UUID: guid(e[16:32]), Active: e[48]&4 != 0,
		})
	}
	const repair = "Run sgdisk -e on the disk, which writes the backup to its end."
	switch _, ok := readGPT(c.src, c.sectorSize, t.backup); {
	case t.backup > uint64(c.Size/c.sectorSize):
		c.add(PartitionTable, Warning, repair, "GPT; its backup would lie at sector %d, beyond the end: the disk was made smaller, or cut off", t.backup)
	case !ok:
		c.add(PartitionTable, Warning, repair, "GPT; its backup at sector %d is damaged or missing", t.backup)
	}
}

func (c *checker) mbr() {
	b := make([]byte, diskformat.SectorSize)
	if c.src.ReadFull(b, 0) != nil {
		return
	}
	disk := le.Uint32(b[440:])
	add := func(number int, e []byte, base int64) (p Partition) {
		p = Partition{
			Number: number, Start: (base + int64(le.Uint32(e[8:]))) * diskformat.SectorSize, Size: int64(le.Uint32(e[12:])) * diskformat.SectorSize,
			Type: fmt.Sprintf("%#02x", e[4]), UUID: fmt.Sprintf("%08x-%02x", disk, number), Active: e[0] == 0x80,
		}
		c.Partitions = append(c.Partitions, p)
		return p
	}
	var extended *Partition
	for i := range 4 {
		e := b[446+16*i:][:16]
		switch kind := e[4]; {
		case kind == 0 || le.Uint32(e[12:]) == 0:
		case kind == mbrProtective:
			c.damagedGPT()
			return
		default:
			p := add(i+1, e, 0)
			if kind == 0x05 || kind == 0x0f || kind == 0x85 {
				extended = &p
			}
		}
	}
	if extended == nil {
		return
	}
	// Logical partitions are a chain: each link holds one, and says where the next
	// link lies, counted from the extended partition's start.
	at := extended.Start
	for number := 5; number < 5+maxLogical; number++ {
		if c.src.ReadFull(b, at) != nil || b[510] != 0x55 || b[511] != 0xaa {
			return
		}
		if e := b[446:462]; e[4] != 0 && le.Uint32(e[12:]) != 0 {
			add(number, e, at/diskformat.SectorSize)
		}
		next := int64(le.Uint32(b[462+8:])) * diskformat.SectorSize
		if b[462+4] == 0 || next == 0 || next >= extended.Size {
			return
		}
		at = extended.Start + next
	}
}

// damagedGPT: the MBR says that there is a GPT, but it could not be read.
func (c *checker) damagedGPT() {
	for _, sector := range []int64{diskformat.SectorSize, 4096} {
		if last := c.Size/sector - 1; last > 1 {
			if _, ok := readGPT(c.src, sector, uint64(last)); ok {
				c.add(PartitionTable, Error, "Run gdisk on the disk: it offers to use the backup. Then make the image again.",
					"the GPT is damaged; its backup at the end of the disk is sound")
				return
			}
		}
	}
	c.add(PartitionTable, Error, "Make the image again from the whole disk, then look with gdisk.",
		"the GPT is damaged, and there is no backup at the end of the disk; the disk may have been cut off")
}

// guid spells a GUID as it lies on disk, the first three groups little-endian.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := le.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
