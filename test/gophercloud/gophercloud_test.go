package gophercloud

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imageimport"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/members"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/tasks"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// tenant is a project of a running service, as its clients see it.
type tenant struct {
	*harness.Server
	image   *gophercloud.ServiceClient
	project string
}

// newSite starts a service: the first is its own project, the second another one.
func newSite(t *testing.T, opts harness.Options) (service, other tenant) {
	t.Helper()
	opts.S3 = true
	s := harness.Start(t, opts)
	args := []string{"account", "add", "--data", s.Dir, "--project", "other", "--user", "other", "--role", "admin"}
	if opts.Database != "" {
		args = append(args, "--database", opts.Database)
	}
	out, err := exec.Command(harness.Binary(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("account add: %v %s", err, out)
	}
	variable := func(name string) string {
		m := regexp.MustCompile(name + `='(.+)'`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("account add tells no %s: %s", name, out)
		}
		return string(m[1])
	}
	service = tenant{s, client(t, s, harness.User, harness.Password, harness.ProjectID), harness.ProjectID}
	project := variable("QUICKIMS_PROJECT_ID")
	return service, tenant{s, client(t, s, "other", variable("QUICKIMS_PASSWORD"), project), project}
}

// client finds the image service as Terraform does: by the catalogue.
func client(t *testing.T, s *harness.Server, user, password, project string) *gophercloud.ServiceClient {
	t.Helper()
	provider, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: s.API + "/v3", Username: user, Password: password, DomainName: "Default", Scope: &gophercloud.AuthScope{ProjectID: project},
	})
	must(t, err)
	image, err := openstack.NewImageV2(provider, gophercloud.EndpointOpts{Region: harness.Region})
	must(t, err)
	return image
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused wants an answer of the status.
func refused(t *testing.T, what string, err error, status int) {
	t.Helper()
	if !gophercloud.ResponseCodeIs(err, status) {
		t.Errorf("%s: %v, want status %d", what, err, status)
	}
}

func (w tenant) list(t *testing.T, opts images.ListOpts) (out []images.Image) {
	t.Helper()
	must(t, images.List(w.image, opts).EachPage(t.Context(), func(_ context.Context, p pagination.Page) (bool, error) {
		page, err := images.ExtractImages(p)
		out = append(out, page...)
		return true, err
	}))
	return out
}

func names(list []images.Image) (out []string) {
	for _, img := range list {
		out = append(out, img.Name)
	}
	slices.Sort(out)
	return out
}

// TestGophercloud calls all that gophercloud has of the image service, over SQLite and
// PostgreSQL.
func TestGophercloud(t *testing.T) {
	t.Parallel()
	version := strings.TrimPrefix(gophercloud.DefaultUserAgent, "gophercloud/")
	lib := compat.Client{Area: "OpenStack", Name: "gophercloud (" + version + ")", Version: version}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		walk(t, lib, "SQLite", harness.Options{})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		walk(t, lib, "PostgreSQL", harness.Options{Database: harness.Postgres(t)})
	})
}

