package client

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// QuickImport asks for a quick import and gives the id of its job. It is not
// repeated when there is no answer: it could then have been accepted twice.
func (c *Client) QuickImport(ctx context.Context, r ims.ImportRequest) (jobID string, err error) {
	type tag struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	var tags []tag
	for _, t := range r.ImageTags {
		tags = append(tags, tag{t.Key, t.Value})
	}
	return c.accepted(ctx, []string{"v2", "cloudimages", "quickimport", "action"}, struct {
		Name                *string  `json:"name,omitempty"`
		Description         *string  `json:"description,omitempty"`
		OSVersion           *string  `json:"os_version,omitempty"`
		OSType              *string  `json:"os_type,omitempty"`
		ImageURL            *string  `json:"image_url,omitempty"`
		MinDisk             *int64   `json:"min_disk,omitempty"`
		Tags                []string `json:"tags,omitempty"`
		ImageTags           []tag    `json:"image_tags,omitempty"`
		Type                *string  `json:"type,omitempty"`
		EnterpriseProjectID *string  `json:"enterprise_project_id,omitempty"`
		Architecture        *string  `json:"architecture,omitempty"`
		Firmware            *string  `json:"hw_firmware_type,omitempty"`
		LicenseType         *string  `json:"license_type,omitempty"`
	}{
		r.Name, r.Description, r.OSVersion, r.OSType, r.ImageURL, r.MinDisk, r.Tags, tags, r.Type,
		r.EnterpriseProjectID, r.Architecture, r.Firmware, r.LicenseType,
	})
}

