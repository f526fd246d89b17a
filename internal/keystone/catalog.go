package keystone

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// service is an entry of the catalog.
type service struct {
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	Name      string     `json:"name"`
	Endpoints []endpoint `json:"endpoints"`
}

type endpoint struct {
	ID        string `json:"id"`
	Interface string `json:"interface"`
	Region    string `json:"region"`
	RegionID  string `json:"region_id"`
	URL       string `json:"url"`
}

// imagePrefix is the path of the image service: below it, clients add the version. It
// must not be the root, whose version document is Keystone's (decision 0020).
const imagePrefix = "/image"

// catalog says where the services are. Image clients of OpenStack and of the clouds
// look for the type "image" and add the version to its address; "identity" is this
// API; "s3" is the S3 face, which the clouds' clients look for as "object".
func (h *Handlers) catalog(r *http.Request, caller ims.Principal) []service {
	entries := []struct{ kind, name, url string }{
		{"image", "quickims", h.Root(r) + imagePrefix},
		{"identity", "quickims", h.identityURL(r)},
	}
	if s3 := h.s3URL(r); s3 != "" {
		entries = append(entries,
			struct{ kind, name, url string }{"s3", "quickims", s3},
			struct{ kind, name, url string }{"object", "quickims", s3})
	}
	regions := []string{h.opts.Region}
	// The clouds name a project after its region, with a suffix behind '_', and their
	// clients ask the catalog for the region that the project's name begins with. So
	// that a project may have any name, that region is there as well.
	if region, _, _ := strings.Cut(caller.ProjectName, "_"); region != "" && region != h.opts.Region {
		regions = append(regions, region)
	}
	var list []service
	for _, e := range entries {
		s := service{ID: stableID(e.kind), Type: e.kind, Name: e.name}
		for _, region := range regions {
			s.Endpoints = append(s.Endpoints, endpoint{
				ID: stableID(e.kind, region), Interface: "public", Region: region, RegionID: region, URL: e.url,
			})
		}
		list = append(list, s)
	}
	return list
}

// stableID is an id that is the same in every answer and every process.
func stableID(of ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return hex.EncodeToString(sum[:16])
}
