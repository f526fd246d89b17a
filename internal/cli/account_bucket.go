package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/app"
)

// AccountBucketCmd gives a bucket to a project, or lists the buckets.
type AccountBucketCmd struct {
	accountFlags
	domainFlag
	Bucket  string `arg:"" optional:"" help:"Name of the bucket. Default: list all buckets."`
	Project string `help:"Name or id of the project that gets the bucket."`
	Force   bool   `help:"Take the bucket from the project that owns it."`
	wideFlag
}

// Help shows the command's use.
func (AccountBucketCmd) Help() string {
	return `The directory store keeps each bucket in a directory, DIR/buckets/BUCKET. A project owns the buckets that
it creates over S3. A directory made by hand belongs to no project until this command gives it to one; it
creates the directory if there is none. Files may be put into it by cp or rsync, before or afterwards.

Examples:

    quickims account bucket --data /var/lib/quickims
    quickims account bucket disks --project lab --data /var/lib/quickims
`
}

// Run gives the bucket away, or lists all.
func (c *AccountBucketCmd) Run(ctx context.Context, s *session) error {
	if (c.Bucket == "") != (c.Project == "") {
		return &usageError{"name both the bucket and its --project, or neither to list all buckets"}
	}
	accounts, err := c.in(ctx, c.domainFlag, false)
	if err != nil {
		return err
	}
	defer accounts.Close()
	type entry struct {
		Name      string `json:"bucket"`
		Project   string `json:"project"`
		ProjectID string `json:"project_id"`
	}
	if c.Bucket != "" {
		b, made, err := accounts.GiveBucket(ctx, c.Bucket, c.Project, c.Force)
		if err != nil {
			return err
		}
		return s.result(struct {
			entry
			Created bool `json:"created"`
		}{entry(b), made}, func(w io.Writer) {
			what := "bucket %s belongs to project %s (%s)\n"
			if made {
				what = "created " + what
			}
			fmt.Fprintf(w, what, b.Name, b.Project, b.ProjectID)
		})
	}
	list, err := accounts.Buckets(ctx)
	if err != nil {
		return err
	}
	doc := make([]entry, 0, len(list))
	for _, b := range list {
		doc = append(doc, entry(b))
	}
	var rows [][]string
	for _, b := range list {
		rows = append(rows, []string{b.Name, orNobody(b), b.ProjectID})
	}
	return s.table(doc, c.Wide, "no buckets", []column{{"BUCKET", soft, false}, {"PROJECT", soft, false}, {"PROJECT ID", whole, false}}, rows)
}

// orNobody is what a list shows as a bucket's project: one that was removed has no
// name.
func orNobody(b app.Bucket) string {
	switch {
	case b.ProjectID == "":
		return "(nobody)"
	case b.Project == "":
		return "(unknown)"
	}
	return b.Project
}
