package s3face

import (
	"net/url"
	"strings"

	"github.com/google/uuid"
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
