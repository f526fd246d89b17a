package vhdx

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/quickims/quickims/internal/diskformat"
)

// The metadata region, from [MS-VHDX] 2.6: a table and, after it, the items.
const (
	metadataTable = 64 << 10
	maxItems      = 2047
	maxItem       = 1 << 20 // length of an item
)

// Flags of an item.
const (
	itemUser     = 1 << 0
	itemRequired = 1 << 2
)

// Limits of a disk, from [MS-VHDX] 2.6.2.
const (
	// MaxSize is the greatest virtual disk: 64 TiB.
	MaxSize = 64 << 40
	// MinBlockSize and MaxBlockSize bound the unit of allocation.
	MinBlockSize = 1 << 20
	MaxBlockSize = 256 << 20
)

// The items, and how long each is. A parent locator is as long as it needs.
var (
	itemFileParameters = parseGUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
	itemDiskSize       = parseGUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
	itemDiskID         = parseGUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
	itemLogicalSector  = parseGUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
	itemPhysicalSector = parseGUID("CDA348C7-445D-4471-9CC9-E9885251C556")
	itemParentLocator  = parseGUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
)

var items = []struct {
	id   guid
	name string
	size uint32
}{
	{itemFileParameters, "File Parameters", 8},
	{itemDiskSize, "Virtual Disk Size", 8},
	{itemDiskID, "Virtual Disk ID", 16},
	{itemLogicalSector, "Logical Sector Size", 4},
	{itemPhysicalSector, "Physical Sector Size", 4},
}

// metadata is what counts of the items.
type metadata struct {
	blockSize      int64
	leaveAllocated bool // the disk is of fixed size
	size           int64
	logicalSector  int64
	physicalSector int64
}

// readMetadata reads the table at region, to where metadataTable bytes may be
// overwritten, and the items that it lists. size is the file's.
func readMetadata(r io.ReaderAt, size int64, at region, table []byte) (*metadata, error) {
	if at.off > size-metadataTable {
		return nil, incomplete("metadata table", "%d bytes at %d lie beyond the file's %d", metadataTable, at.off, size)
	}
	if err := diskformat.ReadFull(r, table, at.off); err != nil {
		return nil, fmt.Errorf("reading the metadata table: %w", err)
	}
	found, err := findItems(table, at)
	if err != nil {
		return nil, err
	}
	value := make(map[guid][]byte, len(items))
	for _, i := range items {
		where, ok := found[i.id]
		if !ok {
			return nil, corrupt("metadata", "there is no %s (%s)", i.name, i.id)
		}
		if where.size != int64(i.size) {
			return nil, corrupt("metadata."+i.name, "it has %d bytes; right is %d", where.size, i.size)
		}
		if where.off > size-where.size {
			return nil, incomplete("metadata."+i.name, "it lies at %d, beyond the file's %d bytes", where.off, size)
		}
		b := make([]byte, i.size)
		if err := diskformat.ReadFull(r, b, where.off); err != nil {
			return nil, fmt.Errorf("reading the metadata: %w", err)
		}
		value[i.id] = b
	}
	_, parent := found[itemParentLocator]
	return parseItems(value, parent)
}

// findItems reads the metadata table: where in the file each item lies.
func findItems(b []byte, at region) (map[guid]region, error) {
	le := binary.LittleEndian
	if string(b[:8]) != "metadata" {
		return nil, corrupt("metadata table.Signature", "it is %q; right is %q", b[:8], "metadata")
	}
	n := le.Uint16(b[10:])
	if n > maxItems {
		return nil, corrupt("metadata table.EntryCount", "it is %d, at most %d fit", n, maxItems)
	}
	known := map[guid]bool{itemParentLocator: true}
	for _, i := range items {
		known[i.id] = true
	}
	found := make(map[guid]region)
	for e := b[32 : 32+32*int(n)]; len(e) > 0; e = e[32:] {
		id := guid(e[:16])
		off, size, flags := le.Uint32(e[16:]), le.Uint32(e[20:]), le.Uint32(e[24:])
		// The user's items are named apart from the format's.
		if flags&itemUser != 0 || !known[id] {
			if flags&itemRequired != 0 {
				return nil, unsupported("metadata table", "the item %s must be understood to read the disk, and is not known here", id)
			}
			continue
		}
		if _, twice := found[id]; twice {
			return nil, corrupt("metadata table", "the item %s is listed twice", id)
		}
		if size > maxItem {
			return nil, corrupt("metadata table.Length", "the item %s has %d bytes; at most 1 MiB is right", id, size)
		}
		if off < metadataTable || int64(off)+int64(size) > at.size {
			return nil, corrupt("metadata table.Offset", "the item %s, %d bytes at %d, lies not between the table and the region's end at %d", id, size, off, at.size)
		}
		found[id] = region{off: at.off + int64(off), size: int64(size)}
	}
	return found, nil
}

func parseItems(value map[guid][]byte, parent bool) (*metadata, error) {
	le := binary.LittleEndian
	p := value[itemFileParameters]
	block, flags := le.Uint32(p), le.Uint32(p[4:])
	if bits.OnesCount32(block) != 1 || block < MinBlockSize || block > MaxBlockSize {
		return nil, corrupt("metadata.File Parameters.BlockSize", "it is %d; right is a power of two from 1 MiB to 256 MiB", block)
	}
	if flags&2 != 0 || parent {
		return nil, unsupported("metadata.File Parameters.HasParent", "the file holds only what differs from a parent disk; "+
			"merge the checkpoint, or export the virtual machine, and use the disk that results")
	}
	if flags&^3 != 0 {
		return nil, corrupt("metadata.File Parameters", "the reserved bits %#x are set", flags&^3)
	}
	m := &metadata{blockSize: int64(block), leaveAllocated: flags&1 != 0}
	for _, s := range []struct {
		id   guid
		name string
		to   *int64
	}{{itemLogicalSector, "Logical Sector Size", &m.logicalSector}, {itemPhysicalSector, "Physical Sector Size", &m.physicalSector}} {
		n := le.Uint32(value[s.id])
		if n != 512 && n != 4096 {
			return nil, corrupt("metadata."+s.name, "it is %d; right is 512 or 4096", n)
		}
		*s.to = int64(n)
	}
	size := le.Uint64(value[itemDiskSize])
	switch {
	case size > MaxSize:
		return nil, unsupported("metadata.Virtual Disk Size", "it is %d; at most 64 TiB are read", size)
	case size == 0 || size%uint64(m.logicalSector) != 0:
		return nil, corrupt("metadata.Virtual Disk Size", "it is %d; right is a multiple of the logical sector's %d bytes", size, m.logicalSector)
	}
	m.size = int64(size)
	return m, nil
}
