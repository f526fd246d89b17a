package vmdk

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

var le = binary.LittleEndian

// build writes sparse extents for tests: QEMU makes neither footers nor grains
// of other sizes. What it writes, QEMU reads too (TestQEMUReadsWhatWeBuild).
type build struct {
	disk  []byte
	grain int
	// stream: compressed, with the tables behind their grains and the
	// directory behind all, named by the footer, as VMware writes it.
	stream bool
	// zeroGrains: grains of zeros that follow one another are marked as such.
	zeroGrains bool
	// short: the last grain is cut at the disk's end.
	short bool
	// small: the descriptor has one sector, and no more is left before the
	// grains than it needs.
	small bool
	// noDescriptor: as one of many extents.
	noDescriptor bool
}

// embedded is the descriptor of a sparse extent, padded to n sectors.
func embedded(createType string, sectors, n int) []byte {
	b := make([]byte, n*sectorSize)
	copy(b, fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=%q\n\n"+
		"# Extent description\nRW %d SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n"+
		"ddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"4\"\n", createType, sectors))
	return b
}

func (c build) file() []byte {
	sectors, grainSectors := len(c.disk)/sectorSize, c.grain/sectorSize
	grains := (len(c.disk) + c.grain - 1) / c.grain
	tables := (grains + tableLen - 1) / tableLen

	h := make([]byte, headerSize)
	copy(h, magicHosted)
	version, flags := uint32(1), uint32(flagNewlines)
	if c.zeroGrains {
		version, flags = 2, flags|flagZeroGrain
	}
	if c.stream {
		version, flags = 3, flags|flagCompressed|flagMarkers
		le.PutUint16(h[77:], 1)
	}
	le.PutUint32(h[4:], version)
	le.PutUint32(h[8:], flags)
	le.PutUint64(h[12:], uint64(sectors))
	le.PutUint64(h[20:], uint64(grainSectors))
	le.PutUint32(h[44:], tableLen)
	le.PutUint64(h[64:], 128)
	copy(h[73:], "\n \r\n")
	front, textLen := 128, 20
	if c.small {
		front, textLen = 2, 1
	}
	out := make([]byte, front*sectorSize)
	if !c.noDescriptor {
		le.PutUint64(h[28:], 1)
		le.PutUint64(h[36:], uint64(textLen))
		createType := "monolithicSparse"
		if c.stream {
			createType = "streamOptimized"
		}
		copy(out[sectorSize:], embedded(createType, sectors, textLen))
	}

	pad := func() int {
		out = append(out, make([]byte, -len(out)&(sectorSize-1))...)
		return len(out) / sectorSize
	}
	marker := func(val uint64, kind uint32) {
		m := make([]byte, markerSize)
		le.PutUint64(m, val)
		le.PutUint32(m[12:], kind)
		if c.stream {
			out = append(out, m...)
		}
	}
	gd := make([]byte, (tables*entrySize+sectorSize-1)&^(sectorSize-1))
	for t := range tables {
		gt := make([]byte, tableLen*entrySize)
		used := false
		for i := range tableLen {
			g := t*tableLen + i
			if g >= grains {
				break
			}
			plain := c.disk[g*c.grain : min(len(c.disk), (g+1)*c.grain)]
			if sparse.IsZero(plain) {
				if c.zeroGrains && g%2 == 0 {
					le.PutUint32(gt[i*entrySize:], 1)
					used = true
				}
				continue
			}
			used = true
			le.PutUint32(gt[i*entrySize:], uint32(pad()))
			if !c.short {
				plain = append(bytes.Clone(plain), make([]byte, c.grain-len(plain))...)
			}
			if !c.stream {
				out = append(out, plain...)
				continue
			}
			z := deflated(plain)
			head := make([]byte, grainHead)
			le.PutUint64(head, uint64(g*grainSectors))
			le.PutUint32(head[8:], uint32(len(z)))
			out = append(append(out, head...), z...)
		}
		if used {
			pad()
			marker(4, 1) // grain table
			le.PutUint32(gd[t*entrySize:], uint32(pad()))
			out = append(out, gt...)
		}
	}
	pad()
	marker(uint64(len(gd)/sectorSize), 2) // grain directory
	le.PutUint64(h[56:], uint64(pad()))
	out = append(out, gd...)
	if c.stream {
		marker(1, markerFooter)
		out = append(out, h...)
		marker(0, markerEnd)
		le.PutUint64(h[56:], gdAtEnd)
	}
	copy(out, h)
	return out
}

// victim is a sound file that a test pokes.
type victim struct {
	b      []byte
	header []byte
	footer []byte // of a stream
}

// victimDisk has 5 grains of 64 KiB, the last in part; 1 and 3 are zeros.
var victimDisk = sync.OnceValue(func() []byte {
	d := make([]byte, 4<<16+3*sectorSize)
	for _, g := range []int{0, 2, 4} {
		p := d[g<<16 : min(len(d), (g+1)<<16)]
		disktest.Fill(p, uint64(g))
		p[0] = 1
	}
	return d
})

func newVictim(stream bool) *victim {
	b := build{disk: victimDisk(), grain: 64 << 10, stream: stream}.file()
	v := &victim{b: b, header: b[:headerSize]}
	if stream {
		v.footer = b[len(b)-2*sectorSize : len(b)-sectorSize]
	}
	return v
}

func set32(off int, x uint32) func(v *victim) {
	return func(v *victim) { le.PutUint32(v.header[off:], x) }
}

func set64(off int, x uint64) func(v *victim) {
	return func(v *victim) { le.PutUint64(v.header[off:], x) }
}

// gd and gt are the directory and the only table.
func (v *victim) gd() []byte {
	h := v.header
	if v.footer != nil {
		h = v.footer
	}
	return v.b[le.Uint64(h[56:])*sectorSize:]
}

func (v *victim) gt() []byte { return v.b[le.Uint32(v.gd())*sectorSize:] }

func (v *victim) grain(i int) []byte { return v.b[le.Uint32(v.gt()[i*entrySize:])*sectorSize:] }

// text replaces the descriptor.
func text(old, new string) func(v *victim) {
	return func(v *victim) {
		d := v.b[sectorSize : 21*sectorSize]
		t := bytes.TrimRight(d, "\x00")
		if !bytes.Contains(t, []byte(old)) {
			panic("nothing to replace")
		}
		t = bytes.Replace(t, []byte(old), []byte(new), 1)
		clear(d)
		copy(d, t)
	}
}

// files is a folder in memory.
type files map[string][]byte

func (m files) open(name string) (io.ReaderAt, int64, error) {
	b, ok := m[name]
	if !ok {
		return nil, 0, os.ErrNotExist
	}
	return bytes.NewReader(b), int64(len(b)), nil
}

func openBytes(b []byte) (*File, error) { return Open(bytes.NewReader(b), int64(len(b)), nil) }

func mustOpen(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := openBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func deflated(p []byte) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(p)
	w.Close()
	return z.Bytes()
}
