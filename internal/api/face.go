package api

import (
	"net/url"
	"strings"
)

// The image service has two faces over one core. Under /v1 and /v2 it speaks IMS. Under
// /image, the address in the catalogue, it speaks the same, but for the calls of the
// OpenStack Image API, /image/v2/images… and its like, which speak as Glance does. The
// two spell an image, its tags, its states and its filters differently; what they do is
// the same code. A route says which face it is.

// face is how an answer is spelt.
type face int

const (
	faceIMS    face = iota
	faceGlance      // the OpenStack Image API
)

// imagePrefix is the first segment of the image service's address.
const imagePrefix = "image"

// prefixed reports whether a path is one of the image service below /image: all that is
// under /v1 and /v2 is there too. A signature is verified over the path as it was sent.
func prefixed(parts []string) bool {
	return len(parts) > 1 && parts[0] == imagePrefix && (parts[1] == "v1" || parts[1] == "v2" || parts[1] == "v2.1")
}

// belowImage reports whether a request came by the catalogue's address.
func belowImage(u *url.URL) bool { return strings.HasPrefix(u.Path, "/"+imagePrefix+"/") }
