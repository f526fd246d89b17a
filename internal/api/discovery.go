package api

import "net/http"

// imageVersion is an entry of the Image API's list of versions.
type imageVersion struct {
	ID     string        `json:"id"`
	Status string        `json:"status"`
	Links  []versionLink `json:"links"`
}

type versionLink struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// supportedVersions are the older versions of the Image API, the newest first. Those that
// promise several stores, an image cache or locations are not among them: glanceclient
// asks for these where it finds the exact id.
var supportedVersions = []string{"v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"}

// imageVersions is GET /image and its like: the versions of the Image API, whose routes
// lie below /image/v2.
func (s *server) imageVersions(c *call) error {
	status := http.StatusOK
	if c.URL.Path == "/"+imagePrefix || c.URL.Path == "/"+imagePrefix+"/" {
		status = http.StatusMultipleChoices // as the root of the Image API answers
	}
	return s.writeVersions(c, status, "/"+imagePrefix+"/v2/")
}

// bareVersions is GET /versions and its like, for clients that were told the bare root:
// the versions of IMS, which are spelt as the Image API's.
func (s *server) bareVersions(c *call) error {
	return s.writeVersions(c, http.StatusOK, "/v2/")
}

func (s *server) writeVersions(c *call, status int, path string) error {
	links := []versionLink{{Rel: "self", Href: s.Keystone.Root(c.Request) + path}}
	list := []imageVersion{{ID: "v2.9", Status: "CURRENT", Links: links}}
	for _, id := range supportedVersions {
		list = append(list, imageVersion{ID: id, Status: "SUPPORTED", Links: links})
	}
	writeJSON(c.w, status, struct {
		Versions []imageVersion `json:"versions"`
	}{list})
	return nil
}