func walk(t *testing.T, lib compat.Client, over string, opts harness.Options) {
	service, other := newSite(t, opts)
	disk := harness.Disk(7, 4)
	run := func(did string, test func(t *testing.T)) { lib.Run(t, compat.Case{Did: did, Over: over}, test) }

	var id string
	run("images.Create, Get", func(t *testing.T) {
		yes, private := true, images.ImageVisibilityPrivate
		img, err := images.Create(t.Context(), service.image, images.CreateOpts{
			Name: "web", Tags: []string{"b", "a"}, ContainerFormat: "bare", DiskFormat: "raw", MinDisk: 1, MinRAM: 64, Hidden: &yes, Protected: &yes, Visibility: &private,
			Properties: map[string]string{"hw_disk_bus": "virtio"},
		}).Extract()
		must(t, err)
		id = img.ID
		got, err := images.Get(t.Context(), service.image, id).Extract()
		must(t, err)
		for _, img := range []*images.Image{img, got} {
			if img.Name != "web" || !slices.Equal(img.Tags, []string{"a", "b"}) || img.Status != images.ImageStatusQueued || img.ContainerFormat != "bare" || img.DiskFormat != "raw" ||
				img.MinDiskGigabytes != 1 || img.MinRAMMegabytes != 64 || !img.Hidden || !img.Protected || img.Visibility != private || img.Owner != service.project ||
				img.Properties["hw_disk_bus"] != "virtio" || img.SizeBytes != 0 || img.CreatedAt.IsZero() || img.File == "" || img.Schema == "" {
				t.Errorf("image %+v", img)
			}
		}
		_, err = images.Create(t.Context(), service.image, images.CreateOpts{Name: "x", ID: id}).Extract()
		refused(t, "a second image of the id", err, http.StatusConflict)
	})
	run("imagedata.Upload, Download", func(t *testing.T) {
		must(t, imagedata.Upload(t.Context(), service.image, id, bytes.NewReader(disk)).ExtractErr())
		img, err := images.Get(t.Context(), service.image, id).Extract()
		must(t, err)
		sum := md5.Sum(disk)
		if img.Status != images.ImageStatusActive || img.SizeBytes != int64(len(disk)) || img.VirtualSize != int64(len(disk)) || img.Checksum != hex.EncodeToString(sum[:]) {
			t.Errorf("image %+v", img)
		}
		long := sha512.Sum512(disk)
		if img.Properties["os_hash_algo"] != "sha512" || img.Properties["os_hash_value"] != hex.EncodeToString(long[:]) {
			t.Errorf("hash %v %v", img.Properties["os_hash_algo"], img.Properties["os_hash_value"])
		}
		body, err := imagedata.Download(t.Context(), service.image, id).Extract()
		must(t, err)
		defer body.Close()
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%d bytes came back (%v)", len(got), err)
		}
		refused(t, "a second upload", imagedata.Upload(t.Context(), service.image, id, bytes.NewReader(disk)).ExtractErr(), http.StatusConflict)
		refused(t, "upload of qcow2", func() error {
			img, err := images.Create(t.Context(), service.image, images.CreateOpts{Name: "x", ContainerFormat: "bare", DiskFormat: "raw"}).Extract()
			must(t, err)
			defer func() { must(t, images.Delete(t.Context(), service.image, img.ID).ExtractErr()) }()
			return imagedata.Upload(t.Context(), service.image, img.ID, bytes.NewReader(append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...))).ExtractErr()
		}(), http.StatusUnsupportedMediaType)
	})
	run("images.Update", func(t *testing.T) {
		img, err := images.Update(t.Context(), service.image, id, images.UpdateOpts{
			images.ReplaceImageName{NewName: "renamed"}, images.ReplaceImageTags{NewTags: []string{"c"}}, images.ReplaceImageMinDisk{NewMinDisk: 2}, images.ReplaceImageMinRam{NewMinRam: 128},
			images.ReplaceImageProtected{NewProtected: false}, images.ReplaceImageHidden{NewHidden: false},
			images.UpdateImageProperty{Op: images.AddOp, Name: "os_distro", Value: "debian"}, images.UpdateImageProperty{Op: images.ReplaceOp, Name: "hw_disk_bus", Value: "scsi"},
		}).Extract()
		must(t, err)
		if img.Name != "renamed" || !slices.Equal(img.Tags, []string{"c"}) || img.MinDiskGigabytes != 2 || img.MinRAMMegabytes != 128 || img.Protected || img.Hidden ||
			img.Properties["os_distro"] != "debian" || img.Properties["hw_disk_bus"] != "scsi" {
			t.Errorf("image %+v", img)
		}
		img, err = images.Update(t.Context(), service.image, id, images.UpdateOpts{images.UpdateImageProperty{Op: images.RemoveOp, Name: "os_distro"}}).Extract()
		must(t, err)
		if _, there := img.Properties["os_distro"]; there {
			t.Errorf("the property stays: %v", img.Properties)
		}
		_, err = images.Update(t.Context(), service.image, id, images.UpdateOpts{images.ReplaceImageChecksum{Checksum: "x"}}).Extract()
		refused(t, "a checksum", err, http.StatusForbidden)
	})
	run("images.List", func(t *testing.T) {
		for _, name := range []string{"one", "two", "three"} {
			_, err := images.Create(t.Context(), service.image, images.CreateOpts{Name: name, Tags: []string{"listed"}}).Extract()
			must(t, err)
		}
		for what, tc := range map[string]struct {
			opts images.ListOpts
			want []string
		}{
			"in pages":   {images.ListOpts{Limit: 1}, []string{"one", "renamed", "three", "two"}},
			"by name":    {images.ListOpts{Name: "one"}, []string{"one"}},
			"by id":      {images.ListOpts{ID: id}, []string{"renamed"}},
			"by status":  {images.ListOpts{Status: images.ImageStatusActive}, []string{"renamed"}},
			"by tag":     {images.ListOpts{Tags: []string{"listed"}}, []string{"one", "three", "two"}},
			"by owner":   {images.ListOpts{Owner: service.project}, []string{"one", "renamed", "three", "two"}},
			"by format":  {images.ListOpts{DiskFormat: "raw", ContainerFormat: "bare"}, []string{"renamed"}},
			"public":     {images.ListOpts{Visibility: images.ImageVisibilityPublic}, nil},
			"hidden":     {images.ListOpts{Hidden: true}, nil},
			"by a time":  {images.ListOpts{CreatedAtQuery: &images.ImageDateQuery{Date: time.Now().Add(-time.Hour), Filter: images.FilterGT}}, []string{"one", "renamed", "three", "two"}},
			"sorted too": {images.ListOpts{Sort: "name:asc,created_at:desc", Name: "in:one,two"}, []string{"one", "two"}},
			"by members": {images.ListOpts{Visibility: images.ImageVisibilityShared, MemberStatus: images.ImageMemberStatusAll}, []string{"one", "three", "two"}}, // made so
		} {
			if got := names(service.list(t, tc.opts)); !slices.Equal(got, tc.want) {
				t.Errorf("%s: %q, want %q", what, got, tc.want)
			}
		}
		if got := other.list(t, images.ListOpts{}); len(got) != 0 {
			t.Errorf("another project lists %q", names(got))
		}
	})
	run("members.Create, List, Get, Update, Delete", func(t *testing.T) {
		must(t, images.Update(t.Context(), service.image, id, images.UpdateOpts{images.UpdateVisibility{Visibility: images.ImageVisibilityShared}}).Err)
		m, err := members.Create(t.Context(), service.image, id, other.project).Extract()
		must(t, err)
		if m.ImageID != id || m.MemberID != other.project || m.Status != "pending" || m.CreatedAt.IsZero() {
			t.Errorf("member %+v", m)
		}
		if _, err := imagedata.Download(t.Context(), other.image, id).Extract(); err == nil {
			t.Error("a member reads what it did not accept")
		}
		m, err = members.Update(t.Context(), other.image, id, other.project, members.UpdateOpts{Status: "accepted"}).Extract()
		if err != nil || m.Status != "accepted" {
			t.Errorf("accepted: %+v, %v", m, err)
		}
		pages, err := members.List(service.image, id).AllPages(t.Context())
		must(t, err)
		if list, err := members.ExtractMembers(pages); err != nil || len(list) != 1 || list[0].MemberID != other.project {
			t.Errorf("members %+v (%v)", list, err)
		}
		if m, err := members.Get(t.Context(), service.image, id, other.project).Extract(); err != nil || m.Status != "accepted" {
			t.Errorf("member %+v (%v)", m, err)
		}
		if got := names(other.list(t, images.ListOpts{Visibility: images.ImageVisibilityShared})); !slices.Equal(got, []string{"renamed"}) {
			t.Errorf("the member lists %q", got)
		}
		must(t, members.Delete(t.Context(), service.image, id, other.project).ExtractErr())
		_, err = members.Get(t.Context(), service.image, id, other.project).Extract()
		refused(t, "a member that was removed", err, http.StatusNotFound)
	})
	run("a public image", func(t *testing.T) {
		public := images.UpdateOpts{images.UpdateVisibility{Visibility: images.ImageVisibilityPublic}}
		must(t, images.Update(t.Context(), service.image, id, public).Err)
		if got := names(other.list(t, images.ListOpts{Visibility: images.ImageVisibilityPublic})); !slices.Equal(got, []string{"renamed"}) {
			t.Errorf("another project lists %q", got)
		}
		body, err := imagedata.Download(t.Context(), other.image, id).Extract()
		must(t, err)
		body.Close()
		refused(t, "a change of it", images.Update(t.Context(), other.image, id, images.UpdateOpts{images.ReplaceImageName{NewName: "x"}}).Err, http.StatusForbidden)
		refused(t, "its deletion", images.Delete(t.Context(), other.image, id).ExtractErr(), http.StatusNotFound)
		mine, err := images.Create(t.Context(), other.image, images.CreateOpts{Name: "mine"}).Extract()
		must(t, err)
		refused(t, "publishing", images.Update(t.Context(), other.image, mine.ID, public).Err, http.StatusForbidden)
		must(t, images.Update(t.Context(), service.image, id, images.UpdateOpts{images.UpdateVisibility{Visibility: images.ImageVisibilityPrivate}}).Err)
		_, err = images.Get(t.Context(), other.image, id).Extract()
		refused(t, "what was withdrawn", err, http.StatusNotFound)
	})
	run("imagedata.Stage, imageimport.Get, Create", func(t *testing.T) {
		info, err := imageimport.Get(t.Context(), service.image).Extract()
		must(t, err)
		if !slices.Contains(info.ImportMethods.Value, string(imageimport.GlanceDirectMethod)) {
			t.Errorf("import methods %v", info.ImportMethods.Value)
		}
		img, err := images.Create(t.Context(), service.image, images.CreateOpts{Name: "staged", ContainerFormat: "bare", DiskFormat: "raw"}).Extract()
		must(t, err)
		must(t, imagedata.Stage(t.Context(), service.image, img.ID, bytes.NewReader(disk)).ExtractErr())
		must(t, imageimport.Create(t.Context(), service.image, img.ID, imageimport.CreateOpts{Name: imageimport.GlanceDirectMethod}).ExtractErr())
		harness.Eventually(t, "the import", func() bool {
			got, err := images.Get(t.Context(), service.image, img.ID).Extract()
			return err == nil && got.Status == images.ImageStatusActive && got.SizeBytes == int64(len(disk))
		})
		refused(t, "web-download", imageimport.Create(t.Context(), service.image, img.ID, imageimport.CreateOpts{Name: imageimport.WebDownloadMethod, URI: "http://127.0.0.1/"}).ExtractErr(), http.StatusBadRequest)
	})
	run("tasks.List, Get", func(t *testing.T) {
		pages, err := tasks.List(service.image, tasks.ListOpts{Limit: 1, Status: tasks.TaskStatusSuccess, Type: "import"}).AllPages(t.Context())
		must(t, err)
		list, err := tasks.ExtractTasks(pages)
		if err != nil || len(list) < 2 {
			t.Fatalf("tasks %+v (%v)", list, err)
		}
		task, err := tasks.Get(t.Context(), service.image, list[0].ID).Extract()
		if err != nil || task.Type != "import" || task.Status != "success" || task.Owner != service.project {
			t.Errorf("task %+v (%v)", task, err)
		}
	})
	lib.Run(t, compat.Case{Did: "tasks.Create", Over: over, Result: "refused: 405"}, func(t *testing.T) {
		_, err := tasks.Create(t.Context(), service.image, tasks.CreateOpts{Type: "import", Input: map[string]any{}}).Extract()
		refused(t, "a task", err, http.StatusMethodNotAllowed)
	})
	run("images.Delete", func(t *testing.T) {
		must(t, images.Delete(t.Context(), service.image, id).ExtractErr())
		_, err := images.Get(t.Context(), service.image, id).Extract()
		refused(t, "what was deleted", err, http.StatusNotFound)
		refused(t, "a second deletion", images.Delete(t.Context(), service.image, id).ExtractErr(), http.StatusNotFound)
	})
}
