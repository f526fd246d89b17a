package vmdk

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a descriptor. The format sets none; VMware's own are below 10 KiB,
// and a disk in files of 2 GiB has one line for each.
const (
	maxDescriptor = 1 << 20
	// MaxExtents is how many extents a disk may have.
	MaxExtents = 1024
)

const descriptorTitle = "# disk descriptorfile" // in lower case

// noParent in parentCID says that the disk is whole.
const noParent = 1<<32 - 1

// Kinds of extents that are read.
type kind int

const (
	flat kind = iota
	sparseHosted
	zero
)

// line is one extent of a descriptor.
type line struct {
	size int64 // in bytes
	kind kind
	file string // of flat and sparse: a plain name
	off  int64  // of flat: where in the file, in bytes
}

// descriptor is what counts of the text that describes a disk.
type descriptor struct {
	// encoding is what it was written in, if that was not UTF-8 and mattered.
	encoding   string
	createType string
	extents    []line
	size       int64 // of all extents
}

// createTypes are those that are read, in lower case. What the extents are,
// their own lines say.
var createTypes = map[string]bool{
	"monolithicsparse":     true,
	"streamoptimized":      true,
	"monolithicflat":       true,
	"twogbmaxextentsparse": true,
	"twogbmaxextentflat":   true,
	"vmfs":                 true, // of ESXi: a flat file
	"vmfsthin":             true,
	"vmfspreallocated":     true,
	"vmfseagerzeroedthick": true,
	"custom":               true,
}

// notRead explains the createTypes and extent types that are known but not
// read, in lower case.
var notRead = map[string]string{
	"vmfssparse":                  deltaHelp,
	"vsansparse":                  deltaHelp,
	"sesparse":                    deltaHelp,
	"fulldevice":                  deviceHelp,
	"partitioneddevice":           deviceHelp,
	"vmfsraw":                     deviceHelp,
	"vmfsrdm":                     deviceHelp,
	"vmfsrawdevicemap":            deviceHelp,
	"vmfspassthroughrawdevicemap": deviceHelp,
}

const (
	deltaHelp = "it belongs to a snapshot; delete the machine's snapshots (which merges them) " +
		"or export the disk (vmkfstools -i, OVF), then use that"
	deviceHelp = "its data is on a device, not in a file; read the device itself as raw"
)

// parseDescriptor reads and checks a descriptor. It ends at its first NUL.
// Keys and types are compared without regard to case.
func parseDescriptor(text []byte) (*descriptor, error) {
	text, _, _ = bytes.Cut(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), []byte{0})
	d := &descriptor{}
	var err error
	if text, d.encoding, err = decode(text); err != nil {
		return nil, err
	}
	titled := false
	seen := map[string]string{}
	for n := 1; len(text) > 0; n++ {
		var raw []byte
		raw, text, _ = bytes.Cut(text, []byte("\n"))
		s := strings.TrimSpace(string(raw))
		switch {
		case s == "":
		case s[0] == '#':
			titled = titled || strings.HasPrefix(strings.ToLower(s), descriptorTitle)
		case !titled:
			return nil, corrupt("descriptor", "line %d comes before the title %q", n, "# Disk DescriptorFile")
		case isExtent(s):
			if err := d.addExtent(s, n); err != nil {
				return nil, err
			}
		default:
			k, v, ok := strings.Cut(s, "=")
			if !ok {
				return nil, corrupt("descriptor", "line %d is no comment, setting or extent: %s", n, shown(s))
			}
			k = strings.ToLower(strings.TrimSpace(k))
			if strings.HasPrefix(k, "encryption.") {
				return nil, unsupported("descriptor."+k, "the disk is encrypted; decrypt it first")
			}
			if !counts[k] {
				continue
			}
			if _, twice := seen[k]; twice {
				return nil, corrupt("descriptor."+k, "line %d sets it a second time", n)
			}
			seen[k] = unquote(strings.TrimSpace(v))
		}
	}
	if !titled {
		return nil, corrupt("descriptor", "the title %q is missing", "# Disk DescriptorFile")
	}
	if err := d.settings(seen); err != nil {
		return nil, err
	}
	if len(d.extents) == 0 {
		return nil, corrupt("descriptor", "it names no extent")
	}
	return d, nil
}

// counts are the settings that are looked at, in lower case.
var counts = map[string]bool{"version": true, "parentcid": true, "createtype": true, "parentfilenamehint": true, "encoding": true}

