package bitmap

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash"
	"io"
	"math/bits"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/ims"
)

// Bounds of a block map. bmaptool writes the file system's block size, mostly
// 4096, and about 100 bytes for a range, so that MaxRead holds some 30000.
const (
	bmapMaxRanges = 1 << 16
	bmapMaxValues = 32
	bmapMinBlock  = 512
	bmapMaxBlock  = 64 << 20
	bmapMaxDepth  = 4
	bmapMaxText   = 256 // of one value
)

type hasher = hash.Hash

// bmapHashes are the checksum types that are verified.
var bmapHashes = map[string]func() hasher{
	"sha1":   sha1.New,
	"sha224": sha256.New224,
	"sha256": sha256.New,
	"sha384": sha512.New384,
	"sha512": sha512.New,
}

// bmapRange is a mapped range of the disk, in bytes. sum is nil if the map has
// none for it.
type bmapRange struct {
	off, length int64
	sum         []byte
}

// bmapText is the text of an element and where it lies in the file.
type bmapText struct {
	text       string
	start, end int64
}

// bmapXML is a block map as it is written, before anything is checked.
type bmapXML struct {
	version string
	values  map[string]bmapText // of the elements directly below the root
	ranges  []bmapXMLRange
}

// bmapXMLRange is a range with its attribute chksum or, until 1.3, sha1.
type bmapXMLRange struct{ text, sum string }

func corruptBMAP(field, problem string, args ...any) error {
	return diskformat.Errorf(formatBMAP, diskformat.ErrCorrupt, field, problem, args...)
}

// parseBMAP reads a block map. XML with another root, a version without a
// checksum of itself and a type of checksum that is not known give a map of
// kind Unknown.
func parseBMAP(b []byte, imageSize int64) (*Map, error) {
	x, isBMAP, err := decodeBMAP(b)
	if !isBMAP {
		return newUnknown(imageSize, "it is neither a map of ours nor a block map"), nil
	}
	if err != nil {
		return nil, err
	}
	// Version 1.3 brought a checksum of the file, SHA-1; 1.4 and 2.0 name its
	// type and call all checksums by neutral names.
	major, minor, ok := strings.Cut(x.version, ".")
	ma, err1 := strconv.ParseUint(major, 10, 16)
	mi, err2 := strconv.ParseUint(minor, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return nil, corruptBMAP("bmap version", "it is %q, right is MAJOR.MINOR", ims.Clip(x.version))
	}
	sumField, sumType := "BmapFileChecksum", x.values["ChecksumType"].text
	switch {
	case ma == 1 && mi == 3:
		sumField, sumType = "BmapFileSHA1", "sha1"
	case ma == 1 && mi < 3 || ma == 0:
		return newUnknown(imageSize, fmt.Sprintf("it is a block map of version %s, which has no checksum of itself", x.version)), nil
	case ma > 2:
		return newUnknown(imageSize, fmt.Sprintf("it is a block map of version %s, versions 1.3 to 2 are read", x.version)), nil
	}
	hash, ok := bmapHashes[strings.ToLower(sumType)]
	if !ok {
		return newUnknown(imageSize, fmt.Sprintf("it is a block map with checksums of type %q, which is not known", ims.Clip(sumType))), nil
	}
	if err := x.checkSum(b, sumField, hash()); err != nil {
		return nil, err
	}
	return x.build(imageSize, hash)
}

// checkSum verifies the checksum of the file, in which it counts as so many
// ASCII zeros.
func (x *bmapXML) checkSum(b []byte, field string, h hasher) error {
	v, ok := x.values[field]
	if !ok {
		return corruptBMAP(field, "it is missing")
	}
	want, err := hex.DecodeString(v.text)
	if err != nil || len(want) != h.Size() {
		return corruptBMAP(field, "it is %q, right are %d hexadecimal digits", ims.Clip(v.text), 2*h.Size())
	}
	raw := b[v.start:v.end]
	at := bytes.Index(raw, []byte(v.text))
	if at < 0 {
		return corruptBMAP(field, "it is not written plainly")
	}
	start := v.start + int64(at)
	h.Write(b[:start])
	h.Write(bytes.Repeat([]byte("0"), len(v.text)))
	h.Write(b[start+int64(len(v.text)):])
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return corruptBMAP(field, "it is %x, the file's bytes make %x", want, got)
	}
	return nil
}

