package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// TestOldImages: the deprecated calls.
func TestOldImages(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(map[string]any{"name": "old ü"}))
	c.accepted(t, dataDisk(nil))
	list := func(query string) []any {
		t.Helper()
		return c.expect(t, http.StatusOK, "GET", "/v1.1/images/detail"+query, "")["images"].([]any)
	}
	found := list("?name=old%20%C3%BC&status=active&disk_format=zvhd2&container_format=bare&size_min=0&size_max=0&changes-since=2020-01-01T00:00:00Z")
	if len(found) != 1 || len(list("")) != 2 || len(list("?changes-since=2100-01-01T00:00:00")) != 0 || len(list("?size_min=5000")) != 0 {
		t.Fatalf("found %v", found)
	}
	v := found[0].(map[string]any)
	if v["id"] != id || v["is_public"] != false || v["deleted"] != false || v["size"] != 4096.0 || v["owner"] != c.project || strings.HasSuffix(v["created_at"].(string), "Z") {
		t.Errorf("the image is %v", v)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", "/v1.1/images/detail?changes-since=yesterday", "")

	head := c.send(t, "HEAD", "/v1/images/"+id, "")
	for name, want := range map[string]string{"Id": id, "Name": "old ü", "Status": "active", "Is_public": "False", "Protected": "False", "Size": "4096",
		"Min_disk": "40", "Disk_format": "zvhd2", "Checksum": ""} {
		if got := head.header.Get("X-Image-Meta-" + name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if head.status != http.StatusOK {
		t.Errorf("HEAD: %d", head.status)
	}
	if a := c.send(t, "HEAD", "/v1/images/"+ims.NewImageID(), ""); a.status != http.StatusNotFound {
		t.Errorf("HEAD of an unknown image: %d", a.status)
	}
	if a := c.send(t, "DELETE", "/v1.1/images/"+id, ""); a.status != http.StatusNoContent || len(list("")) != 1 {
		t.Errorf("DELETE: %d %s", a.status, a.body)
	}
}
