package diskformat

// Note is something about a disk that its owner should know: what a reader assumed, or
// what a look at the disk found. A disk with notes can be read all the same.
type Note struct {
	// ID is one of the constants below; stable.
	ID string
	// Text is a sentence without its full stop: what was found, what that means, what
	// to do.
	Text string
}

// The kinds of notes.
const (
	// NoteEncoding: names in the file are not in UTF-8 and were decoded.
	NoteEncoding = "encoding"
	// NoteShortEnd: the file ends within its last cluster or block; what is missing of
	// that reads as zeros.
	NoteShortEnd = "short_end"
	// NoteFooter: a VHD's footer is missing, or differs from its copy in the UUID.
	NoteFooter = "footer"
	// NoteSectorSize: the disk was made with sectors of 4096 bytes.
	NoteSectorSize = "sector_size"
	// NoteCutOff: the partition table tells of a larger disk.
	NoteCutOff = "cut_off"
	// NoteNoContent: a RAW file has neither a partition table nor a known signature.
	NoteNoContent = "no_content"
	// NoteEncrypted: the whole disk is an encrypted volume.
	NoteEncrypted = "encrypted"
)

// Noted is what an [Image] implements whose reader may assume something.
type Noted interface {
	// Notes are what the reader has noticed so far. Some show only once the tables
	// were read, so after [Image].Map has come to its end.
	Notes() []Note
}

// LargeSectors says what a disk of 4096-byte sectors means for a machine.
const LargeSectors = "firmware and kernels that see sectors of 512 bytes, as on the disks of images, find no partition table on it: " +
	"start the machine with a disk of 4096-byte sectors (QEMU: logical_block_size=4096), " +
	"or partition a disk of 512-byte sectors and copy the partitions into it"