func (x *bmapXML) number(field string) (int64, error) {
	v, ok := x.values[field]
	if !ok {
		return 0, corruptBMAP(field, "it is missing")
	}
	n, err := strconv.ParseUint(v.text, 10, 63)
	if err != nil {
		return 0, corruptBMAP(field, "it is %q, right is a decimal number below 2^63", ims.Clip(v.text))
	}
	return int64(n), nil
}

// build checks the content of a block map whose own checksum holds, and makes
// the map of it. A block of ours holds data if any of it is mapped.
func (x *bmapXML) build(imageSize int64, hash func() hasher) (*Map, error) {
	var n [4]int64
	for i, field := range []string{"ImageSize", "BlockSize", "BlocksCount", "MappedBlocksCount"} {
		var err error
		if n[i], err = x.number(field); err != nil {
			return nil, err
		}
	}
	size, block, count, mapped := n[0], n[1], n[2], n[3]
	if size != imageSize {
		return nil, mismatch(formatBMAP, "ImageSize", size, imageSize)
	}
	if block < bmapMinBlock || block > bmapMaxBlock || bits.OnesCount64(uint64(block)) != 1 {
		return nil, corruptBMAP("BlockSize", "it is %d, right is a power of two from %d to %d", block, bmapMinBlock, bmapMaxBlock)
	}
	if want := (size + block - 1) / block; count != want {
		return nil, corruptBMAP("BlocksCount", "it is %d, ImageSize and BlockSize make %d", count, want)
	}
	m := &Map{kind: BMAP, size: size, data: bitset.New(blocks(size)), hash: hash}
	m.ranges = make([]bmapRange, 0, len(x.ranges))
	next, sum, sumSize := int64(0), int64(0), hash().Size()
	for i, r := range x.ranges {
		field := func() string { return fmt.Sprintf("Range %d", i) }
		first, last, err := parseRange(r.text)
		if err != nil {
			return nil, corruptBMAP(field(), "it is %q, right is FIRST-LAST or one number", ims.Clip(r.text))
		}
		if first < next || last < first || last >= count {
			return nil, corruptBMAP(field(), "it is %q, right is ascending from %d to at most %d", ims.Clip(r.text), next, count-1)
		}
		next, sum = last+1, sum+last-first+1
		out := bmapRange{off: first * block, length: min(size, (last+1)*block) - first*block}
		if r.sum != "" {
			if out.sum, err = hex.DecodeString(r.sum); err != nil || len(out.sum) != sumSize {
				return nil, corruptBMAP(field(), "its checksum is %q, right are %d hexadecimal digits", ims.Clip(r.sum), 2*sumSize)
			}
		}
		m.ranges = append(m.ranges, out)
		m.data.AddRange(uint32(out.off/BlockSize), uint32((out.off+out.length-1)/BlockSize)+1)
	}
	if sum != mapped {
		return nil, corruptBMAP("MappedBlocksCount", "it is %d, the ranges have %d", mapped, sum)
	}
	m.data.Index()
	return m, nil
}

func parseRange(s string) (first, last int64, err error) {
	a, b, two := strings.Cut(s, "-")
	u, err := strconv.ParseUint(strings.TrimSpace(a), 10, 63)
	if err != nil || !two {
		return int64(u), int64(u), err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(b), 10, 63)
	return int64(u), int64(v), err
}

