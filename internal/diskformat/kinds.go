package diskformat

// What is no disk but is often taken for one. [Detect] tells these apart so that
// nobody imports them by mistake; none is read here.
const (
	// Compressed data. What is inside is not looked at.
	Gzip     Format = "gzip"
	XZ       Format = "xz"
	LZMA     Format = "lzma"
	Zstd     Format = "zstd"
	Bzip2    Format = "bzip2"
	LZ4      Format = "lz4"
	Lzip     Format = "lzip"
	Lzop     Format = "lzop"
	Compress Format = "compress"

	// Archives.
	TAR      Format = "tar" // Unix version 7's, POSIX's and GNU's; an OVA is one
	Zip      Format = "zip"
	SevenZip Format = "7z"
	RAR      Format = "rar"
	Cabinet  Format = "cab"
	CPIO     Format = "cpio"
	AR       Format = "ar" // a .deb is one
	RPM      Format = "rpm"

	// Encrypted data.
	LUKS    Format = "luks" // a whole disk or partition; versions 1 and 2
	PGP     Format = "pgp"
	Age     Format = "age"
	OpenSSL Format = "openssl"

	// Copies of disks in formats of backup and forensic tools.
	VMA           Format = "vma"            // Proxmox VE's backups
	EWF           Format = "ewf"            // EnCase's .E01, .L01, .Ex01
	AndroidSparse Format = "android-sparse" // fastboot's
	Partclone     Format = "partclone"      // Clonezilla's; ntfsclone's too

	// Pages and programs.
	HTML Format = "html"
	XML  Format = "xml"
	JSON Format = "json"
	Text Format = "text"
	PDF  Format = "pdf"
	ELF  Format = "elf"
)

// kind is what people call a format, and what they can do to get at the disk.
type kind struct{ name, advice string }

const (
	unpack     = "unpack it first"
	decrypt    = "decrypt it first"
	wrongFile  = "this is not what was meant: get the disk file itself"
	downloaded = "it may be the answer to a download that went wrong; look into it, then download the disk file again"
	qemuRaw    = "make it RAW first, with qemu-img convert -O raw"
)

var kinds = map[Format]kind{
	QCOW: {"a disk in QEMU's first copy-on-write format (qcow)", qemuRaw}, QED: {"a disk in QEMU's format QED", qemuRaw},
	Parallels: {"a disk in Parallels' format", qemuRaw}, DMG: {"an Apple disk image (DMG)", qemuRaw},
	ISO: {"an ISO image, of a CD or DVD", "install from it into a disk file"},
	WIM: {"a Windows image of files (WIM)", "install from it into a disk file"},

	Gzip: {"data compressed by gzip", unpack + ": gunzip -k FILE"}, XZ: {"data compressed by xz", unpack + ": unxz -k FILE"},
	LZMA: {"data compressed by lzma", unpack + ": unlzma -k FILE"}, Zstd: {"data compressed by zstd", unpack + ": unzstd FILE"},
	Bzip2: {"data compressed by bzip2", unpack + ": bunzip2 -k FILE"}, LZ4: {"data compressed by lz4", unpack + ": unlz4 FILE"},
	Lzip: {"data compressed by lzip", unpack + ": lzip -dk FILE"}, Lzop: {"data compressed by lzop", unpack + ": lzop -d FILE"},
	Compress: {"data compressed by compress", unpack + ": gunzip -k FILE"},

	TAR: {"a tar archive", "unpack it (an OVA is one) and take the disk file in it, such as its .vmdk"},
	Zip: {"a zip archive", unpack}, SevenZip: {"a 7z archive", unpack}, RAR: {"a RAR archive", unpack},
	Cabinet: {"a cabinet archive of Windows", unpack}, CPIO: {"a cpio archive", "it holds files, as an initramfs does; get the disk file itself"},
	AR: {"an ar archive, as a .deb is", wrongFile}, RPM: {"an RPM package", wrongFile},

	LUKS: {"an encrypted volume (LUKS)", "a machine can't start from it; decrypt it first, or import it as a data disk (--type DataImage)"},
	PGP:  {"a message encrypted or signed by PGP", decrypt + ": gpg --decrypt"}, Age: {"data encrypted by age", decrypt + ": age --decrypt"},
	OpenSSL: {"data encrypted by openssl", decrypt + ": openssl enc -d"},

	VMA:           {"a backup of Proxmox VE (VMA)", "extract the disks from it: vma extract FILE FOLDER"},
	EWF:           {"an EnCase image (E01)", "make it RAW first, with ewfexport -f raw"},
	AndroidSparse: {"an Android sparse image", "make it RAW first, with simg2img"},
	Partclone:     {"a copy of a partition by partclone or ntfsclone", "restore it into a disk file first"},

	HTML: {"an HTML page", downloaded}, XML: {"an XML document", downloaded}, JSON: {"a JSON document", downloaded}, Text: {"a text", downloaded},
	PDF: {"a PDF document", wrongFile}, ELF: {"a program of Linux (ELF)", wrongFile},
}

// Describe is what people call a file of the format, with its article, such as "an
// HTML page"; for the format of a disk "a qcow2 file".
func (f Format) Describe() string {
	if k, ok := kinds[f]; ok {
		return k.name
	}
	switch f[0] {
	case 'a', 'e', 'i', 'o', 'u':
		return "an " + string(f) + " file"
	}
	return "a " + string(f) + " file"
}

// Advice is what to do with a file of a format that is not read here: an imperative
// sentence without its full stop. "": the format is read.
func (f Format) Advice() string { return kinds[f].advice }
