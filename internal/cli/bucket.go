package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/client"
)

// BucketCmd groups the commands on buckets.
type BucketCmd struct {
	List   BucketListCmd   `cmd:"" help:"List the project's buckets."`
	Create BucketCreateCmd `cmd:"" help:"Create a bucket."`
	Delete BucketDeleteCmd `cmd:"" help:"Delete empty buckets."`
}

// Help shows the commands' use.
func (BucketCmd) Help() string {
	return `Examples:

    quickims bucket list
    quickims bucket create images
    quickims bucket delete images
`
}

// BucketListCmd lists buckets.
type BucketListCmd struct {
	serverFlags
	wideFlag
}

// Run lists them.
func (c *BucketListCmd) Run(ctx context.Context, s *session) error {
	store, err := c.store(s)
	if err != nil {
		return err
	}
	buckets, err := store.Buckets(ctx)
	if err != nil {
		return fmt.Errorf("list the buckets: %w", interrupted(ctx, err))
	}
	type entry struct {
		Name    string    `json:"name"`
		Created time.Time `json:"created_at"`
	}
	doc := struct {
		Buckets []entry `json:"buckets"`
	}{[]entry{}}
	for _, b := range buckets {
		doc.Buckets = append(doc.Buckets, entry{b.Name, b.CreatedAt.UTC()})
	}
	var rows [][]string
	for _, b := range doc.Buckets {
		rows = append(rows, []string{b.Name, b.Created.Format(time.RFC3339)})
	}
	return s.table(doc, c.Wide, "no buckets", []column{{"NAME", soft, false}, {"CREATED", moment, false}}, rows)
}

// BucketCreateCmd makes a bucket.
type BucketCreateCmd struct {
	serverFlags
	Bucket string `arg:"" help:"Name of the bucket: 3 to 63 lower-case letters, digits, dots and hyphens."`
}

// Run makes it.
func (c *BucketCreateCmd) Run(ctx context.Context, s *session) error {
	store, err := c.store(s)
	if err != nil {
		return err
	}
	made, err := store.EnsureBucket(ctx, c.Bucket)
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", c.Bucket, interrupted(ctx, err))
	}
	return s.result(struct {
		Bucket  string `json:"bucket"`
		Created bool   `json:"created"`
	}{c.Bucket, made}, func(w io.Writer) {
		if made {
			fmt.Fprintf(w, "created %s\n", c.Bucket)
		} else {
			fmt.Fprintf(w, "%s is there already\n", c.Bucket)
		}
	})
}

// BucketDeleteCmd deletes buckets.
type BucketDeleteCmd struct {
	serverFlags
	Buckets []string `arg:"" name:"bucket" help:"Names of the buckets, which must be empty."`
}

// Run deletes them.
func (c *BucketDeleteCmd) Run(ctx context.Context, s *session) error {
	store, err := c.store(s)
	if err != nil {
		return err
	}
	for _, bucket := range c.Buckets {
		err := store.RemoveBucket(ctx, bucket)
		if code(err) == "BucketNotEmpty" {
			return fmt.Errorf("delete bucket %s: it holds objects or unfinished uploads; \"quickims object list %[1]s\" and \"quickims upload list %[1]s\" show them: %w", bucket, err)
		}
		if err != nil {
			return fmt.Errorf("delete bucket %s: %w", bucket, interrupted(ctx, err))
		}
		if !s.json {
			fmt.Fprintf(s.Stdout, "deleted %s\n", bucket)
		}
	}
	return s.deleted(c.Buckets)
}

// deleted is the result of a deletion as scripts read it.
func (s *session) deleted(names []string) error {
	if !s.json {
		return nil
	}
	return s.result(struct {
		Deleted []string `json:"deleted"`
	}{names}, nil)
}

// ObjectCmd groups the commands on objects.
type ObjectCmd struct {
	List   ObjectListCmd   `cmd:"" help:"List the objects of a bucket."`
	Delete ObjectDeleteCmd `cmd:"" help:"Delete objects."`
}

// Help shows the commands' use.
func (ObjectCmd) Help() string {
	return `Examples:

    quickims object list images
    quickims object list images:debian/
    quickims object delete images:disk.raw images:disk.mf
`
}

// ObjectListCmd lists objects.
type ObjectListCmd struct {
	serverFlags
	wideFlag
	Bucket string `arg:"" name:"bucket[:prefix]" help:"The bucket, and what the keys begin with."`
}

