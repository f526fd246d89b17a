package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// imageColumns are the columns of an image, in the order of imageRow.fields.
const imageColumns = `id, project_id, enterprise_project_id, name, description, status, env,
	os_version, os_type, os_bit, platform, architecture, firmware, license_type,
	min_disk_gib, min_ram_mib, max_ram_mib, protected, attributes, source_url, file_size,
	data_bucket, data_version, data_key, data_etag, data_format, data_size, data_virtual_size,
	data_bitmap_key, data_bitmap_etag, data_bitmap_size, members, visibility, hidden, phase,
	disk_format, container_format, properties, md5, sha512, generation, created_at, updated_at, active_at`

// imageRow is an image as its columns hold it.
type imageRow struct {
	ims.Image
	phase                  ims.ImageStatus // what clients see in place of the status
	attributes, properties string
	created, updated       int64
	active                 sql.NullInt64
}

// fields are pointers to the values of imageColumns.
func (r *imageRow) fields() []any {
	return []any{
		&r.ID, &r.ProjectID, &r.EnterpriseProjectID, &r.Name, &r.Description, &r.Status, &r.Env,
		&r.OSVersion, &r.OSType, &r.OSBit, &r.Platform, &r.Architecture, &r.Firmware, &r.LicenseType,
		&r.MinDiskGiB, &r.MinRAMMiB, &r.MaxRAMMiB, &r.Protected, &r.attributes, &r.SourceURL, &r.FileSize,
		&r.Data.Bucket, &r.Data.Version, &r.Data.Key, &r.Data.ETag, &r.Data.Format, &r.Data.Size, &r.Data.VirtualSize,
		&r.Data.BitmapKey, &r.Data.BitmapETag, &r.Data.BitmapSize, &r.Members, &r.MadeVisible, &r.Hidden, &r.phase,
		&r.DiskFormat, &r.ContainerFormat, &r.properties, &r.MD5, &r.SHA512, &r.Data.Generation, &r.created, &r.updated, &r.active,
	}
}

func (r *imageRow) image() (ims.Image, error) {
	img := r.Image
	if err := json.Unmarshal([]byte(r.attributes), &img.Attributes); err != nil {
		return img, fmt.Errorf("image %s: its attributes: %w", img.ID, err)
	}
	if err := json.Unmarshal([]byte(r.properties), &img.Properties); err != nil {
		return img, fmt.Errorf("image %s: its properties: %w", img.ID, err)
	}
	if r.phase != "" {
		img.Status = r.phase
	}
	img.CreatedAt, img.UpdatedAt, img.ActiveAt = fromMilli(r.created), fromMilli(r.updated), fromNull(r.active)
	return img, nil
}

// insertImage writes a new image and its tags. One without a visibility is private.
func insertImage(ctx context.Context, tx *database.Tx, img ims.Image) error {
	attributes, properties, err := jsonColumns(img)
	if err != nil {
		return err
	}
	if img.MadeVisible == "" {
		img.MadeVisible = ims.VisibilityPrivate
	}
	// The same fields as for reading, so that the two can't drift apart. The drivers
	// follow the pointers.
	r := imageRow{Image: img, attributes: attributes, properties: properties, created: img.CreatedAt.UnixMilli(), updated: img.UpdatedAt.UnixMilli()}
	args := r.fields()
	if _, err := tx.ExecContext(ctx, "INSERT INTO images ("+imageColumns+") VALUES "+placeholders(1, len(args)), args...); err != nil {
		return fmt.Errorf("write image %s: %w", img.ID, err)
	}
	return putTags(ctx, tx, img.ProjectID, img.ID, img.Tags)
}

// jsonColumns are the columns of an image that hold JSON objects.
func jsonColumns(img ims.Image) (attributes, properties string, err error) {
	for _, column := range []struct {
		into *string
		of   map[string]string
	}{{&attributes, img.Attributes}, {&properties, img.Properties}} {
		if column.of == nil {
			column.of = map[string]string{}
		}
		text, err := json.Marshal(column.of)
		if err != nil {
			return "", "", err
		}
		*column.into = string(text)
	}
	return attributes, properties, nil
}

// placeholders is "($first, …)" for n arguments.
func placeholders(first, n int) string {
	var b strings.Builder
	b.WriteByte('(')
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	b.WriteByte(')')
	return b.String()
}

// selectImages reads images with their tags in one statement, so that they belong
// together. page is what follows FROM images; order repeats its ORDER BY columns.
func selectImages(ctx context.Context, q database.Querier, page, order string, args []any) ([]ims.Image, error) {
	query := "WITH page AS (SELECT " + imageColumns + " FROM images " + page + `)
		SELECT page.*, image_tags.tag_key, image_tags.tag_value
		FROM page LEFT JOIN image_tags ON image_tags.image_id = page.id ORDER BY ` + order
	var out []ims.Image
	err := each(ctx, q, query, args, func(rows *sql.Rows) error {
		var r imageRow
		var key, value sql.NullString
		if err := rows.Scan(append(r.fields(), &key, &value)...); err != nil {
			return err
		}
		if len(out) == 0 || out[len(out)-1].ID != r.ID {
			img, err := r.image()
			if err != nil {
				return err
			}
			out = append(out, img)
		}
		if key.Valid {
			last := &out[len(out)-1]
			last.Tags = append(last.Tags, ims.Tag{Key: key.String, Value: value.String})
		}
		return nil
	})
	for i := range out {
		slices.SortFunc(out[i].Tags, func(a, b ims.Tag) int { return strings.Compare(a.Key, b.Key) })
	}
	return out, err
}

// selectImage reads one image that is not deleted.
func selectImage(ctx context.Context, q database.Querier, projectID, id string) (ims.Image, error) {
	if !ims.ValidUUID(id) {
		return ims.Image{}, ErrNotFound
	}
	list, err := selectImages(ctx, q, "WHERE project_id = $1 AND id = $2 AND deleted_at IS NULL", "page.id", []any{projectID, id})
	if err != nil {
		return ims.Image{}, fmt.Errorf("read image %s: %w", id, err)
	}
	if len(list) == 0 {
		return ims.Image{}, ErrNotFound
	}
	return list[0], nil
}

// lockImage reads an image and keeps others from changing it, its tags included,
// until the transaction ends.
func lockImage(ctx context.Context, tx *database.Tx, projectID, id string) (ims.Image, error) {
	if !ims.ValidUUID(id) {
		return ims.Image{}, ErrNotFound
	}
	var one int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM images WHERE project_id = $1 AND id = $2 AND deleted_at IS NULL"+tx.ForUpdate(), projectID, id).Scan(&one)
	if err != nil {
		return ims.Image{}, orNotFound(err)
	}
	return selectImage(ctx, tx, projectID, id)
}
