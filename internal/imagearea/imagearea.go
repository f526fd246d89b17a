// Package imagearea holds the one rule of how the keys of the image area are spelt.
//
// Each attempt at an image writes under a prefix of its own, <image id>/<attempt>/, and
// there only the two keys that Keys lists. So an attempt's bytes are found, and
// removed, by name: no listing of the area decides what belongs to whom.
package imagearea

import (
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// Attempt is one attempt at making an image's data. Number is at least 1.
type Attempt struct {
	ImageID string
	Number  int64
}

// Prefix is what all keys of the attempt begin with; it ends in a slash.
func (a Attempt) Prefix() string {
	return a.ImageID + "/" + strconv.FormatInt(a.Number, 10) + "/"
}

// Disk is the key of the attempt's disk.
func (a Attempt) Disk() string { return a.Prefix() + "disk" }

// Bitmap is the key of the bitmap that belongs to the attempt's disk, if it has one.
func (a Attempt) Bitmap() string { return a.Prefix() + "bitmap" }

// Keys lists all keys that the attempt may write.
func (a Attempt) Keys() []string { return []string{a.Disk(), a.Bitmap()} }

// ParsePrefix returns the attempt whose Prefix this is. It returns false for any other
// text.
func ParsePrefix(prefix string) (Attempt, bool) {
	a, ok := Of(prefix)
	return a, ok && a.Prefix() == prefix
}

// Of returns the attempt under whose prefix a key lies. It returns false for a key that
// lies under no attempt's prefix.
func Of(key string) (Attempt, bool) {
	image, rest, _ := strings.Cut(key, "/")
	number, _, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseInt(number, 10, 64)
	a := Attempt{image, n}
	if err != nil || n < 1 || !ims.ValidUUID(image) || !strings.HasPrefix(key, a.Prefix()) {
		return Attempt{}, false
	}
	return a, true
}

// MarkKey is the key of the owner mark: the object that says which installation the
// image area belongs to.
const MarkKey = ".quickims-owner"
