package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/quickims/quickims/internal/client"
)

// UploadCmd puts a file into a bucket.
type UploadCmd struct {
	serverFlags
	File   string `arg:"" name:"file" help:"The file."`
	Object string `arg:"" name:"bucket:key" help:"Where to put it. The bucket is made if it is not there; an object of that name is replaced."`
}

// Help shows the command's use.
func (UploadCmd) Help() string {
	return `It goes over S3, in parts if the file is large; the object is there when all of it is. "quickims import" uploads and imports in one go, and makes the bitmap that a RAW file needs.

Examples:

    quickims upload disk.zvhd2 images:disk.zvhd2
    quickims upload disk.mf images:disk.mf
`
}

type uploadDoc struct {
	File    string  `json:"file"`
	Bucket  string  `json:"bucket"`
	Key     string  `json:"key"`
	Size    int64   `json:"size"` // bytes
	ETag    string  `json:"etag"`
	Seconds float64 `json:"seconds"`
}

// Run uploads.
func (c *UploadCmd) Run(ctx context.Context, s *session) error {
	to, err := parseObject(c.Object)
	if err != nil {
		return err
	}
	store, err := c.store(s)
	if err != nil {
		return err
	}
	f, err := openFile(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	began := s.now()
	if err := s.ensureBucket(ctx, store, to.bucket); err != nil {
		return err
	}
	object, err := s.upload(ctx, store, f, to)
	if err != nil {
		return err
	}
	doc := uploadDoc{c.File, to.bucket, to.key, object.Size, object.ETag, s.now().Sub(began).Seconds()}
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%s -> %s: %s, %s\n", c.File, to, size(object.Size), seconds(doc.Seconds))
	})
}

// ensureBucket makes the bucket if it is not there.
func (s *session) ensureBucket(ctx context.Context, store *client.Store, bucket string) error {
	made, err := store.EnsureBucket(ctx, bucket)
	if e, ok := errors.AsType[*client.Error](err); ok && (e.Status == http.StatusForbidden || e.Code == "BucketAlreadyExists") {
		return fmt.Errorf("bucket %s is another project's, or the keys are wrong: %w", bucket, err)
	}
	if err != nil {
		return fmt.Errorf("make sure of bucket %s: %w", bucket, interrupted(ctx, err))
	}
	if made {
		s.note("made the bucket %s", bucket)
	}
	return nil
}

// removeTime is how long the removal of a useless object may take.
const removeTime = 30 * time.Second

// upload puts an open file into a bucket and makes sure that nothing wrote to it
// meanwhile.
func (s *session) upload(ctx context.Context, store *client.Store, f *source, to objectName) (client.Object, error) {
	m := s.bytesMeter("upload", f.size)
	object, err := store.Put(ctx, to.bucket, to.key, f.File, f.size, m.add)
	m.close(err)
	if err != nil {
		return object, fmt.Errorf("upload %s to %s: %w", f.path, to, interrupted(ctx, err))
	}
	if err := f.unchanged(); err != nil {
		// What is there now is of two generations.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer cancel()
		if left := store.Remove(ctx, to.bucket, to.key); left != nil {
			s.note("the object %s is of no use but can't be removed: %v", to, left)
		}
		return object, fmt.Errorf("upload to %s: %w", to, err)
	}
	return object, nil
}
