// Package fsck compares the catalog with the object store, in both directions: active
// images whose bytes are missing or not those that were imported, and bytes that no row
// explains. It may run while services use both: each finding is looked at twice.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/objectstore"
)

// Kind says what is wrong.
type Kind string

// The kinds of findings.
const (
	Missing       Kind = "missing"        // an active image's object is not there
	Size          Kind = "size"           // it has another size than the image's row says
	ETag          Kind = "etag"           // it has another ETag: other bytes
	Unreadable    Kind = "unreadable"     // its bytes cannot be read or decoded, or fail their checksums
	UnknownObject Kind = "unknown-object" // an object in the image area that no row explains
	UnknownUpload Kind = "unknown-upload" // a multipart upload there that no row explains
	Leftover      Kind = "leftover"       // bytes that the clean-up should have removed long ago
	Count         Kind = "count"          // a stored count differs from the rows that it counts
	OrphanedRow   Kind = "orphaned-row"   // a row that belongs to an image which is not there
)

// Damage reports whether a finding of this kind means that an image cannot be read.
func (k Kind) Damage() bool { return k == Missing || k == Size || k == ETag || k == Unreadable }

// Finding is one thing that is wrong.
type Finding struct {
	Kind      Kind   `json:"kind"`
	ImageID   string `json:"image_id,omitempty"`
	ProjectID string `json:"project_id,omitempty"`
	// Key is that of an object in the image area, UploadID that of an upload to it.
	Key      string `json:"key,omitempty"`
	UploadID string `json:"upload_id,omitempty"`
	// Bytes is the size of an unknown object or a leftover.
	Bytes  int64  `json:"bytes,omitempty"`
	Detail string `json:"detail"`
	// Since is when an unknown object was modified, an upload began or a leftover's attempt
	// or image ended.
	Since time.Time `json:"since,omitzero"`
	// Repaired says that Repair has put it right.
	Repaired bool `json:"repaired"`

	etag   string
	orphan catalog.Orphan
}

// Report is what a check found.
type Report struct {
	// Images counts the active images that were looked at, Objects and Bytes what lies in
	// the image area.
	Images   int       `json:"images"`
	Objects  int       `json:"objects"`
	Bytes    int64     `json:"bytes"`
	Findings []Finding `json:"findings"`
	// TakenOver is when the image area was last given to the catalog by an operator, zero if
	// never. What is unknown counts as no older: it may be an image of a lost database, and
	// as old as the file that it was made of.
	TakenOver time.Time `json:"taken_over,omitzero"`
	// ReadBytes counts the bytes of disks that ReadData decoded.
	ReadBytes int64 `json:"read_bytes"`
}

// Open counts the findings that are not repaired.
func (r Report) Open() int {
	n := 0
	for _, f := range r.Findings {
		if !f.Repaired {
			n++
		}
	}
	return n
}

// Checker compares a catalog with a store. It may be used by many goroutines at once.
type Checker struct {
	Catalog *catalog.Catalog
	Store   objectstore.Store
	// Cache is for reading images' data; nil if ReadData is not asked for.
	Cache *blockdev.Cache
	// TakenOver becomes the report's.
	TakenOver time.Time
}

// Options say how much is looked at. The zero value reads no image's data.
type Options struct {
	// ReadData is how much of each image's data is decoded and checked, in percent,
	// picked at random.
	ReadData float64
}

// page is how many images are asked for at a time.
const page = 500

