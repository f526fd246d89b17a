package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskformat"
)

// UploadCmd puts a file into a bucket.
type UploadCmd struct {
	serverFlags
	File    string `arg:"" name:"file" help:"The file."`
	Object  string `arg:"" name:"bucket:key" help:"Where to put it. The bucket is made if it is not there; an object of that name is replaced."`
	Convert bool   `help:"Upload the disk in FILE, of any format that is read, as ZVHD2, which is made on the way."`
	inputFlags
	Restart bool `help:"Begin anew: throw away what earlier uploads to this object, which did not come to their end, left in the store."`
}

// Help shows the command's use.
func (UploadCmd) Help() string {
	return `A large file goes in parts, several at once, each checked by its MD5. If the upload is cut, the same command goes on where it was. The object is there when all of it is, not before. "quickims import" uploads and imports in one go, and makes the bitmap that a RAW file needs.

Examples:

    quickims upload disk.zvhd2 images:disk.zvhd2
    quickims upload disk.mf images:disk.mf
    quickims upload --convert disk.raw images:disk.zvhd2
`
}

// Validate checks what the grammar can't say.
func (c *UploadCmd) Validate() error {
	if !c.Convert && c.inputFlags != (inputFlags{}) {
		return errors.New("--format and --allow-backing go with --convert; without it a file is uploaded as it is")
	}
	return nil
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
	began := s.now()
	object, err := c.put(ctx, s, store, to)
	if err != nil {
		return err
	}
	doc := uploadDoc{c.File, to.bucket, to.key, object.Size, object.ETag, s.now().Sub(began).Seconds()}
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%s -> %s: %s, %s\n", c.File, to, size(object.Size), seconds(doc.Seconds))
	})
}

func (c *UploadCmd) put(ctx context.Context, s *session, store *client.Store, to objectName) (client.Object, error) {
	if c.Convert {
		d, err := c.openDisk(c.File)
		if err != nil {
			return client.Object{}, err
		}
		defer d.Close()
		if d.Disk.Format != diskformat.ZVHD2 {
			if err := s.ensureBucket(ctx, store, to.bucket); err != nil {
				return client.Object{}, err
			}
			return s.uploadConverted(ctx, store, d, to, c.Restart)
		}
		s.note("%s is ZVHD2 already and is uploaded as it is", c.File)
	}
	f, err := openFile(c.File)
	if err != nil {
		return client.Object{}, err
	}
	defer f.Close()
	if err := s.ensureBucket(ctx, store, to.bucket); err != nil {
		return client.Object{}, err
	}
	return s.upload(ctx, store, f, to, c.Restart)
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

// upload puts an open file into a bucket and makes sure that nothing wrote to it
// meanwhile. A large one goes on where an earlier upload was cut, unless it shall
// restart.
func (s *session) upload(ctx context.Context, store *client.Store, f *source, to objectName, restart bool) (client.Object, error) {
	object, err := s.put(ctx, store, f, to, restart)
	if err != nil {
		return object, fmt.Errorf("upload %s to %s: %w", f.path, to, interrupted(ctx, err))
	}
	return object, nil
}

func (s *session) put(ctx context.Context, store *client.Store, f *source, to objectName, restart bool) (client.Object, error) {
	if restart {
		if err := s.abandon(ctx, store, f, to); err != nil {
			return client.Object{}, err
		}
	}
	if client.Splits(f.size) {
		return (&fileUpload{s: s, store: store, f: f, to: to}).run(ctx)
	}
	// What is read at once can't be of two generations without its being seen before.
	data := make([]byte, f.size)
	if err := diskformat.ReadFull(f.File, data, 0); err != nil {
		return client.Object{}, err
	}
	if err := f.unchanged(); err != nil {
		return client.Object{}, err
	}
	if f.size == 0 {
		return store.Put(ctx, to.bucket, to.key, bytes.NewReader(nil), 0, nil)
	}
	m := s.bytesMeter("upload", f.size)
	object, err := store.Put(ctx, to.bucket, to.key, bytes.NewReader(data), f.size, m.add)
	m.close(err)
	return object, err
}

// abandon throws away what unfinished uploads to an object left.
func (s *session) abandon(ctx context.Context, store *client.Store, f *source, to objectName) error {
	state := s.newState(store, f, to)
	ids, err := store.Unfinished(ctx, to.bucket, to.key)
	if err != nil {
		return err
	}
	if earlier := state.earlier(); earlier != nil && !slices.Contains(ids, earlier.UploadID) {
		ids = append(ids, earlier.UploadID)
	}
	for _, id := range ids {
		if err := store.Abandon(ctx, to.bucket, to.key, id); err != nil {
			return err
		}
	}
	state.forget()
	return nil
}
