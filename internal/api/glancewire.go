package api

import (
	"encoding/json"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// glanceImage is an image as clients of the OpenStack Image API read it. Sizes, formats
// and sums are of the bytes that /file delivers, whatever is stored. No key is the
// service's own: clients would plan to remove it.
type glanceImage struct {
	ID              string   `json:"id"`
	Name            *string  `json:"name"`
	Status          string   `json:"status"`
	Visibility      string   `json:"visibility"`
	Protected       bool     `json:"protected"`
	Hidden          bool     `json:"os_hidden"`
	Owner           string   `json:"owner"`
	DiskFormat      *string  `json:"disk_format"`
	ContainerFormat *string  `json:"container_format"`
	Size            *int64   `json:"size"`         // bytes
	VirtualSize     *int64   `json:"virtual_size"` // bytes
	Checksum        *string  `json:"checksum"`     // MD5, hex
	HashAlgorithm   *string  `json:"os_hash_algo"`
	HashValue       *string  `json:"os_hash_value"` // hex
	MinDisk         int      `json:"min_disk"`      // GiB
	MinRAM          int      `json:"min_ram"`       // MiB
	Tags            []string `json:"tags"`
	CreatedAt       string   `json:"created_at"`
	UpdatedAt       string   `json:"updated_at"`
	Self            string   `json:"self"`
	File            string   `json:"file"`
	Schema          string   `json:"schema"`

	// properties stand beside the fields; none has a field's name.
	properties map[string]string
}

// hashAlgorithm is the one of os_hash_value.
const hashAlgorithm = "sha512"

func newGlanceImage(img ims.Image) glanceImage {
	w := glanceImage{
		ID: img.ID, Name: known(img.Name), Status: string(img.Status), Visibility: string(img.Visibility()),
		Protected: img.Protected, Hidden: img.Hidden, Owner: img.ProjectID,
		DiskFormat: known(img.DiskFormat), ContainerFormat: known(img.ContainerFormat),
		MinDisk: img.MinDiskGiB, MinRAM: img.MinRAMMiB, Tags: []string{},
		CreatedAt: seconds(img.CreatedAt), UpdatedAt: seconds(img.UpdatedAt),
		Self: "/v2/images/" + img.ID, File: "/v2/images/" + img.ID + "/file", Schema: "/v2/schemas/image",
		properties: img.Properties,
	}
	for _, t := range img.Tags {
		w.Tags = append(w.Tags, t.String())
	}
	if img.Status == ims.ImageActive || img.Status == ims.ImageDeactivated {
		w.Size, w.VirtualSize = &img.Data.VirtualSize, &img.Data.VirtualSize
		w.Checksum, w.HashValue = known(img.MD5), known(img.SHA512)
		if img.SHA512 != "" {
			w.HashAlgorithm = known(hashAlgorithm)
		}
	}
	return w
}

// MarshalJSON puts the properties beside the fields.
func (w glanceImage) MarshalJSON() ([]byte, error) {
	type fieldsAlone glanceImage
	out, err := json.Marshal(fieldsAlone(w))
	if err != nil {
		return nil, err
	}
	return wire.Beside(out, w.properties)
}

// imageBody spells an image for the face that the call came by.
func (c *call) imageBody(img ims.Image) any {
	if c.face == faceGlance {
		return newGlanceImage(img)
	}
	return newImageWire(img, c.project())
}