// accepted sends a request that a job carries out, and gives the job's id.
func (c *Client) accepted(ctx context.Context, path []string, request any) (jobID string, err error) {
	body, err := c.do(ctx, http.MethodPost, path, nil, request)
	if err != nil {
		return "", err
	}
	var wire struct {
		JobID string `json:"job_id"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return "", fmt.Errorf("read the answer to POST /%s: %w", strings.Join(path, "/"), err)
	}
	if wire.JobID == "" {
		return "", fmt.Errorf("the service accepted POST /%s but named no job", strings.Join(path, "/"))
	}
	return wire.JobID, nil
}

// Copy asks for a copy of an image and gives the id of its job. Like an import it is not
// repeated when there is no answer.
func (c *Client) Copy(ctx context.Context, id string, r ims.CopyRequest) (jobID string, err error) {
	return c.accepted(ctx, []string{"v1", "cloudimages", id, "copy"}, struct {
		Name                *string `json:"name,omitempty"`
		Description         *string `json:"description,omitempty"`
		EnterpriseProjectID *string `json:"enterprise_project_id,omitempty"`
	}{r.Name, r.Description, r.EnterpriseProjectID})
}

// Export asks for an image to be written to a bucket and gives the id of its job.
func (c *Client) Export(ctx context.Context, id string, r ims.ExportRequest) (jobID string, err error) {
	return c.accepted(ctx, []string{"v1", "cloudimages", id, "file"}, struct {
		BucketURL *string `json:"bucket_url,omitempty"`
		Format    *string `json:"file_format,omitempty"`
		Quick     *bool   `json:"is_quick_export,omitempty"`
	}{r.BucketURL, r.Format, r.Quick})
}

// Image is an image as the service shows it: some fields to work with, and all of
// them in Raw.
type Image struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	MinDisk   int64  `json:"min_disk"` // GiB
	OSVersion string `json:"__os_version"`
	Env       string `json:"virtual_env_type"`
	CreatedAt string `json:"created_at"`
	// DiskFormat is that of the stored data: raw or zvhd2; "" until the image is active.
	DiskFormat string   `json:"disk_format"`
	Tags       []string `json:"tags"`
	// Size is __image_size, the file's bytes in decimal.
	Size string `json:"__image_size"`
	// DataOrigin is "file," and the object that the image was made from.
	DataOrigin string `json:"__data_origin"`
	// Raw is the service's own document.
	Raw json.RawMessage `json:"-"`
}

func readImage(body json.RawMessage) (Image, error) {
	img := Image{Raw: body}
	if err := json.Unmarshal(body, &img); err != nil {
		return Image{}, fmt.Errorf("read an image: %w", err)
	}
	return img, nil
}

// Image asks for one image.
func (c *Client) Image(ctx context.Context, id string) (Image, error) {
	body, err := c.do(ctx, http.MethodGet, []string{"v2", "images", id}, nil, nil)
	if err != nil {
		return Image{}, err
	}
	return readImage(body)
}

// Disk gives the bytes of an active image's disk, size of them, as a stream that
// the caller closes. One that ends early ends with an error.
func (c *Client) Disk(ctx context.Context, id string) (disk io.ReadCloser, size int64, err error) {
	req, err := c.request(ctx, http.MethodGet, []string{"v2", "images", id, "file"}, nil, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/octet-stream") // it is not among what is signed
	resp, err := c.send(c.streams, req)
	if err != nil {
		return nil, 0, err
	}
	if resp.ContentLength < 0 {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("%s: the service does not say how large the disk is", what(req))
	}
	return &diskBody{req: req, body: resp.Body, requestID: resp.Header.Get("X-Request-Id")}, resp.ContentLength, nil
}

// diskBody is a stream whose errors say what was read. That it ends early is for
// net/http to notice, which knows the length.
type diskBody struct {
	req       *http.Request
	body      io.ReadCloser
	requestID string // for the service's log; "" when the service gave none
	read      int64  // bytes
}

func (d *diskBody) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.broken(err)
	}
	return n, err
}

// broken says that the stream broke, or that the caller gave up. The service breaks a
// stream off, too, where it can't read the image: an answer that has begun holds no
// error.
func (d *diskBody) broken(err error) error {
	if cause := context.Cause(d.req.Context()); cause != nil {
		return cause
	}
	look := ""
	if d.requestID != "" {
		look = " [request id " + d.requestID + "]"
	}
	return fmt.Errorf("%s: the answer broke off after %d bytes: the service was cut off, or it can't read the image there: its log says why%s: %w",
		what(d.req), d.read, look, err)
}

func (d *diskBody) Close() error { return d.body.Close() }

// DeleteImage deletes one image. force ends its attachments, which keep it otherwise.
func (c *Client) DeleteImage(ctx context.Context, id string, force bool) error {
	var body any
	if force {
		body = struct {
			Force bool `json:"force"`
		}{true}
	}
	_, err := c.do(ctx, http.MethodDelete, []string{"v2", "images", id}, nil, body)
	return err
}

// Images lists the images that match filter, a query of GET /v2/cloudimages, page
// by page. most bounds how many, 0 for all.
func (c *Client) Images(ctx context.Context, filter url.Values, most int) ([]Image, error) {
	query := url.Values{}
	for k, v := range filter {
		query[k] = v
	}
	var all []Image
	for {
		page := ims.DefaultListLimit
		if most > 0 {
			page = min(page, most-len(all))
		}
		query.Set("limit", strconv.Itoa(page))
		body, err := c.do(ctx, http.MethodGet, []string{"v2", "cloudimages"}, query, nil)
		if err != nil {
			return nil, err
		}
		var wire struct {
			Images []json.RawMessage `json:"images"`
		}
		if err := json.Unmarshal(body, &wire); err != nil {
			return nil, fmt.Errorf("read the list of images: %w", err)
		}
		for _, raw := range wire.Images {
			img, err := readImage(raw)
			if err != nil {
				return nil, err
			}
			all = append(all, img)
		}
		if len(wire.Images) < page || most > 0 && len(all) >= most {
			return all, nil
		}
		last := all[len(all)-1].ID
		if last == "" || last == query.Get("marker") {
			return nil, errors.New("read the list of images: the service repeats a page")
		}
		query.Set("marker", last)
	}
}

// Quota is how many images the project has and may have.
func (c *Client) Quota(ctx context.Context) (used, quota int, err error) {
	body, err := c.do(ctx, http.MethodGet, []string{"v1", "cloudimages", "quota"}, nil, nil)
	if err != nil {
		return 0, 0, err
	}
	var doc wire.Quotas
	if err := json.Unmarshal(body, &doc); err != nil {
		return 0, 0, fmt.Errorf("read the quota: %w", err)
	}
	for _, r := range doc.Quotas.Resources {
		if r.Type == "image" {
			return r.Used, r.Quota, nil
		}
	}
	return 0, 0, errors.New("read the quota: the answer has no resource of type image")
}

// OSVersions is the service's table of operating systems: what it comes with and
// what its operator added.
func (c *Client) OSVersions(ctx context.Context) (*ims.OSVersions, error) {
	body, err := c.do(ctx, http.MethodGet, []string{"v1", "cloudimages", "os_version"}, nil, nil)
	if err != nil {
		return nil, err
	}
	var wire []struct {
		Versions []struct {
			Platform string `json:"platform"`
			Version  string `json:"os_version"`
			Bit      int    `json:"os_bit"`
			Type     string `json:"os_type"`
		} `json:"version_list"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("read the operating systems: %w", err)
	}
	var table bytes.Buffer
	rows := csv.NewWriter(&table)
	rows.Write([]string{"os_version", "platform", "os_type", "os_bit", "source", "tags"})
	for _, p := range wire {
		for _, v := range p.Versions {
			rows.Write([]string{v.Version, v.Platform, v.Type, strconv.Itoa(v.Bit), "service", ""})
		}
	}
	rows.Flush() // into memory: it can't fail
	known, err := ims.DefaultOSVersions().Extend(&table)
	if err != nil {
		return nil, fmt.Errorf("read the operating systems: %w", err)
	}
	return known, nil
}
