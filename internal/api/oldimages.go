package api

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// The deprecated calls of versions 1 and 1.1 of the native API.

// microseconds is the form of their times.
func microseconds(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000") }

func newOldImage(img ims.Image, viewer string) wire.OldImage {
	w := newImageWire(img, viewer)
	return wire.OldImage{
		ID: w.ID, Name: w.Name, Status: w.Status, Owner: w.Owner, IsPublic: img.Visibility() == ims.VisibilityPublic, Protected: w.Protected,
		ContainerFormat: w.ContainerFormat, DiskFormat: w.DiskFormat, MinDisk: w.MinDisk, MinRAM: w.MinRAM, Size: w.Size, VirtualSize: w.VirtualSize,
		Checksum: w.Checksum, Properties: w.Attributes, CreatedAt: microseconds(img.CreatedAt), UpdatedAt: microseconds(img.UpdatedAt),
	}
}

// listOldImages is GET /v1.1/images/detail. changes-since is a time; the other filters are
// those of GET /v2/cloudimages.
func (s *server) listOldImages(c *call) error {
	q := readQuery(c.Request)
	since := q.one("changes-since")
	filter, err := readImageFilter(q, ims.DefaultListLimit)
	if err != nil {
		return err
	}
	if since != "" {
		at, err := time.Parse(time.RFC3339, since)
		if err != nil {
			at, err = time.Parse("2006-01-02T15:04:05", since)
		}
		if err != nil {
			return ims.Faultf(ims.CodeBadFormat, "changes-since is %q; it must be a time such as 2026-01-31T08:00:00Z", ims.Clip(since))
		}
		filter.Updated = ims.TimeFilter{From: at}
	}
	images, err := s.Catalog.Images(c.Context(), c.project(), filter)
	if err != nil {
		return err
	}
	list := wire.OldImages{Images: []wire.OldImage{}}
	for _, img := range images {
		list.Images = append(list.Images, newOldImage(img, c.project()))
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

// headImage is HEAD /v1/images/{image_id}: the image in headers. What is not known is not
// there.
func (s *server) headImage(c *call) error {
	img, _, err := s.visibleImage(c)
	if err != nil {
		return err
	}
	w := newOldImage(img, c.project())
	truth := func(b bool) string {
		if b {
			return "True"
		}
		return "False"
	}
	size := ""
	if w.Size != nil {
		size = strconv.FormatInt(*w.Size, 10)
	}
	h := c.w.Header()
	for name, value := range map[string]string{
		"Id": w.ID, "Name": headerText(w.Name), "Status": w.Status, "Owner": w.Owner, "Is_public": truth(w.IsPublic), "Protected": truth(w.Protected),
		"Deleted": truth(w.Deleted), "Container_format": w.ContainerFormat, "Disk_format": *cmp.Or(w.DiskFormat, new(string)), "Size": size,
		"Min_disk": strconv.Itoa(w.MinDisk), "Min_ram": strconv.Itoa(w.MinRAM), "Created_at": w.CreatedAt, "Updated_at": w.UpdatedAt,
	} {
		if value != "" {
			h.Set("X-Image-Meta-"+name, value)
		}
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// headerText is a text of one line as a header has it.
func headerText(s string) string {
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s), "?")
}
