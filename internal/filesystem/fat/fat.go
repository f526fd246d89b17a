// Package fat reads FAT12, FAT16 and FAT32 file systems with long names, as EFI
// system partitions have them.
//
// The format is described in Microsoft's "FAT: General Overview of On-Disk
// Format" 1.03, which the UEFI specification refers to; the names of fields in
// comments are those of that text.
package fat

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
)

var le = binary.LittleEndian

// Volume is a FAT file system. It implements [filesystem.Volume]; the number of
// a node is the byte at which its directory entry lies, of the root 0.
type Volume struct {
	src  *filesystem.Source
	info filesystem.Info

	bits        int // of an entry of the allocation table: 12, 16 or 32
	clusterSize int64
	clusters    uint32 // numbered from 2 on
	table       int64  // byte of the first allocation table
	data        int64  // byte of cluster 2
	rootAt      int64  // byte and length of the root directory of FAT12 and FAT16
	rootSize    int64
	rootCluster uint32 // of FAT32

	room filesystem.Room // for directories
}

// bootSector is what the first sector says, checked for sense.
type bootSector struct {
	sector, perCluster, reserved, tables, rootEntries, tableSectors, sectors int64
}

// parseBoot reads the BIOS parameter block. A boot sector has little that marks
// it, so all its fields must make sense together.
func parseBoot(b []byte) (bootSector, error) {
	s := bootSector{
		sector: int64(le.Uint16(b[11:])), perCluster: int64(b[13]), reserved: int64(le.Uint16(b[14:])),
		tables: int64(b[16]), rootEntries: int64(le.Uint16(b[17:])),
		tableSectors: int64(le.Uint16(b[22:])), sectors: int64(le.Uint16(b[19:])),
	}
	if s.tableSectors == 0 {
		s.tableSectors = int64(le.Uint32(b[36:])) // BPB_FATSz32
	}
	if s.sectors == 0 {
		s.sectors = int64(le.Uint32(b[32:])) // BPB_TotSec32
	}
	power := func(n, low, high int64) bool { return n >= low && n <= high && n&(n-1) == 0 }
	switch {
	case b[510] != 0x55 || b[511] != 0xaa:
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "it does not end in 55 AA")
	case b[0] != 0xeb && b[0] != 0xe9:
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "it does not begin with a jump")
	case !power(s.sector, 512, 4096):
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "BPB_BytsPerSec is %d", s.sector)
	case !power(s.perCluster, 1, 128):
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "BPB_SecPerClus is %d", s.perCluster)
	case s.reserved == 0:
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "BPB_RsvdSecCnt is 0")
	case s.tables == 0 || s.tables > 4:
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "BPB_NumFATs is %d", s.tables)
	case b[21] != 0xf0 && b[21] < 0xf8:
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "BPB_Media is %#x", b[21])
	case s.tableSectors == 0 || s.sectors == 0:
		return s, filesystem.Errorf(filesystem.ErrCorrupt, "it has no sectors or no allocation table")
	}
	return s, nil
}

// Detect reports whether the volume begins as FAT does.
func Detect(src *filesystem.Source) bool {
	b := make([]byte, 512)
	if src.ReadFull(b, 0) != nil {
		return false
	}
	_, err := parseBoot(b)
	return err == nil
}

// Open reads the boot sector and checks it against the size of src.
func Open(src *filesystem.Source) (*Volume, error) {
	v, err := open(src)
	if err != nil {
		return nil, fmt.Errorf("the FAT boot sector: %w", err)
	}
	return v, nil
}

