package objectstore

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode/utf8"
)

// MaxKey is the longest key in bytes, S3's limit.
const MaxKey = 1024

// maxSegment is the longest part of a key between slashes in bytes: NAME_MAX,
// the longest file name that Linux file systems take. It binds both drivers, so
// that what one accepts the other does.
const maxSegment = 255

// Names in a bucket's folder that are no objects.
const (
	// UploadsFolder, at its top, is where the S3 face keeps unfinished uploads.
	UploadsFolder = ".quickims"
	// FolderMarker, in any folder, is the file of the object whose key is the
	// folder's path with a slash at its end.
	FolderMarker = ".quickims.folder"
	// LegacyUploadsFolder, at its top, is where earlier releases, and versitygw,
	// keep unfinished uploads.
	LegacyUploadsFolder = ".sgwtmp"
)

// bucketName is S3's rule for bucket names (3 to 63 characters, lower-case
// letters, digits, dots and hyphens, a letter or digit at both ends) without
// its rules about IP addresses and reserved words. A dot can't begin a name,
// so that hidden folders beside the buckets are no buckets.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// CheckBucket reports why a bucket cannot have this name, as ErrNoBucket.
func CheckBucket(name string) error {
	if !bucketName.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("%w: %.80q cannot be a bucket's name (3-63 lower-case letters, digits, dots, hyphens)", ErrNoBucket, name)
	}
	return nil
}

// CheckKey reports why an object cannot have this key, as ErrInvalid: a key is
// 1 to 1024 bytes of UTF-8 without NUL; its parts between slashes are not
// empty, not "." or "..", and have up to 255 bytes. S3 itself takes more; a
// key that means another path in a folder than in a bucket is refused in both.
func CheckKey(key string) error {
	bad := func(why string) error { return fmt.Errorf("%w: key %.80q %s", ErrInvalid, key, why) }
	switch {
	case key == "":
		return bad("is empty")
	case len(key) > MaxKey:
		return bad(fmt.Sprintf("has %d bytes, more than %d", len(key), MaxKey))
	case strings.IndexByte(key, 0) >= 0:
		return bad("holds a NUL")
	case !utf8.ValidString(key):
		return bad("is not UTF-8")
	}
	for part := range strings.SplitSeq(key, "/") {
		switch {
		case part == "":
			return bad("has an empty part between slashes")
		case part == "." || part == "..":
			return bad("has a part that leads elsewhere")
		case len(part) > maxSegment:
			return bad(fmt.Sprintf("has a part of more than %d bytes", maxSegment))
		}
	}
	return nil
}

// gatewayTemp is the name that versitygw, and through it earlier releases, give
// an object's new file for the moment before it replaces the old one.
var gatewayTemp = regexp.MustCompile(`^\..+\.sgwtmp\.[0-9]+$`)

// checkSource checks a location to read from: no object can be at a bad one, so
// it answers like a place where nothing is.
func checkSource(loc Location) error {
	if loc.Bucket != ImageArea {
		if err := CheckBucket(loc.Bucket); err != nil {
			return err
		}
	}
	if err := CheckKey(loc.Key); err != nil {
		return fmt.Errorf("%w: %v", ErrNotFound, err)
	}
	if reservedKey(loc) {
		return ErrNotFound
	}
	return nil
}

// checkTarget checks a location to write to or delete.
func checkTarget(loc Location) error {
	if loc.Bucket != ImageArea {
		return fmt.Errorf("%w: only the image area's objects are the service's to write", ErrDenied)
	}
	if err := CheckKey(loc.Key); err != nil {
		return err
	}
	if reservedKey(loc) {
		return fmt.Errorf("%w: key %q is reserved", ErrInvalid, loc.Key)
	}
	return nil
}

// checkExport checks the two places of an export: an object of the image area, and one of
// a bucket.
func checkExport(src, dst Location) error {
	if src.Bucket != ImageArea {
		return fmt.Errorf("%w: an export leads out of the image area", ErrInvalid)
	}
	return checkExported(dst)
}

// checkExported checks the place of an exported object.
func checkExported(dst Location) error {
	if dst.Bucket == ImageArea {
		return fmt.Errorf("%w: an export leads into a bucket", ErrInvalid)
	}
	if err := CheckBucket(dst.Bucket); err != nil {
		return err
	}
	if err := CheckKey(dst.Key); err != nil {
		return err
	}
	if reservedKey(dst) {
		return fmt.Errorf("%w: key %q is reserved", ErrInvalid, dst.Key)
	}
	return nil
}

// ReservedKey reports whether a key of a bucket, though well formed, names
// something of the machinery that writes to the bucket's folder, not an object.
func ReservedKey(key string) bool { return reservedKey(Location{Bucket: "any", Key: key}) }

// reservedKey reports whether a key names something of the machinery, which is
// no object: the S3 face's in buckets, the driver's own in the image area.
func reservedKey(loc Location) bool {
	top, _, _ := strings.Cut(loc.Key, "/")
	if loc.Bucket == ImageArea {
		return top == pinFolder || top == tempFolder
	}
	last := loc.Key[strings.LastIndexByte(loc.Key, '/')+1:]
	return top == UploadsFolder || top == LegacyUploadsFolder || last == FolderMarker || gatewayTemp.MatchString(last)
}

// checkRange checks off and n of a read.
func checkRange(off, n int64) error {
	if off < 0 || n < 0 || off > math.MaxInt64-n {
		return fmt.Errorf("%w: range of %d bytes from %d", ErrInvalid, n, off)
	}
	return nil
}
