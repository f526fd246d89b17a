// Package objectstore is the room where the bytes lie: buckets with the
// callers' source objects, and the service's own image area, behind one
// interface with two drivers, a folder (Dir) and any S3-compatible store (S3).
//
// Terms used here and nowhere redefined:
//
//   - A bucket is a named collection of objects that belongs to a caller's
//     project. Who may read which bucket is not decided here.
//   - The image area is where the service keeps what it made its own. It is
//     reached with an empty bucket name, which no caller can send, and no
//     bucket name leads into it.
//   - A key names an object in a bucket; see CheckKey for what a key may be.
//   - To pin an object is to note what Stat said of it (size, ETag, version)
//     and to make every later read conditional on that.
//   - To adopt an object is to make its pinned bytes the service's own, under
//     a key in the image area, durably, by the cheapest way the store has.
//
// Both drivers keep the same promises, written at the interface's methods and
// held by the one conformance suite in package storetest.
package objectstore

import (
	"context"
	"io"
	"time"
)

// ImageArea is the bucket name that stands for the service's own image area.
const ImageArea = ""

// ClassStandard is the storage class of an object or bucket that names none.
const ClassStandard = "STANDARD"

// Location names an object. An empty Bucket (ImageArea) is the service's own
// image area, which no caller can name.
type Location struct{ Bucket, Key string }

// String returns bucket:key, the form that image_url has; an object of the
// image area begins with the colon.
func (l Location) String() string { return l.Bucket + ":" + l.Key }

// BucketInfo says what a store knows of a bucket.
type BucketInfo struct {
	Name string
	// Class is the bucket's default storage class, ClassStandard when the
	// store names none.
	Class string
	// Region is where the bucket lies, empty when the store does not say.
	Region string
}

// ObjectInfo says what a store knows of an object.
type ObjectInfo struct {
	// Size is in bytes.
	Size int64
	// ETag changes whenever the object's bytes may have changed. It is opaque,
	// without quotes, and never empty.
	ETag string
	// Version is the object's version, empty in a store without versions.
	Version string
	// Class is the object's storage class, ClassStandard when the store names
	// none. ETag and Class of an object in a listing may be less exact than
	// Stat's: pin with Stat.
	Class   string
	ModTime time.Time
}

// Condition returns the condition that only this generation of the object meets.
func (i ObjectInfo) Condition() Condition { return Condition{ETag: i.ETag, Version: i.Version} }

// Condition binds a read to one generation of an object. Empty is unconditional.
type Condition struct{ ETag, Version string }

// ListedObject is an object in a listing.
type ListedObject struct {
	Key string
	ObjectInfo
}

// AdoptOptions say how Adopt may go about it. The zero value is fine.
type AdoptOptions struct {
	// Progress, if not nil, is told how many bytes of how many are done. It is
	// called from one goroutine at a time and its done never goes down. A link
	// or clone calls it once, at the end.
	Progress func(done, total int64)
	// Copies, if not nil, is told why the directory store copies the bytes instead of
	// sharing them, before it begins: the reason and what to do, in a sentence.
	Copies func(reason string)
	// Room, if not nil, is asked before the directory store writes so many bytes of a copy:
	// its error ends the copy, of which nothing stays.
	Room func(n int64) error
	// Began, if not nil, is told the id of each multipart upload that Adopt begins,
	// before the upload has any bytes. An error of Began aborts the upload and fails
	// Adopt. A store without multipart uploads never calls it.
	Began func(ctx context.Context, upload string) error
}

// ExportOptions say how Export may go about it.
type ExportOptions struct {
	// Token names the export. It is kept with the object where the store keeps such, up
	// to 64 letters and digits.
	Token string
	// Making, if not nil, is told the mark of the object before it is there: what tells it
	// from every other one that may come to its place. An error of Making fails Export.
	Making func(ctx context.Context, mark string) error
	// Made is the mark that an earlier Export of this token told last, "" for none. The
	// object that bears it is found complete.
	Made string
	// Progress, Room and Began are those of AdoptOptions.
	Progress func(done, total int64)
	Room     func(n int64) error
	Began    func(ctx context.Context, upload string) error
	// Abandoned is the multipart upload that an earlier Export of this token began and
	// that nobody goes on with, "" for none. It is aborted.
	Abandoned string
}

func (o ExportOptions) making(ctx context.Context, mark string) error {
	if o.Making == nil {
		return nil
	}
	return o.Making(ctx, mark)
}

func (o ExportOptions) report(done, total int64) {
	if o.Progress != nil {
		o.Progress(done, total)
	}
}

// UnknownSize is the size of an object whose end its reader tells.
const UnknownSize = -1

// PutOptions say how Put may go about it. The zero value is fine.
type PutOptions struct {
	// Began is told of multipart uploads as AdoptOptions.Began is.
	Began func(ctx context.Context, upload string) error
}

// Upload is a multipart upload to the image area that was neither completed nor
// aborted. Its parts occupy space and are in no listing of objects.
type Upload struct {
	Key, ID string
	// Began is when the upload was begun, by the store's clock.
	Began time.Time
}