func open(src *filesystem.Source) (*Volume, error) {
	b := make([]byte, 512)
	if err := src.ReadFull(b, 0); err != nil {
		return nil, err
	}
	s, err := parseBoot(b)
	if err != nil {
		return nil, err
	}
	rootSectors := (s.rootEntries*entrySize + s.sector - 1) / s.sector
	dataSector := s.reserved + s.tables*s.tableSectors + rootSectors
	switch {
	case s.sectors > src.Size()/s.sector:
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "it has %d sectors of %d bytes, its partition has room for %d", s.sectors, s.sector, src.Size()/s.sector)
	case dataSector >= s.sectors:
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "its data would begin at sector %d of %d", dataSector, s.sectors)
	}
	clusters := (s.sectors - dataSector) / s.perCluster
	v := &Volume{
		src: src, clusterSize: s.perCluster * s.sector, clusters: uint32(clusters),
		table: s.reserved * s.sector, data: dataSector * s.sector,
		rootAt: (s.reserved + s.tables*s.tableSectors) * s.sector, rootSize: s.rootEntries * entrySize,
	}
	extended := b[38:] // BS_BootSig and what follows
	switch {           // the limits are the text's own, to the number
	case clusters < 4085:
		v.bits = 12
	case clusters < 65525:
		v.bits = 16
	default:
		v.bits = 32
	}
	if s.rootEntries == 0 { // FAT32; small ones made by mkfs.vfat -F 32 too
		v.bits = 32
		v.rootCluster, extended = le.Uint32(b[44:]), b[66:]
		if clusters > 1<<28-16 {
			return nil, filesystem.Errorf(filesystem.ErrCorrupt, "it has %d clusters", clusters)
		}
	} else if v.bits == 32 {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "BPB_RootEntCnt is %d with %d clusters", s.rootEntries, clusters)
	}
	if need := ((clusters+2)*int64(v.bits) + 7) / 8; need > s.tableSectors*s.sector {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "its allocation table has %d bytes, %d clusters need %d", s.tableSectors*s.sector, clusters, need)
	}
	v.info.Type = "vfat"
	if extended[0] == 0x28 || extended[0] == 0x29 {
		id := le.Uint32(extended[1:])
		v.info.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	}
	if extended[0] == 0x29 {
		if label := strings.TrimRight(string(extended[5:16]), " \x00"); label != "NO NAME" {
			v.info.Label = strings.ToValidUTF8(label, "\ufffd")
		}
	}
	return v, nil
}

// Info implements [filesystem.Volume]. The label is the boot sector's.
func (v *Volume) Info() filesystem.Info { return v.info }

// Root implements [filesystem.Volume].
func (v *Volume) Root() uint64 { return 0 }

// SameName implements [filesystem.Volume]: upper and lower case are the same.
func (v *Volume) SameName(asked, entry string) bool { return strings.EqualFold(asked, entry) }

// next reads a cluster's entry in the allocation table; more is false at the end
// of a chain.
func (v *Volume) next(cluster uint32) (next uint32, more bool, err error) {
	var b [4]byte
	switch v.bits {
	case 12:
		err = v.src.ReadFull(b[:2], v.table+int64(cluster)*3/2)
		next = uint32(le.Uint16(b[:]))
		if cluster&1 != 0 {
			next >>= 4
		}
		next &= 0xfff
		more = next < 0xff8
	case 16:
		err = v.src.ReadFull(b[:2], v.table+int64(cluster)*2)
		next = uint32(le.Uint16(b[:]))
		more = next < 0xfff8
	case 32:
		err = v.src.ReadFull(b[:], v.table+int64(cluster)*4)
		next = le.Uint32(b[:]) & 0x0fffffff
		more = next < 0x0ffffff8
	}
	if err != nil {
		return 0, false, fmt.Errorf("the allocation table: %w", err)
	}
	if more {
		err = v.valid(next)
	}
	return next, more, err
}

func (v *Volume) valid(cluster uint32) error {
	if cluster < 2 || cluster-2 >= v.clusters {
		return filesystem.Errorf(filesystem.ErrCorrupt, "a chain leads to cluster %d, they have numbers from 2 to %d", cluster, v.clusters+1)
	}
	return nil
}

// readChain fills p from off of the chain that begins at a cluster.
func (v *Volume) readChain(cluster uint32, p []byte, off int64) error {
	if err := v.valid(cluster); err != nil {
		return err
	}
	skip := off / v.clusterSize
	for steps := int64(0); len(p) > 0; steps++ {
		if steps > int64(v.clusters) {
			return filesystem.Errorf(filesystem.ErrCorrupt, "a chain of clusters leads back to itself")
		}
		if steps >= skip {
			within := off % v.clusterSize
			part := p[:min(int64(len(p)), v.clusterSize-within)]
			if err := v.src.ReadFull(part, v.data+int64(cluster-2)*v.clusterSize+within); err != nil {
				return err
			}
			p, off = p[len(part):], off+int64(len(part))
			if len(p) == 0 {
				return nil
			}
		}
		next, more, err := v.next(cluster)
		if err != nil {
			return err
		}
		if !more {
			return filesystem.Errorf(filesystem.ErrCorrupt, "a chain of clusters ends %d bytes too early", len(p))
		}
		cluster = next
	}
	return nil
}
