package s3face

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
)

// isUploadID reports whether s has the form of the ids that the back end gives
// to multipart uploads: a UUID in lower-case letters, RFC 9562 section 4. The
// back end takes an id for a folder's name without looking at it, so whatever
// else, "../../another-bucket" above all, must not reach it.
func isUploadID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s // Parse takes other forms too
}

// allowUpload returns nil when id can be a multipart upload's.
func allowUpload(id *string) error {
	switch {
	case id == nil:
		return s3err.GetNoSuchUploadErr("")
	case !isUploadID(*id):
		return s3err.GetNoSuchUploadErr(*id)
	}
	return nil
}

// namesBadUpload reports whether a query names an upload, in whatever
// capitals, that cannot be one.
func namesBadUpload(query url.Values) bool {
	for name, values := range query {
		if !strings.EqualFold(name, "uploadId") {
			continue
		}
		for _, v := range values {
			if !isUploadID(v) {
				return true
			}
		}
	}
	return false
}

// completedBy is the attribute in which the back end keeps which upload an
// object came from.
const completedBy = "mp-metadata"

// uploadKnown reports whether there is such an upload, or its completion is
// under way, or the object came from it. Of any other, the back end would say
// that it was completed, as long as there is an object of that name.
func (b *gated) uploadKnown(bucket, key, id string) bool {
	folder := filepath.Join(b.root, bucket, posix.MetaTmpMultipartDir, fmt.Sprintf("%x", sha256.Sum256([]byte(key))))
	if _, err := os.Lstat(filepath.Join(folder, id)); err == nil {
		return true
	}
	entries, err := os.ReadDir(folder)
	if err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), id+".") }) {
		return true
	}
	stored, err := b.meta.RetrieveAttribute(nil, bucket, key, completedBy)
	if err != nil {
		return false
	}
	from, err := backend.UnmarshalMpUploadMetadata(stored, false)
	return err == nil && from.UploadID == id
}