// Store is a set of buckets and one image area. Its methods are safe for
// concurrent use and return as soon as their context is done.
//
// Errors are *Error and match, with errors.Is, one of the sentinels of this
// package where they have a meaning of their own; ErrUnavailable is the one
// that passes by itself.
type Store interface {
	// StatBucket says whether the bucket exists, and its class. A bucket that
	// does not exist, or whose name cannot be a bucket's, is ErrNoBucket.
	// StatBucket(ctx, ImageArea) says whether the image area can be reached.
	StatBucket(ctx context.Context, bucket string) (BucketInfo, error)

	// Stat says what an object is. Its answer is fit to pin: bytes read under
	// its Condition all belong to the generation that it describes. An object
	// whose bytes are just being written may be ErrUnavailable.
	Stat(ctx context.Context, loc Location) (ObjectInfo, error)

	// Open returns a reader of exactly n bytes from off. It never succeeds
	// short: when the object ends early the reader fails with
	// io.ErrUnexpectedEOF, and with n > 0 and off at or past the object's end
	// Open itself does. When the object is not, or while it is read no longer
	// is, what cond says, the result is ErrChanged and never other bytes. A
	// negative off or n is ErrInvalid. The caller closes the reader.
	Open(ctx context.Context, loc Location, cond Condition, off, n int64) (io.ReadCloser, error)

	// Adopt makes dst, in the image area, hold the bytes that src has at cond,
	// durably: when it returns without an error they survive a power cut and
	// the source's deletion. It copies no byte that it can leave alone. dst is
	// not there before all its bytes are, and an error leaves nothing at dst
	// that was not there before. It may be repeated: dst is then made again or
	// found complete. A source that does not meet cond is ErrChanged.
	//
	// The result describes dst. Its ETag is the one to read the image with,
	// ever after: it is kept when the image area moves to another disk.
	Adopt(ctx context.Context, src Location, cond Condition, dst Location, opts AdoptOptions) (ObjectInfo, error)

	// Export makes dst, in a bucket, hold the bytes that src, in the image area, has at
	// cond, durably, by the cheapest way the store has. dst is not there before all its
	// bytes are. An object that is there is left alone, and so is one where a folder of
	// dst would be: ErrExists, unless it is the one of opts.Made. It may be repeated.
	// Whose bucket it is, is not asked here.
	Export(ctx context.Context, src Location, cond Condition, dst Location, opts ExportOptions) error

	// ExportStream makes dst, in a bucket, hold all that r gives, durably, as Export does.
	// An error of r, or of anything else, leaves nothing. It holds a bounded part of the
	// bytes in memory.
	ExportStream(ctx context.Context, r io.Reader, dst Location, opts ExportOptions) error

	// Unexport removes the object of opts.Made from dst, in a bucket, and aborts the
	// upload opts.Abandoned. Any other object stays. That there is none is fine, and that
	// there is no bucket; it may be repeated.
	Unexport(ctx context.Context, dst Location, opts ExportOptions) error

	// Put stores size bytes of r at dst, in the image area, durably, replacing
	// what was there; dst is not there before all its bytes are. An r that holds
	// fewer bytes is io.ErrUnexpectedEOF, one that holds more ErrInvalid. A size of
	// UnknownSize stores all that r gives. An error of r, or of anything else,
	// changes nothing. Put holds a bounded part of the bytes in memory.
	Put(ctx context.Context, dst Location, r io.Reader, size int64, opts PutOptions) (ObjectInfo, error)

	// List returns up to limit objects of a bucket (ImageArea for the image
	// area) whose keys begin with prefix and are greater than after, in
	// ascending byte order of their keys. limit is 1 to MaxList.
	List(ctx context.Context, bucket, prefix, after string, limit int) ([]ListedObject, error)

	// Delete removes an object of the image area, and whatever an unfinished
	// Adopt or Put of that key left behind. Removing what is not there is
	// fine. An object in a bucket belongs to a caller: ErrDenied.
	Delete(ctx context.Context, loc Location) error

	// Swap replaces a small object of the image area, of up to 64 KiB, durably and in
	// one step, if its bytes are was; nil: if it is not there. ErrChanged: they are
	// not, or another writer has replaced now since. Load says what is there then.
	// Writers must not write the same bytes twice: that is how a Swap that is
	// repeated tells its own success from another's.
	Swap(ctx context.Context, loc Location, was, now []byte) error

	// Uploads returns multipart uploads of the image area to keys greater than after,
	// ordered by key; all those of a key at once, up to MaxList in all. None: there are
	// no more, or the store has no multipart uploads, or cannot list them.
	Uploads(ctx context.Context, after string) ([]Upload, error)

	// AbortUpload ends a multipart upload of an object of the image area and removes
	// its parts. An upload that the store does not know is fine.
	AbortUpload(ctx context.Context, loc Location, id string) error
}

// MaxList is the most objects that one List returns, the page size of S3's
// ListObjectsV2.
const MaxList = 1000
