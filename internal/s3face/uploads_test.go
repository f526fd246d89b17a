package s3face_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/s3face/files"
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

// TestListManyUploads: pages of a listing, which keeps no more than a page in memory, are
// those of all uploads in order; with a delimiter, those of their prefixes.
func TestListManyUploads(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "disks")
	store, err := files.Open(files.Config{Buckets: f.buckets, Meta: filepath.Join(f.base, "meta"), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer store.Close()
	b, err := store.Bucket("disks")
	must(t, err)
	defer b.Close()
	var all, prefixes []string
	for i := range 1500 { // more than are kept before the largest are dropped
		key := fmt.Sprintf("%d/%d", i*7919%97, i%3)
		id, err := b.BeginUpload(files.UploadInfo{Key: key})
		must(t, err)
		all = append(all, key+" "+id)
		prefixes = append(prefixes, fmt.Sprintf("%d/", i*7919%97))
	}
	slices.Sort(all)
	slices.Sort(prefixes)
	prefixes = slices.Compact(prefixes)
	core := minio.Core{Client: c}
	pages := func(delimiter string, limit int) (got []string) {
		key, id := "", ""
		for {
			page, err := core.ListMultipartUploads(t.Context(), "disks", "", key, id, delimiter, limit)
			must(t, err)
			for _, u := range page.Uploads {
				got = append(got, u.Key+" "+u.UploadID)
			}
			for _, p := range page.CommonPrefixes {
				got = append(got, p.Prefix)
			}
			if !page.IsTruncated {
				return got
			}
			key, id = page.NextKeyMarker, page.NextUploadIDMarker
		}
	}
	if got := pages("", 400); !slices.Equal(got, all) {
		t.Errorf("%d uploads, or in another order; want %d", len(got), len(all))
	}
	if got := pages("/", 40); !slices.Equal(got, prefixes) {
		t.Errorf("prefixes %q", got)
	}
}
