package diskformat

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// PartitionTable is the kind of a disk's partition table.
type PartitionTable string

// The kinds of partition tables that are looked for.
const (
	NoTable PartitionTable = "none"
	MBR     PartitionTable = "mbr"
	GPT     PartitionTable = "gpt"
)

// Hints tell how a disk may want to be booted. They are hints: a disk with
// neither flag may boot, one with both may not.
type Hints struct {
	// Table is GPT only if the primary header's and the entries' checksums
	// hold; a damaged GPT shows as the MBR that protects it.
	Table PartitionTable
	// Partitions is the number of entries in use; for MBR, primary ones.
	Partitions int
	// EFISystem: there is an EFI system partition, so UEFI firmware may boot.
	EFISystem bool
	// BIOSBoot: there is a BIOS boot partition or one marked bootable for
	// BIOS firmware.
	BIOSBoot bool
	// LargeSectors: the GPT was made for sectors of 4096 bytes. Firmware that sees
	// sectors of 512 bytes finds no table; see [LargeSectors].
	LargeSectors bool
	// CutOff: a partition or the table's backup lies beyond the disk's end.
	CutOff bool
}

// Limits and positions of a GPT, from the UEFI specification, chapter 5. It
// sets no upper bounds on entries; tools write 128 of 128 bytes.
const (
	gptMaxEntries   = 1024
	gptMaxEntrySize = 4096
	gptMaxTable     = 256 << 10
)

// GUIDs as they lie on disk, the first three groups little-endian.
var (
	guidEFISystem = [16]byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	guidBIOSBoot  = [16]byte{0x48, 0x61, 0x68, 0x21, 0x49, 0x64, 0x6f, 0x6e, 0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49}
)

// ReadHints looks at the partition table of a disk of size bytes. It reads the
// first 64 KiB and, for a GPT whose entries lie beyond, once more (at most
// 256 KiB). A table that makes no sense is no table, not an error.
func ReadHints(disk io.ReaderAt, size int64) (Hints, error) {
	if size < 0 {
		return Hints{}, fmt.Errorf("reading the partition table: the size %d is negative", size)
	}
	room := heads.Get().(*[headSize]byte)
	defer heads.Put(room)
	front := room[:min(size, headSize)]
	if err := ReadFull(disk, front, 0); err != nil {
		return Hints{}, fmt.Errorf("reading the partition table: %w", err)
	}
	return readHints(disk, size, front)
}

// heads are where fronts of disks are read to; nothing of them is kept.
var heads = sync.Pool{New: func() any { return new([headSize]byte) }}

func readHints(r io.ReaderAt, size int64, front []byte) (Hints, error) {
	mbr, ok := parseMBR(front, size)
	if !ok {
		mbr = Hints{Table: NoTable}
	}
	for _, sector := range []int64{SectorSize, 4096} {
		h, ok, err := readGPT(r, size, front, sector)
		if err != nil {
			return Hints{}, err
		}
		if ok {
			// A hybrid or legacy set-up marks the MBR entry active.
			h.BIOSBoot = h.BIOSBoot || mbr.BIOSBoot
			return h, nil
		}
	}
	return mbr, nil
}

// parseMBR reads the four entries at 446. A boot sector of a file system ends
// in the same 55 AA; what tells it apart is that its bytes make no entries.
func parseMBR(front []byte, size int64) (Hints, bool) {
	if len(front) < SectorSize || front[510] != 0x55 || front[511] != 0xaa {
		return Hints{}, false
	}
	h := Hints{Table: MBR}
	for i := range 4 {
		e := front[446+16*i:][:16]
		status, kind := e[0], e[4]
		start, count := int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
		if status != 0 && status != 0x80 {
			return Hints{}, false
		}
		if kind == 0 || count == 0 {
			continue
		}
		if start == 0 || start >= (size+SectorSize-1)/SectorSize {
			return Hints{}, false
		}
		h.Partitions++
		h.EFISystem = h.EFISystem || kind == 0xef
		h.BIOSBoot = h.BIOSBoot || status == 0x80
		h.CutOff = h.CutOff || kind != 0xee && start+count > (size+SectorSize-1)/SectorSize // 0xee stands for a GPT, of whatever size
	}
	return h, h.Partitions > 0
}

// readGPT reads the primary table of a disk with the given sector size.
func readGPT(r io.ReaderAt, size int64, front []byte, sector int64) (Hints, bool, error) {
	if int64(len(front)) < 2*sector {
		return Hints{}, false, nil
	}
	head := front[sector : 2*sector]
	if string(head[:8]) != "EFI PART" {
		return Hints{}, false, nil
	}
	le := binary.LittleEndian
	headLen, headCRC := le.Uint32(head[12:]), le.Uint32(head[16:])
	if headLen < 92 || int64(headLen) > sector {
		return Hints{}, false, nil
	}
	sum := make([]byte, headLen)
	copy(sum, head)
	clear(sum[16:20]) // the checksum counts as zero in itself
	if crc32.ChecksumIEEE(sum) != headCRC || le.Uint64(head[24:]) != 1 {
		return Hints{}, false, nil
	}
	lba, n, each, tableCRC := le.Uint64(head[72:]), le.Uint32(head[80:]), le.Uint32(head[84:]), le.Uint32(head[88:])
	if n == 0 || n > gptMaxEntries || each < 128 || each > gptMaxEntrySize || each%128 != 0 || n*each > gptMaxTable {
		return Hints{}, false, nil
	}
	table := int64(n) * int64(each)
	if lba < 2 || lba > uint64(size/sector) || int64(lba)*sector > size-table {
		return Hints{}, false, nil
	}
	off := int64(lba) * sector
	var entries []byte
	if off+table <= int64(len(front)) {
		entries = front[off : off+table]
	} else {
		entries = make([]byte, table)
		if err := ReadFull(r, entries, off); err != nil {
			return Hints{}, false, fmt.Errorf("reading the partition entries: %w", err)
		}
	}
	if crc32.ChecksumIEEE(entries) != tableCRC {
		return Hints{}, false, nil
	}
	sectors := uint64(size / sector)
	h := Hints{Table: GPT, LargeSectors: sector != 512, CutOff: le.Uint64(head[32:]) >= sectors}
	for e := entries; len(e) >= int(each); e = e[each:] {
		kind := [16]byte(e[:16])
		if kind == ([16]byte{}) {
			continue
		}
		h.Partitions++
		h.EFISystem = h.EFISystem || kind == guidEFISystem
		// Attribute bit 2: legacy BIOS bootable.
		h.BIOSBoot = h.BIOSBoot || kind == guidBIOSBoot || e[48]&4 != 0
		h.CutOff = h.CutOff || le.Uint64(e[40:]) >= sectors
	}
	return h, true, nil
}
