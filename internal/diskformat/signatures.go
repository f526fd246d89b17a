package diskformat

import (
	"encoding/binary"
	"strconv"
	"strings"
)

// signatures are the marks as the formats' own descriptions give them.
// ZVHD2 is not among them: its two ends are looked at together.
var signatures = []signature{
	{ZVHD, head(0, "stream\x00\x00")},
	{QCOW, head(0, "QFI\xfb\x00\x00\x00\x01")},
	{QCOW2, qcow2},
	{QED, head(0, "QED\x00")},
	{VMDK, head(0, "KDMV")},                             // hosted sparse extent, stream-optimised too
	{VMDK, head(0, "COWD")},                             // ESX sparse extent
	{VMDK, head(0, "\xbe\xba\xfe\xca\x00\x00\x00\x00")}, // SE sparse extent
	{VMDK, vmdkDescriptor},
	{VHD, head(0, "conectix")}, // a dynamic disk's copy of its footer
	{VHD, foot(512, "conectix")},
	{VHD, foot(511, "conectix")}, // footers before Virtual PC 2004
	{VHDX, head(0, "vhdxfile")},
	{VDI, head(64, "\x7f\x10\xda\xbe")},
	{Parallels, head(0, "WithoutFreeSpace")},
	{Parallels, head(0, "WithouFreSpacExt")},
	{DMG, foot(512, "koly")},
	{ISO, head(32769, "CD001")}, // ECMA-119: volume descriptor set at sector 16
	{ISO, head(32769, "BEA01")}, // ECMA-167 (UDF) without ISO 9660
	{WIM, head(0, "MSWIM\x00\x00\x00")},
	{VMA, head(0, "VMA\x00\x00\x00\x00\x01")}, // version 1, the only one
	{EWF, head(0, "EVF\x09\x0d\x0a\xff\x00")},
	{EWF, head(0, "LVF\x09\x0d\x0a\xff\x00")}, // logical evidence
	{EWF, head(0, "EVF2\x0d\x0a\x81\x00")},    // version 2
	{AndroidSparse, head(0, "\x3a\xff\x26\xed\x01\x00")},
	{Partclone, head(0, "partclone-image")},
	{Partclone, head(0, "\x00ntfsclone-image")},
	{LUKS, head(0, "LUKS\xba\xbe\x00\x01")},
	{LUKS, head(0, "LUKS\xba\xbe\x00\x02")},
	{PGP, head(0, "-----BEGIN PGP ")},
	{Age, head(0, "age-encryption.org/")},
	{OpenSSL, head(0, "Salted__")},
	{TAR, tar},
	{Gzip, head(0, "\x1f\x8b\x08")},
	{XZ, head(0, "\xfd7zXZ\x00")},
	{Zstd, head(0, "\x28\xb5\x2f\xfd")},
	{Bzip2, bzip2},
	{LZ4, head(0, "\x04\x22\x4d\x18")},
	{LZ4, head(0, "\x02\x21\x4c\x18")}, // legacy frames, as Linux kernels have them
	{Lzip, head(0, "LZIP\x01")},
	{Lzop, head(0, "\x89LZO\x00\x0d\x0a\x1a\x0a")},
	{Compress, head(0, "\x1f\x9d\x90")}, // 16 bits in block mode, all that compress writes by itself
	{Zip, head(0, "PK\x03\x04")},
	{Zip, head(0, "PK\x05\x06")},           // empty
	{Zip, head(0, "PK\x07\x08PK\x03\x04")}, // in several files
	{SevenZip, head(0, "7z\xbc\xaf\x27\x1c")},
	{RAR, head(0, "Rar!\x1a\x07")},
	{Cabinet, head(0, "MSCF\x00\x00\x00\x00")},
	{CPIO, cpio},
	{AR, head(0, "!<arch>\n")},
	{RPM, head(0, "\xed\xab\xee\xdb")},
	{PDF, head(0, "%PDF-")},
	{ELF, head(0, "\x7fELF")},
}

// weakSignatures are marks so short, or so common, that a disk could carry them by
// chance. They count, in this order, only for a file that has none of the others and
// does not begin with a boot sector.
var weakSignatures = []signature{
	{TAR, withoutBootSector(tarV7)},
	{LZMA, withoutBootSector(lzma)},
	{PGP, withoutBootSector(pgp)},
	{HTML, is(HTML)},
	{XML, is(XML)},
	{JSON, is(JSON)},
	{Text, is(Text)},
}

func withoutBootSector(match func(*ends) bool) func(*ends) bool {
	return func(e *ends) bool { return !head(510, "\x55\xaa")(e) && match(e) }
}

func qcow2(e *ends) bool {
	return head(0, "QFI\xfb")(e) && len(e.head) >= 8 && binary.BigEndian.Uint32(e.head[4:]) != 1
}

