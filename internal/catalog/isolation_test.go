package catalog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/ims"
)

// TestIsolation: every call that names something by its id answers another project's
// id exactly as one that nobody ever had, and changes nothing.
func TestIsolation(t *testing.T) {
	calls := map[string]func(ctx context.Context, c *Catalog, image, job string) (any, error){
		"Image": func(ctx context.Context, c *Catalog, image, _ string) (any, error) { return c.Image(ctx, mine, image) },
		"Job":   func(ctx context.Context, c *Catalog, _, job string) (any, error) { return c.Job(ctx, mine, job) },
		"Images by id": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			list, err := c.Images(ctx, mine, ims.ImageFilter{IDs: []string{image}})
			return len(list), err
		},
		"Images by marker": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return c.Images(ctx, mine, ims.ImageFilter{MarkerID: image})
		},
		"UpdateImage": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return c.UpdateImage(ctx, domain, mine, image, func(img *ims.Image) error {
				return fmt.Errorf("was shown %s", img.ID)
			})
		},
		"DeleteImage": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return nil, c.DeleteImage(ctx, mine, image, false)
		},
		"DeleteImage by force": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return nil, c.DeleteImage(ctx, mine, image, true)
		},
		"Attach": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return c.Attach(ctx, by(mine), ims.Attachment{ID: ims.NewAttachmentID(), ImageID: image}, image, AttachLife{TTL: lease}, plenty)
		},
		"Attachments by image": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return c.Attachments(ctx, mine, image, "", 10)
		},
		"SetTags": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return nil, c.SetTags(ctx, mine, image, []ims.Tag{{Key: "x"}})
		},
		"DeleteTags": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return nil, c.DeleteTags(ctx, mine, image, []ims.Tag{{Key: "a"}})
		},
		"DeleteTag": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return nil, c.DeleteTag(ctx, mine, image, "a")
		},
		"MigrateResource": func(ctx context.Context, c *Catalog, image, _ string) (any, error) {
			return nil, c.MigrateResource(ctx, domain, mine, image, ims.DefaultEnterpriseProject)
		},
		"RenewLease": func(ctx context.Context, c *Catalog, _, job string) (any, error) {
			return nil, c.RenewLease(ctx, ims.Job{ID: job, ProjectID: mine, Attempt: 1}, lease)
		},
	}
	onBoth(t, func(t *testing.T, c fixture) {
		theirs, theirJob := c.active(other)
		going, goingJob := c.accept(other)
		c.claim(goingJob.ID)
		deleted, deletedJob := c.active(mine)
		must(t, c.DeleteImage(t.Context(), mine, deleted.ID, false))
		before := []any{c.image(other, theirs.ID), c.image(other, going.ID), c.job(other, theirJob.ID)}

		for name, call := range calls {
			answer := func(image, job string) string {
				value, err := call(t.Context(), c.Catalog, image, job)
				text := fmt.Sprintf("%+v %v", value, err)
				return strings.ReplaceAll(strings.ReplaceAll(text, image, "IMAGE"), job, "JOB")
			}
			want := answer(uuid.NewString(), ims.NewJobID())
			for what, ids := range map[string][2]string{"active": {theirs.ID, theirJob.ID}, "going on": {going.ID, goingJob.ID}} {
				if got := answer(ids[0], ids[1]); got != want {
					t.Errorf("%s of another project's that is %s:\n%s, an unknown one:\n%s", name, what, got, want)
				}
			}
			if name == "Images by marker" || name == "Job" || name == "RenewLease" {
				continue // a page may continue behind a deleted image; its job stays
			}
			if got := answer(deleted.ID, deletedJob.ID); got != want {
				t.Errorf("%s of a deleted one:\n%s, an unknown one:\n%s", name, got, want)
			}
		}
		after := []any{c.image(other, theirs.ID), c.image(other, going.ID), c.job(other, theirJob.ID)}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("the other project's things changed:\n%+v\n%+v", before, after)
		}

		// What counts and lists leaves the other project out.
		if used, err := c.Quota(t.Context(), mine); err != nil || used != 0 {
			t.Errorf("Quota %d (%v)", used, err)
		}
		if list, err := c.Images(t.Context(), mine, ims.ImageFilter{Names: []string{theirs.Name}}); err != nil || len(list) != 0 {
			t.Errorf("Images %v (%v)", list, err)
		}
		if tags, err := c.Tags(t.Context(), mine, ims.ImageFilter{}, 0, 0); err != nil || len(tags) != 0 {
			t.Errorf("Tags %v (%v)", tags, err)
		}
		if list, total, err := c.ResourcesOf(t.Context(), []string{mine}, ims.DefaultEnterpriseProject, 10, 0); err != nil || len(list) != 0 || total != 0 {
			t.Errorf("ResourcesOf %v %d (%v)", list, total, err)
		}
		attached, _ := c.attach(other, theirs.ID, lease)
		for _, id := range []string{attached.ID, ims.NewAttachmentID()} {
			_, err := c.Attachment(t.Context(), mine, id)
			wantError(t, err, ErrNotFound)
			wantError(t, c.Detach(t.Context(), mine, id, true), ErrNotFound)
			if list, err := c.Attachments(t.Context(), mine, "", id, 10); !errors.Is(err, ErrNotFound) || len(list) != 0 {
				t.Errorf("Attachments behind %s: %v (%v)", id, list, err)
			}
		}
		if list := c.attachments(mine); len(list) != 0 {
			t.Errorf("Attachments %v", list)
		}
		if list := c.attachments(other); len(list) != 1 || list[0].ID != attached.ID {
			t.Errorf("the other project's attachments became %v", list)
		}
		must(t, c.ClaimBucket(t.Context(), "theirs", other))
		if list, err := c.BucketsOf(t.Context(), mine); err != nil || len(list) != 0 {
			t.Errorf("BucketsOf %v (%v)", list, err)
		}
	})
}

func TestBuckets(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ctx := t.Context()
		_, err := c.BucketOwner(ctx, "b")
		wantError(t, err, ErrNotFound)
		for range 2 {
			must(t, c.ClaimBucket(ctx, "b", mine))
		}
		wantError(t, c.ClaimBucket(ctx, "b", other), ErrTaken)
		must(t, c.ReleaseBucket(ctx, "b", other)) // not theirs to release
		if owner, err := c.BucketOwner(ctx, "b"); err != nil || owner != mine {
			t.Errorf("owner %q (%v), want %q", owner, err, mine)
		}
		must(t, c.ClaimBucket(ctx, "a", mine))
		if list, err := c.BucketsOf(ctx, mine); err != nil || !reflect.DeepEqual(list, []string{"a", "b"}) {
			t.Errorf("buckets %v (%v)", list, err)
		}
		must(t, c.ReleaseBucket(ctx, "b", mine))
		must(t, c.ClaimBucket(ctx, "b", other))
		_, err = c.BucketOwner(ctx, "\x00")
		wantError(t, err, ErrNotFound)
	})
}
