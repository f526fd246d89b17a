package ims

import (
	"regexp"
	"time"

	"github.com/google/uuid"
)

// ImageStatus is an image's state.
type ImageStatus string

// The states of an image; docs/states.md has the picture.
const (
	ImageQueued  ImageStatus = "queued"  // metadata alone
	ImageSaving  ImageStatus = "saving"  // its data is being adopted
	ImageActive  ImageStatus = "active"  // its data is ours and durable
	ImageKilled  ImageStatus = "killed"  // its import failed
	ImageDeleted ImageStatus = "deleted" // gone for clients

	// Of the OpenStack Image API alone.
	ImageUploading   ImageStatus = "uploading"   // bytes are being staged, or wait for their import
	ImageImporting   ImageStatus = "importing"   // staged bytes are becoming its data
	ImageDeactivated ImageStatus = "deactivated" // active, but for admins alone
)

// Visibility says who sees an image.
type Visibility string

// The visibilities. An image that has members is shared, whatever it was made as.
const (
	VisibilityPrivate   Visibility = "private"   // its project
	VisibilityShared    Visibility = "shared"    // its project and its members
	VisibilityCommunity Visibility = "community" // everybody who knows its id
	VisibilityPublic    Visibility = "public"    // everybody
)

// EnvType says what kind of machine an image is for, in the wire's spelling.
type EnvType string

// The values of virtual_env_type that a quick import makes.
const (
	EnvECS  EnvType = "FusionCompute"
	EnvBMS  EnvType = "Ironic"
	EnvData EnvType = "DataImage"
)

// Sizes in bytes.
const (
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
	// MaxFileSize is the largest file that a quick import takes.
	MaxFileSize = TiB
	// MaxDiskSize is the largest disk of an image, 1 TiB.
	MaxDiskSize = 1 << 40
	// MaxDiskGiB is the largest min_disk; MaxDataDiskGiB that of a data disk image in the
	// calls that are not quick imports.
	MaxDiskGiB     = MaxDiskSize >> 30
	MaxDataDiskGiB = 2 * MaxDiskGiB
)

// LeastMinDisk is the least min_disk, in GiB, for a disk of size bytes.
func LeastMinDisk(size int64) int64 {
	n := size / GiB
	if size%GiB != 0 {
		n++
	}
	return n
}

// CheckFileSize returns the fault of a file that is too large for a quick import, or
// nil. what names the file to the client.
func CheckFileSize(what string, size int64) error {
	if size <= MaxFileSize {
		return nil
	}
	return Faultf(CodeFileTooBig, "%s has %d bytes; it must have at most %d (1 TiB)", what, size, MaxFileSize)
}

// CheckDiskSize returns the fault of a disk whose size no image can have, or nil.
func CheckDiskSize(size int64) error {
	switch {
	case size == 0:
		return Faultf(CodeDiskSize, "the disk has no bytes")
	case size > MaxDiskSize:
		return Faultf(CodeDiskSize, "the disk has %d bytes; it must have at most %d (1 TiB)", size, int64(MaxDiskSize))
	}
	return nil
}

// Data says where an image's bytes lie. The zero value means that there are none
// yet.
type Data struct {
	// Bucket holds both objects. It is "", the image area, once the bytes are ours;
	// while they are adopted it is the bucket of the pinned source.
	Bucket string
	// Version of a source's disk object in a bucket with versions, else "".
	Version string
	// Key of the disk object; BitmapKey of its trusted bitmap, "" for none.
	Key, BitmapKey string
	// ETag and BitmapETag pin the adopted bytes: reads are conditional on them.
	ETag, BitmapETag string
	Format           string // "raw" or "zvhd2"
	Size             int64  // bytes of the stored object
	BitmapSize       int64  // bytes of the stored bitmap
	VirtualSize      int64  // bytes of the disk that a machine sees
	// Generation names the bytes: 32 hex digits, drawn when the source was pinned or the
	// upload came, and kept through adoption. "" if there are none.
	Generation string
}

