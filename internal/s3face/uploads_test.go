package s3face_test

import (
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestListUploadsWhileAborting lists the uploads of one key page by page and aborts each
// page's, as tools do that empty a bucket: none is passed over.
func TestListUploadsWhileAborting(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "disks")
	core := minio.Core{Client: c}
	left := map[string]bool{}
	for range 5 {
		id, err := core.NewMultipartUpload(t.Context(), "disks", "big.raw", minio.PutObjectOptions{})
		must(t, err)
		left[id] = true
	}
	key, id := "", ""
	for range 5 {
		page, err := core.ListMultipartUploads(t.Context(), "disks", "", key, id, "", 2)
		must(t, err)
		for _, u := range page.Uploads {
			if !left[u.UploadID] {
				t.Errorf("the upload %s is listed again", u.UploadID)
			}
			must(t, core.AbortMultipartUpload(t.Context(), "disks", u.Key, u.UploadID))
			delete(left, u.UploadID)
		}
		if !page.IsTruncated {
			break
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
	if len(left) > 0 {
		t.Errorf("%d uploads were not listed", len(left))
	}
}