// Check looks at everything. It changes nothing. An error means that the check is not
// complete; the report has what was found until then.
func (c *Checker) Check(ctx context.Context, opts Options) (Report, error) {
	r := Report{TakenOver: c.TakenOver}
	for _, step := range []func(context.Context, Options, *Report) error{c.images, c.area, c.uploads, c.leftovers, c.rows} {
		if err := step(ctx, opts, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func at(key string) objectstore.Location {
	return objectstore.Location{Bucket: objectstore.ImageArea, Key: key}
}

// images looks at the bytes of each active image.
func (c *Checker) images(ctx context.Context, opts Options, r *Report) error {
	for after := ""; ; {
		list, err := c.Catalog.ActiveData(ctx, after, page)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, img := range list {
			after = img.ID
			r.Images++
			found, err := c.image(ctx, img)
			if err == nil && found == nil && opts.ReadData > 0 {
				found, err = c.read(ctx, img, opts.ReadData, r)
			}
			if err != nil {
				return err
			}
			if found == nil {
				continue
			}
			if still, err := c.Catalog.StillActive(ctx, img); err != nil {
				return err
			} else if still {
				found.ImageID, found.ProjectID = img.ID, img.ProjectID
				r.Findings = append(r.Findings, *found)
			}
		}
	}
}

// image looks at the objects of an image; nil if they are what its row says.
func (c *Checker) image(ctx context.Context, img catalog.ImageData) (*Finding, error) {
	for _, o := range []struct {
		key, etag string
		size      int64
	}{{img.Data.Key, img.Data.ETag, img.Data.Size}, {img.Data.BitmapKey, img.Data.BitmapETag, img.Data.BitmapSize}} {
		if o.key == "" {
			continue
		}
		info, err := c.Store.Stat(ctx, at(o.key))
		switch {
		case errors.Is(err, objectstore.ErrNotFound):
			return &Finding{Kind: Missing, Key: o.key, Detail: "the object is missing"}, nil
		case errors.Is(err, objectstore.ErrChanged):
			return &Finding{Kind: ETag, Key: o.key, Detail: fmt.Sprintf("the object was written to: %v", err)}, nil
		case err != nil:
			return nil, err
		case info.Size != o.size:
			return &Finding{Kind: Size, Key: o.key, Detail: fmt.Sprintf("the object has %d bytes, the image's row says %d", info.Size, o.size)}, nil
		case info.ETag != o.etag:
			return &Finding{Kind: ETag, Key: o.key, Detail: fmt.Sprintf("the object's ETag is %s, the image's row says %s", info.ETag, o.etag)}, nil
		}
	}
	return nil, nil
}

// area looks for objects that no row explains.
func (c *Checker) area(ctx context.Context, _ Options, r *Report) error {
	nested := map[string]bool{}
	for after := ""; ; {
		list, err := c.Store.List(ctx, objectstore.ImageArea, "", after, objectstore.MaxList)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, o := range list {
			after = o.Key
			if o.Key == imagearea.MarkKey {
				continue
			}
			if _, ours := imagearea.Of(o.Key); !ours {
				if other, err := c.ofAnother(ctx, o.Key, nested); err != nil || other {
					if err != nil {
						return err
					}
					continue
				}
			}
			r.Objects++
			r.Bytes += o.Size
			unknown, err := c.unknown(ctx, o.Key)
			if err != nil {
				return err
			}
			if !unknown {
				continue
			}
			// It may have been removed, and its row with it, since it was listed.
			info, err := c.Store.Stat(ctx, at(o.Key))
			if errors.Is(err, objectstore.ErrNotFound) {
				continue
			}
			if err != nil && !errors.Is(err, objectstore.ErrChanged) {
				return err
			}
			r.Findings = append(r.Findings, Finding{
				Kind: UnknownObject, Key: o.Key, Bytes: o.Size, Since: o.ModTime.UTC(), etag: info.ETag,
				Detail: fmt.Sprintf("no row explains the object of %d bytes", o.Size),
			})
		}
	}
}

// unknown reports whether no row explains an object.
func (c *Checker) unknown(ctx context.Context, key string) (bool, error) {
	a, ok := imagearea.Of(key)
	if !ok {
		return true, nil
	}
	known, err := c.Catalog.KnownKey(ctx, a, key)
	return !known, err
}

// ofAnother reports whether a key lies in the image area of another installation, below
// a prefix of this one's: such an area has an owner mark of its own.
func (c *Checker) ofAnother(ctx context.Context, key string, nested map[string]bool) (bool, error) {
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		prefix := key[:i+1]
		other, asked := nested[prefix]
		if !asked {
			_, err := c.Store.Stat(ctx, at(prefix+imagearea.MarkKey))
			if err != nil && !errors.Is(err, objectstore.ErrNotFound) && !errors.Is(err, objectstore.ErrChanged) {
				return false, err
			}
			other = err == nil
			nested[prefix] = other
		}
		if other {
			return true, nil
		}
	}
	return strings.HasSuffix(key, "/"+imagearea.MarkKey), nil
}

// uploads looks for multipart uploads that no attempt has under way.
func (c *Checker) uploads(ctx context.Context, _ Options, r *Report) error {
	nested := map[string]bool{}
	for after := ""; ; {
		list, err := c.Store.Uploads(ctx, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, u := range list {
			after = u.Key
			a, ours := imagearea.Of(u.Key)
			if !ours {
				if other, err := c.ofAnother(ctx, u.Key, nested); err != nil {
					return err
				} else if other {
					continue
				}
			} else if writing, err := c.Catalog.Recorded(ctx, a); err != nil {
				return err
			} else if writing {
				continue
			}
			r.Findings = append(r.Findings, Finding{
				Kind: UnknownUpload, Key: u.Key, UploadID: u.ID, Since: u.Began.UTC(), Detail: "no row explains the unfinished multipart upload",
			})
		}
	}
}

// overdue is how long the clean-up may take to remove what has ended.
const overdue = time.Hour

// leftovers looks for objects and uploads whose removal the clean-up has not managed.
func (c *Checker) leftovers(ctx context.Context, _ Options, r *Report) error {
	list, err := c.Catalog.Overdue(ctx, overdue)
	if err != nil {
		return err
	}
	for _, l := range list {
		finding := func(key string) Finding {
			return Finding{
				Kind: Leftover, ImageID: l.ImageID, Key: key, Since: l.Ended.UTC(),
				Detail: fmt.Sprintf("its image was deleted, or its import ended, at %s, and the clean-up has not removed it; the service's log says why", l.Ended.UTC().Format(time.RFC3339)),
			}
		}
		for _, u := range l.Uploads {
			f := finding(u.Key)
			f.UploadID = u.ID
			r.Findings = append(r.Findings, f)
		}
		for _, key := range l.Keys() {
			info, err := c.Store.Stat(ctx, at(key))
			if errors.Is(err, objectstore.ErrNotFound) {
				continue
			}
			if err != nil && !errors.Is(err, objectstore.ErrChanged) {
				return err
			}
			f := finding(key)
			f.Bytes = info.Size
			r.Findings = append(r.Findings, f)
		}
	}
	return nil
}

// rows looks for rows that do not fit each other.
func (c *Checker) rows(ctx context.Context, _ Options, r *Report) error {
	counts, err := c.Catalog.WrongCounts(ctx)
	if err != nil {
		return err
	}
	for _, w := range counts {
		r.Findings = append(r.Findings, Finding{
			Kind: Count, ImageID: w.ImageID, ProjectID: w.ProjectID,
			Detail: fmt.Sprintf("the image's row counts %d members, there are %d", w.Stored, w.Rows),
		})
	}
	orphans, err := c.Catalog.Orphans(ctx)
	if err != nil {
		return err
	}
	for _, o := range orphans {
		r.Findings = append(r.Findings, Finding{
			Kind: OrphanedRow, ImageID: o.ImageID, orphan: o, Detail: fmt.Sprintf("%d rows in %s belong to an image that is not there", o.Rows, o.Table),
		})
	}
	return nil
}