func (d *descriptor) settings(seen map[string]string) error {
	// The format knows 1; ESXi writes up to 5 (changed block tracking,
	// encodings), and what its extents mean stayed the same.
	if v, ok := seen["version"]; ok {
		if n, err := strconv.ParseUint(v, 10, 32); err != nil || n < 1 || n > 5 {
			return unsupported("descriptor.version", "it is %s; 1 to 5 are read", shown(v))
		}
	}
	if v, ok := seen["parentcid"]; ok {
		id, err := strconv.ParseUint(v, 16, 32)
		if err != nil {
			return corrupt("descriptor.parentCID", "it is %s; right is 8 hexadecimal digits", shown(v))
		}
		if id != noParent {
			parent := "which it does not name"
			if hint := seen["parentfilenamehint"]; hint != "" {
				parent = shown(hint)
			}
			return unsupported("descriptor.parentCID", "it is %08x, so the file holds only what differs from a parent disk, %s; %s",
				id, parent, deltaHelp)
		}
	}
	if v := seen["parentfilenamehint"]; v != "" {
		return unsupported("descriptor.parentFileNameHint", "it names the parent disk %s; %s", shown(v), deltaHelp)
	}
	d.createType = seen["createtype"]
	low := strings.ToLower(d.createType)
	if !createTypes[low] {
		return unsupported("descriptor.createType", "it is %s, which is not read: %s", shown(d.createType), why(low))
	}
	return nil
}

func why(kind string) string {
	if s := notRead[kind]; s != "" {
		return s
	}
	return "it is unknown"
}

func isExtent(s string) bool {
	word, _, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
	switch strings.ToUpper(word) {
	case "RW", "RDONLY", "NOACCESS":
		return true
	}
	return false
}

// addExtent reads the line n, which has the form
//
//	access sectors type ["file" [offset]]
func (d *descriptor) addExtent(s string, n int) error {
	w, err := words(s, n)
	if err != nil {
		return err
	}
	if strings.EqualFold(w[0], "NOACCESS") {
		return unsupported("descriptor.extent", "line %d forbids reading (NOACCESS)", n)
	}
	if len(w) < 3 {
		return corrupt("descriptor.extent", "line %d lacks a size or a type: %s", n, shown(s))
	}
	sectors, err := strconv.ParseUint(w[1], 10, 64)
	if err != nil || sectors == 0 {
		return corrupt("descriptor.extent", "line %d has the size %s; right is a number of sectors", n, shown(w[1]))
	}
	if sectors > uint64(MaxSize-d.size)/sectorSize {
		return unsupported("descriptor.extent", "line %d makes the disk greater than 62 TiB: %s sectors", n, shown(w[1]))
	}
	if len(d.extents) == MaxExtents {
		return unsupported("descriptor.extent", "line %d is one more than %d extents", n, MaxExtents)
	}
	x := line{size: int64(sectors) * sectorSize}
	most := 4
	switch t := strings.ToLower(w[2]); t {
	case "flat", "vmfs":
		x.kind, most = flat, 5
	case "sparse":
		x.kind = sparseHosted
	case "zero":
		x.kind, most = zero, 3
	default:
		return unsupported("descriptor.extent", "line %d is of the type %s, which is not read: %s", n, shown(w[2]), why(t))
	}
	if len(w) > most || x.kind != zero && len(w) < 4 {
		return corrupt("descriptor.extent", "line %d has %d words, which does not fit its type: %s", n, len(w), shown(s))
	}
	if x.kind != zero {
		x.file = w[3]
		switch {
		case strings.ContainsRune(x.file, utf8.RuneError) && d.encoding != "":
			return corrupt("descriptor.extent", "line %d names %s, which has bytes that are none of the encoding %s", n, shown(x.file), shown(d.encoding))
		case !utf8.ValidString(x.file):
			return unsupported("descriptor.extent", "line %d names %s, which is not in UTF-8; if the descriptor is in another encoding, a line must say so, such as encoding=\"windows-1252\"", n, shown(x.file))
		case !plainName(x.file):
			return unsupported("descriptor.extent", "line %d names %s; only plain names of files that lie beside the descriptor are read", n, shown(x.file))
		}
	}
	if len(w) == 5 {
		off, err := strconv.ParseUint(w[4], 10, 64)
		if err != nil || off > maxFile/sectorSize {
			return corrupt("descriptor.extent", "line %d has the offset %s; right is a number of sectors", n, shown(w[4]))
		}
		x.off = int64(off) * sectorSize
	}
	d.extents = append(d.extents, x)
	d.size += x.size
	return nil
}

// words splits a line at white space, except in quotes. Quotes can't be
// escaped.
func words(s string, n int) ([]string, error) {
	var w []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] != '"' {
			end := strings.IndexAny(s, " \t")
			if end < 0 {
				end = len(s)
			}
			w, s = append(w, s[:end]), s[end:]
			continue
		}
		name, rest, ok := strings.Cut(s[1:], `"`)
		if !ok {
			return nil, corrupt("descriptor.extent", "line %d has a quote that does not end", n)
		}
		w, s = append(w, name), rest
	}
	return w, nil
}

// plainName tells whether name is that of a file in a folder, of any system.
func plainName(name string) bool {
	if name == "" || len(name) > 255 || name == "." || name == ".." {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool {
		return c == '/' || c == '\\' || c == ':' || c < ' ' || c == 0x7f
	})
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// shown quotes a stranger's text for a message, a long one in part.
func shown(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}
