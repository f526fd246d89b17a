package wire

import "encoding/json"

// Image is an image as clients read it. The strings that hold numbers and
// booleans are the protocol's. What is not known yet is null; what need not be
// there is left out.
type Image struct {
	ID                  string   `json:"id"`
	Name                string   `json:"name"`
	Status              string   `json:"status"`
	Owner               string   `json:"owner"`
	Visibility          string   `json:"visibility"`
	Protected           bool     `json:"protected"`
	Tags                []string `json:"tags"`
	MinDisk             int      `json:"min_disk"` // GiB
	MinRAM              int      `json:"min_ram"`  // MiB
	MaxRAM              string   `json:"max_ram,omitempty"`
	Size                *int64   `json:"size"`         // bytes that /file gives
	VirtualSize         *int64   `json:"virtual_size"` // bytes of the disk
	Checksum            *string  `json:"checksum"`     // an MD5, which nothing here computes
	ContainerFormat     string   `json:"container_format"`
	DiskFormat          *string  `json:"disk_format"`
	File                string   `json:"file"`
	Self                string   `json:"self"`
	Schema              string   `json:"schema"`
	CreatedAt           string   `json:"created_at"`
	UpdatedAt           string   `json:"updated_at"`
	ActiveAt            *string  `json:"active_at"`
	VirtualEnvType      string   `json:"virtual_env_type"`
	EnterpriseProjectID string   `json:"enterprise_project_id"`
	Architecture        string   `json:"architecture,omitempty"`
	Firmware            string   `json:"hw_firmware_type"`
	LicenseType         string   `json:"license_type,omitempty"`
	OSVersion           *string  `json:"__os_version"`
	OSType              *string  `json:"__os_type"`
	OSBit               *string  `json:"__os_bit"`
	Platform            *string  `json:"__platform"`
	Description         string   `json:"__description"`
	ImageType           string   `json:"__imagetype"`
	ImageSourceType     string   `json:"__image_source_type"`
	ImageSize           *string  `json:"__image_size"` // bytes of the imported file
	IsRegistered        string   `json:"__isregistered"`
	DataOrigin          string   `json:"__data_origin"`
	RootOrigin          string   `json:"__root_origin"`
	LazyLoading         string   `json:"__lazyloading"`
	SequenceNum         string   `json:"__sequence_num"`
	SupportKVM          string   `json:"__support_kvm,omitempty"`
	SupportARM          string   `json:"__support_arm,omitempty"`

	// Attributes are the other patchable ones, beside the fields. They are not read.
	Attributes map[string]string `json:"-"`
}

// MarshalJSON puts the attributes beside the fields.
func (w Image) MarshalJSON() ([]byte, error) {
	type fieldsAlone Image
	out, err := json.Marshal(fieldsAlone(w))
	if err != nil {
		return nil, err
	}
	return Beside(out, w.Attributes)
}

// Beside adds members to the JSON text of an object that has some.
func Beside(object []byte, more map[string]string) ([]byte, error) {
	if len(more) == 0 {
		return object, nil
	}
	text, err := json.Marshal(more)
	if err != nil {
		return nil, err
	}
	object[len(object)-1] = ','
	return append(object, text[1:]...), nil
}
