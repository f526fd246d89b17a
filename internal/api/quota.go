package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// maxImageMembers is how many projects an image can be shared with (API reference,
// release 20251110).
const maxImageMembers = 256

// quota is GET /v1/cloudimages/quota: of image_shared the images that the project shares are
// used, image_member is of one image.
func (s *server) quota(c *call) error {
	used, err := s.Catalog.Quota(c.Context(), c.project())
	if err != nil {
		return err
	}
	shares, err := s.Catalog.CountMatching(c.Context(), c.project(), ims.ImageFilter{Owner: c.project(), SharedAlone: true})
	if err != nil {
		return err
	}
	var w wire.Quotas
	w.Quotas.Resources = []wire.Quota{
		{Type: "image", Used: used, Quota: s.Limits.Images, Max: s.Limits.Images},
		{Type: "image_shared", Used: shares, Quota: s.Limits.Images, Max: s.Limits.Images},
		{Type: "image_member", Quota: maxImageMembers, Max: maxImageMembers},
	}
	writeJSON(c.w, http.StatusOK, w)
	return nil
}

// osVersionWire is an operating system that a system disk image may hold.
type osVersionWire struct {
	Platform string `json:"platform"`
	Key      string `json:"os_version_key"`
	Version  string `json:"os_version"`
	Bit      int    `json:"os_bit"`
	Type     string `json:"os_type"`
}

// platformWire groups the operating systems of a platform.
type platformWire struct {
	Platform string          `json:"platform"`
	Versions []osVersionWire `json:"version_list"`
}

// osVersionTags are what the table can be asked for by.
var osVersionTags = []string{"x86", "arm", "uefi", "bms"}

// osVersions is GET /v1/cloudimages/os_version.
func (s *server) osVersions(c *call) error {
	q := readQuery(c.Request)
	tags := q.all("tag")
	for _, t := range tags {
		if !slices.Contains(osVersionTags, t) {
			q.refuse("tag is %q, it must be one of %s", ims.Clip(t), strings.Join(osVersionTags, ", "))
		}
	}
	if q.fault != nil {
		return q.fault
	}
	list, at := []platformWire{}, map[string]int{}
	for _, v := range s.OSVersions().With(tags...) {
		i, ok := at[v.Platform]
		if !ok {
			i = len(list)
			at[v.Platform] = i
			list = append(list, platformWire{Platform: v.Platform})
		}
		list[i].Versions = append(list[i].Versions, osVersionWire{
			Platform: v.Platform, Key: v.Version, Version: v.Version, Bit: v.Bit, Type: v.Type,
		})
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}