// Where the header of a tar's first file has its fields.
const (
	tarHeader  = 512
	tarModeAt  = 100
	tarSizeAt  = 124
	tarTimeAt  = 136
	tarSumAt   = 148
	tarSumLen  = 8
	tarMagicAt = 257
)

// tar matches the header of the first file (POSIX.1, ustar): its magic and its sum.
func tar(e *ends) bool { return head(tarMagicAt, "ustar")(e) && tarSum(e) }

// tarSum reports whether the sum of the header's bytes holds, where those of the sum
// itself count as spaces, in octal.
func tarSum(e *ends) bool {
	if len(e.head) < tarHeader {
		return false
	}
	sum := int64(tarSumLen * ' ')
	for i, b := range e.head[:tarHeader] {
		if i < tarSumAt || i >= tarSumAt+tarSumLen {
			sum += int64(b)
		}
	}
	said, ok := octal(e.head[tarSumAt : tarSumAt+tarSumLen])
	return ok && said == sum
}

// tarV7 matches the header that tars had before ustar (Unix version 7): no magic, so
// the sum must hold, the numbers must be octal, and the name must be there, with
// nothing behind it and behind the fields.
func tarV7(e *ends) bool {
	if !tarSum(e) || e.head[0] == 0 {
		return false
	}
	for _, field := range [][2]int{{tarModeAt, 8}, {tarSizeAt, 12}, {tarTimeAt, 12}} {
		if _, ok := octal(e.head[field[0]:][:field[1]]); !ok {
			return false
		}
	}
	name, rest, _ := strings.Cut(string(e.head[:tarModeAt]), "\x00")
	return strings.Trim(rest, "\x00") == "" && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) &&
		strings.Trim(string(e.head[tarMagicAt:tarHeader]), "\x00 0") == "" // GNU tar writes numbers of devices
}

// octal reads a number of a tar header: digits between spaces, ended by NUL.
func octal(b []byte) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(string(b), " \x00"), 8, 64)
	return n, err == nil && n >= 0
}

func bzip2(e *ends) bool {
	return head(0, "BZh")(e) && head(4, "\x31\x41\x59\x26\x53\x59")(e) // magic of the first block
}

// cpio matches the magic in its three spellings in ASCII, and what follows it, which is
// digits alone. Its binary form has two bytes of magic, which is too little.
func cpio(e *ends) bool {
	const digits = 40
	if len(e.head) < 6+digits {
		return false
	}
	set := "01234567"
	switch string(e.head[:6]) {
	case "070701", "070702":
		set += "89abcdefABCDEF"
	case "070707":
	default:
		return false
	}
	return strings.Trim(string(e.head[6:6+digits]), set) == ""
}

// lzma matches the header of a .lzma file: properties, a dictionary whose size is one
// that encoders use, the length of the content or that it is unknown, and the range
// coder's first byte, which is 0. xz decides in this way too.
func lzma(e *ends) bool {
	const length, maxProperties, maxContent = 14, 225, 1 << 48
	if len(e.head) < length || e.head[0] >= maxProperties || e.head[13] != 0 {
		return false
	}
	dictionary, content := binary.LittleEndian.Uint32(e.head[1:]), binary.LittleEndian.Uint64(e.head[5:])
	if dictionary < 4<<10 {
		return false
	}
	low := dictionary & -dictionary
	if rest := dictionary - low; rest != 0 && rest != 2*low { // 2^n or 2^n + 2^(n-1)
		return false
	}
	return content == 1<<64-1 || content > 0 && content < maxContent
}

// pgp matches the first packet of an encrypted or signed message (RFC 4880, RFC 9580):
// a session key for a public key or for a password, or the announcement of a
// signature.
func pgp(e *ends) bool {
	b := e.head
	if len(b) < 64 || b[0]&0x80 == 0 {
		return false
	}
	tag, at := b[0]>>2&0xf, 0
	switch {
	case b[0]&0x40 != 0 && b[1] < 192:
		tag, at = b[0]&0x3f, 2
	case b[0]&0x40 != 0 && b[1] < 224:
		tag, at = b[0]&0x3f, 3
	case b[0]&0x40 == 0 && b[0]&3 == 0:
		at = 2
	case b[0]&0x40 == 0 && b[0]&3 == 1:
		at = 3
	default:
		return false
	}
	const publicKey, password, signature = 1, 3, 4
	version, within := b[at], b[at+1:]
	switch tag {
	case publicKey: // version 3: a key id of 8 bytes, then the algorithm
		return version == 3 && (within[8] <= 3 && within[8] > 0 || within[8] >= 16 && within[8] <= 28)
	case password: // cipher, then how the password becomes a key
		return version >= 4 && version <= 6 && within[0] > 0 && within[0] <= 13 && (within[1] == 0 || within[1] == 1 || within[1] == 3)
	case signature: // its type, the hash, the algorithm
		return version == 3 && within[0] <= 1 && within[1] > 0 && within[1] <= 14 && within[2] > 0 && within[2] <= 28
	}
	return false
}
