package api

import (
	"maps"
	"math"
	"strconv"
	"time"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// newImageWire shows an image to a project that sees it.
func newImageWire(img ims.Image, viewer string) wire.Image {
	w := wire.Image{
		ID: img.ID, Name: img.Name, Status: string(img.Status), Owner: img.ProjectID,
		Visibility: string(img.Visibility()), Protected: img.Protected, Tags: []string{},
		MinDisk: img.MinDiskGiB, MinRAM: img.MinRAMMiB, MaxRAM: img.MaxRAMMiB,
		ContainerFormat: "bare",
		File:            "/v2/images/" + img.ID + "/file", Self: "/v2/images/" + img.ID, Schema: "/v2/schemas/image",
		CreatedAt: seconds(img.CreatedAt), UpdatedAt: seconds(img.UpdatedAt),
		VirtualEnvType: string(img.Env), EnterpriseProjectID: img.EnterpriseProjectID,
		Architecture: img.Architecture, Firmware: img.Firmware, LicenseType: img.LicenseType,
		OSVersion: known(img.OSVersion), OSType: known(img.OSType), OSBit: known(img.OSBit), Platform: known(img.Platform),
		Description: img.Description, ImageType: "private", ImageSourceType: "uds",
		IsRegistered: "false", DataOrigin: "file," + img.SourceURL, RootOrigin: "file",
		LazyLoading: "true", SequenceNum: "0",
		Attributes: map[string]string{},
	}
	for name, value := range img.Properties {
		if ims.ShownProperty(name, value) {
			w.Attributes[name] = value
		}
	}
	maps.Copy(w.Attributes, img.Attributes)
	if img.PlainKVM() {
		w.SupportKVM = "true"
	}
	for _, t := range img.Tags {
		w.Tags = append(w.Tags, t.String())
	}
	if img.FileSize > 0 || img.SourceURL == "" {
		w.ImageSize = known(strconv.FormatInt(img.FileSize, 10))
	}
	if img.Architecture == ims.ArchARM {
		w.SupportARM = "true"
	}
	if img.ProjectID != viewer {
		// Where the owner has its files, and how it groups its images, is its own affair.
		w.ImageType, w.DataOrigin, w.EnterpriseProjectID = "shared", "file", ims.DefaultEnterpriseProject
	}
	if img.Visibility() == ims.VisibilityPublic {
		w.ImageType = "gold"
		w.Protected = w.Protected || img.ProjectID != viewer // who does not own it can't delete it
	}
	if img.Status == ims.ImageActive {
		// What a saving image is read from is not told.
		w.IsRegistered, w.DiskFormat = "true", known(img.Data.Format)
		w.Size, w.VirtualSize = &img.Data.VirtualSize, in32Bits(&img.Data.VirtualSize)
	}
	if img.SourceURL == "" {
		w.DataOrigin = "file" // it was uploaded, or nothing came yet
		if img.Status == ims.ImageQueued {
			w.DiskFormat = known(img.DiskFormat)
		}
	}
	if !img.ActiveAt.IsZero() {
		w.ActiveAt = known(seconds(img.ActiveAt))
	}
	return w
}

// newCloudImageWire shows an image in the answers of /v2/cloudimages, which clients
// read with narrower types than that of /v2/images/{image_id}.
func newCloudImageWire(img ims.Image, viewer string) wire.Image {
	w := newImageWire(img, viewer)
	w.Size = in32Bits(w.Size)
	return w
}

// in32Bits is nil, null on the wire, for a size that an int32 does not hold: the
// clouds' own SDKs (huaweicloud-sdk-go-v3 0.1.207, for one) read virtual_size, and in
// /v2/cloudimages size too, as int32 and fail on the whole answer otherwise.
func in32Bits(size *int64) *int64 {
	if size == nil || *size > math.MaxInt32 {
		return nil
	}
	return size
}

// known is nil, null on the wire, for the empty string.
func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// seconds is the form of an image's times: RFC 3339 in UTC.
func seconds(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// milliseconds is the form of a job's times.
func milliseconds(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
