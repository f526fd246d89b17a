package wire

// OldImage is an image as version 1.1 of the native API lists it. Times are UTC in
// microseconds, without a zone.
type OldImage struct {
	ID              string            `json:"id"`
	Name            string            `json:"name"`
	Status          string            `json:"status"`
	Owner           string            `json:"owner"`
	IsPublic        bool              `json:"is_public"`
	Protected       bool              `json:"protected"`
	Deleted         bool              `json:"deleted"`
	ContainerFormat string            `json:"container_format"`
	DiskFormat      *string           `json:"disk_format"`
	MinDisk         int               `json:"min_disk"` // GiB
	MinRAM          int               `json:"min_ram"`  // MiB
	Size            *int64            `json:"size"`
	VirtualSize     *int64            `json:"virtual_size"`
	Checksum        *string           `json:"checksum"`
	Properties      map[string]string `json:"properties"`
	CreatedAt       string            `json:"created_at"`
	UpdatedAt       string            `json:"updated_at"`
	DeletedAt       *string           `json:"deleted_at"`
}

// OldImages are the images of such a list.
type OldImages struct {
	Images []OldImage `json:"images"`
}