// decodeBMAP reads the XML by tokens: no document type, no entities but XML's
// own five, no depth. isBMAP tells whether its root is a block map's.
func decodeBMAP(b []byte) (x *bmapXML, isBMAP bool, err error) {
	x = &bmapXML{values: make(map[string]bmapText)}
	d := xml.NewDecoder(bytes.NewReader(b))
	broken := func(err error) (*bmapXML, bool, error) {
		return nil, isBMAP, corruptBMAP("XML", "%v", err)
	}
	var path []string
	var text []byte
	var start, end int64
	var sum string
	for {
		tok, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return broken(err)
		}
		switch t := tok.(type) {
		case xml.Directive:
			return broken(fmt.Errorf("it has a document type or another directive, a block map has none"))
		case xml.StartElement:
			if len(path) == 0 {
				if isBMAP || t.Name.Local != "bmap" || t.Name.Space != "" {
					return broken(fmt.Errorf("it has the root %q", ims.Clip(t.Name.Local)))
				}
				isBMAP = true
				x.version = strings.TrimSpace(attr(t, "version"))
			}
			if len(path) == bmapMaxDepth {
				return broken(fmt.Errorf("its elements lie deeper than %d", bmapMaxDepth))
			}
			path = append(path, t.Name.Local)
			text, start, end = text[:0], d.InputOffset(), d.InputOffset()
			if sum = attr(t, "chksum"); sum == "" {
				sum = attr(t, "sha1")
			}
		case xml.CharData:
			if len(text)+len(t) > bmapMaxText && len(bytes.TrimSpace(t)) > 0 {
				return broken(fmt.Errorf("a value has more than %d bytes", bmapMaxText))
			}
			if len(text)+len(t) <= bmapMaxText {
				text, end = append(text, t...), d.InputOffset()
			}
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != t.Name.Local {
				return broken(fmt.Errorf("the element %q ends where it did not begin", ims.Clip(t.Name.Local)))
			}
			value := string(bytes.TrimSpace(text))
			switch {
			case len(path) == 2 && t.Name.Local != "BlockMap":
				if _, twice := x.values[t.Name.Local]; twice {
					return broken(fmt.Errorf("the element %q is there twice", ims.Clip(t.Name.Local)))
				}
				if len(x.values) == bmapMaxValues {
					return broken(fmt.Errorf("it has more than %d values", bmapMaxValues))
				}
				x.values[t.Name.Local] = bmapText{value, start, end}
			case len(path) == 3 && path[1] == "BlockMap" && t.Name.Local == "Range":
				if len(x.ranges) == bmapMaxRanges {
					return broken(fmt.Errorf("it has more than %d ranges", bmapMaxRanges))
				}
				x.ranges = append(x.ranges, bmapXMLRange{value, sum})
			}
			path, text = path[:len(path)-1], text[:0]
		}
	}
	if len(path) != 0 {
		return broken(fmt.Errorf("it ends within the element %q", ims.Clip(path[len(path)-1])))
	}
	return x, isBMAP, nil
}

func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// verifyRanges compares the disk with the checksums of the mapped ranges.
func (m *Map) verifyRanges(ctx context.Context, src io.ReaderAt, opts Options) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.concurrency())
	var mu sync.Mutex
	done, checked := int64(0), false
	for _, r := range m.ranges {
		if r.sum == nil {
			continue
		}
		checked = true
		g.Go(func() error {
			h, buf := m.hash(), make([]byte, min(r.length, BlockSize))
			for at := int64(0); at < r.length; {
				if err := ctx.Err(); err != nil {
					return err
				}
				p := buf[:min(int64(len(buf)), r.length-at)]
				if err := diskformat.ReadFull(src, p, r.off+at); err != nil {
					return err
				}
				h.Write(p)
				at += int64(len(p))
				if opts.Progress != nil {
					mu.Lock()
					done += int64(len(p))
					opts.Progress(min(done, m.size), m.size)
					mu.Unlock()
				}
			}
			if got := h.Sum(nil); !bytes.Equal(got, r.sum) {
				return diskformat.Errorf(formatBMAP, diskformat.ErrMismatch, fmt.Sprintf("bytes %d to %d", r.off, r.off+r.length),
					"their checksum on the disk is %x, in the map %x", got, r.sum)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if !checked && len(m.ranges) > 0 {
		return ErrUnverifiable
	}
	if opts.Progress != nil && done < m.size {
		opts.Progress(m.size, m.size)
	}
	return nil
}