// Image is a disk image and what is known of it.
type Image struct {
	ID                  string // UUID
	ProjectID           string
	EnterpriseProjectID string
	Name                string
	Description         string
	Status              ImageStatus
	Env                 EnvType
	OSVersion           string // "" for a data disk
	OSType              string // Linux, Windows or Other
	OSBit               string // "32", "64" or ""
	Platform            string // "" for a data disk
	Architecture        string // x86 or arm
	Firmware            string // bios or uefi
	LicenseType         string // kept, not interpreted
	MinDiskGiB          int
	MinRAMMiB           int
	MaxRAMMiB           string // "" when unset
	Protected           bool
	// MadeVisible is the visibility that it was given; Visibility tells the one that it has.
	MadeVisible Visibility
	Hidden      bool // left out of the Image API's lists that do not ask for it
	// DiskFormat and ContainerFormat say what a download delivers, as the Image API names
	// it; "" when nobody said. The stored data has Data.Format.
	DiskFormat, ContainerFormat string
	// MD5 and SHA512 are hex, of the bytes that a download delivers; "" when not known.
	MD5, SHA512 string
	// Properties have keys that a client of the Image API made up.
	Properties map[string]string
	// Attributes are the other patchable ones, such as __support_fc_inject.
	Attributes map[string]string
	Tags       []Tag  // ordered by key
	SourceURL  string // bucket:object; "" of an image that was not imported
	FileSize   int64  // bytes of the imported file
	Data       Data
	Members    int // how many projects it is shared with
	CreatedAt  time.Time
	UpdatedAt  time.Time
	ActiveAt   time.Time // zero until active
}

// ReadableBy reports whether an image has a disk that can be read by a caller who may be
// an admin of its project: its own disk, or, while it is imported, the source that it is
// made of. One that is uploaded has none before its end.
func (img Image) ReadableBy(admin bool) bool {
	switch img.Status {
	case ImageActive:
		return true
	case ImageSaving:
		return img.Data.Key != ""
	case ImageDeactivated:
		return admin
	}
	return false
}

// Visibility is who sees the image.
func (img Image) Visibility() Visibility {
	if img.Members > 0 && img.MadeVisible != VisibilityPublic && img.MadeVisible != VisibilityCommunity {
		return VisibilityShared
	}
	return img.MadeVisible
}

// MayPublish returns the fault of a caller who makes an image public, or withdraws one that
// was, and who is no admin of the service's own project; nil for all other callers and
// changes. serviceProject may be "": then nobody publishes.
func MayPublish(p Principal, serviceProject string, was, now Visibility) error {
	if (was == VisibilityPublic) == (now == VisibilityPublic) || p.IsAdmin() && p.ProjectID == serviceProject && serviceProject != "" {
		return nil
	}
	return Faultf(CodeNotAllowed, "visibility: admins of the service's own project alone publish and withdraw images; private and shared are offered to this caller").
		WithKind(KindForbidden)
}

// NewImageID makes a random image id.
func NewImageID() string { return uuid.NewString() }

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// ValidUUID reports whether s is a UUID in lower case with hyphens.
func ValidUUID(s string) bool { return uuidForm.MatchString(s) }

// Limits bound what a project may hold and run at once.
type Limits struct {
	Images      int // images that are not killed or deleted
	Imports     int // jobs that have not ended
	Attachments int // attachments that have not ended
	// AttachmentsReader is how many of these its readers may have together; 0 means half.
	AttachmentsReader int
	// Bytes is what it may store in buckets and images together; 0 means no limit. InBuckets
	// is what it has in buckets.
	Bytes, InBuckets int64
}

// ReaderAttachments is how many attachments a project's readers may have together.
func (l Limits) ReaderAttachments() int {
	if l.AttachmentsReader == 0 {
		return max(1, l.Attachments/2)
	}
	return min(l.AttachmentsReader, l.Attachments)
}