// Run lists them.
func (c *ObjectListCmd) Run(ctx context.Context, s *session) error {
	store, err := c.store(s)
	if err != nil {
		return err
	}
	bucket, prefix, _ := strings.Cut(c.Bucket, ":")
	type entry struct {
		Bucket   string    `json:"bucket"`
		Key      string    `json:"key"`
		Size     int64     `json:"size"` // bytes
		ETag     string    `json:"etag"`
		Modified time.Time `json:"modified_at"`
	}
	doc := struct {
		Objects []entry `json:"objects"`
	}{[]entry{}}
	err = store.Objects(ctx, bucket, prefix, func(o client.Entry) error {
		doc.Objects = append(doc.Objects, entry{bucket, o.Key, o.Size, o.ETag, o.Modified.UTC()})
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the objects of %s: %w", bucket, interrupted(ctx, err))
	}
	var rows [][]string
	for _, o := range doc.Objects {
		rows = append(rows, []string{o.Key, size(o.Size), o.Modified.Format(time.RFC3339)})
	}
	return s.table(doc, c.Wide, "no objects", []column{{"KEY", soft, false}, {"SIZE", whole, false}, {"MODIFIED", moment, false}}, rows)
}

// ObjectDeleteCmd deletes objects.
type ObjectDeleteCmd struct {
	serverFlags
	Objects []string `arg:"" name:"bucket:key" help:"The objects. Images made of them stay."`
}

// Run deletes them.
func (c *ObjectDeleteCmd) Run(ctx context.Context, s *session) error {
	var names []objectName
	for _, text := range c.Objects {
		name, err := parseObject(text)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	store, err := c.store(s)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.deleteObject(ctx, store, name, true); err != nil {
			return err
		}
	}
	return s.deleted(c.Objects)
}

// deleteObject deletes an object. Unless must is set, there being none is no error.
func (s *session) deleteObject(ctx context.Context, store *client.Store, name objectName, must bool) error {
	object, there, err := s.stat(ctx, store, name)
	switch {
	case err != nil:
		return err
	case !there && must:
		_, err := store.Stat(ctx, name.bucket, name.key) // says what is missing
		return fmt.Errorf("delete %s: %w", name, interrupted(ctx, err))
	case !there:
		return nil
	}
	if err := store.Remove(ctx, name.bucket, name.key); err != nil {
		return fmt.Errorf("delete %s: %w", name, interrupted(ctx, err))
	}
	s.event(deletedEvent{"deleted", name.String(), object.Size}, "deleted %s (%s)", name, size(object.Size))
	return nil
}

type deletedEvent struct {
	Event  string `json:"event"`
	Object string `json:"object"`
	Size   int64  `json:"size"`
}

// UploadsCmd groups uploading and the commands on unfinished uploads.
type UploadsCmd struct {
	Put   UploadCmd      `cmd:"" default:"withargs" help:"Upload a file to a bucket."`
	List  UploadListCmd  `cmd:"" help:"List the unfinished uploads of a bucket."`
	Abort UploadAbortCmd `cmd:"" help:"Abort unfinished uploads and free their space."`
}

// Help shows the commands' use.
func (UploadsCmd) Help() string { return UploadCmd{}.Help() }

// UploadListCmd lists unfinished uploads.
type UploadListCmd struct {
	serverFlags
	wideFlag
	Bucket string `arg:"" help:"The bucket."`
}

// Run lists them.
func (c *UploadListCmd) Run(ctx context.Context, s *session) error {
	store, err := c.store(s)
	if err != nil {
		return err
	}
	pending, err := store.Pending(ctx, c.Bucket)
	if err != nil {
		return fmt.Errorf("list the uploads of %s: %w", c.Bucket, interrupted(ctx, err))
	}
	type entry struct {
		Bucket string    `json:"bucket"`
		Key    string    `json:"key"`
		ID     string    `json:"upload_id"`
		Began  time.Time `json:"began_at"`
	}
	doc := struct {
		Uploads []entry `json:"uploads"`
	}{[]entry{}}
	for _, p := range pending {
		doc.Uploads = append(doc.Uploads, entry{p.Bucket, p.Key, p.ID, p.Began.UTC()})
	}
	var rows [][]string
	for _, u := range doc.Uploads {
		rows = append(rows, []string{u.Key, u.ID, u.Began.Format(time.RFC3339)})
	}
	return s.table(doc, c.Wide, "no unfinished uploads", []column{{"KEY", soft, false}, {"UPLOAD ID", whole, false}, {"BEGAN", moment, false}}, rows)
}

// UploadAbortCmd aborts unfinished uploads.
type UploadAbortCmd struct {
	serverFlags
	Object string `arg:"" name:"bucket[:key]" help:"All unfinished uploads of this object; of a bucket with --all."`
	ID     string `name:"id" placeholder:"UPLOAD_ID" help:"Only this upload."`
	All    bool   `help:"All unfinished uploads of the bucket. Nobody can resume them."`
}

// Run aborts them.
func (c *UploadAbortCmd) Run(ctx context.Context, s *session) error {
	bucket, key, hasKey := strings.Cut(c.Object, ":")
	if hasKey == c.All {
		return usagef("name an object, as bucket:key, or a bucket and --all")
	}
	store, err := c.store(s)
	if err != nil {
		return err
	}
	pending, err := store.Pending(ctx, bucket)
	if err != nil {
		return fmt.Errorf("list the uploads of %s: %w", bucket, interrupted(ctx, err))
	}
	aborted := []string{}
	for _, p := range pending {
		if hasKey && p.Key != key || c.ID != "" && p.ID != c.ID {
			continue
		}
		if err := store.Abandon(ctx, bucket, p.Key, p.ID); err != nil {
			return fmt.Errorf("abort the upload %s of %s: %w", p.ID, p.Key, interrupted(ctx, err))
		}
		aborted = append(aborted, p.ID)
	}
	if len(aborted) == 0 {
		return &kindError{client.ErrNoUpload, fmt.Sprintf("abort uploads of %s: there are none that match; \"quickims upload list %s\" shows them", c.Object, bucket)}
	}
	return s.result(struct {
		Aborted []string `json:"aborted"`
	}{aborted}, func(w io.Writer) {
		for _, id := range aborted {
			fmt.Fprintf(w, "aborted %s\n", id)
		}
	})
}
