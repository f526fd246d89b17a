package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// insertAll writes images as they are, in whatever state.
func (c fixture) insertAll(images []ims.Image) {
	c.t.Helper()
	must(c.t, c.db.InTx(c.t.Context(), func(tx *database.Tx) error {
		for _, img := range images {
			status := img.Status
			img.Status = ims.ImageKilled
			if err := insertImage(c.t.Context(), tx, img); err != nil {
				return err
			}
			set := "status = $2"
			switch status {
			case ims.ImageActive:
				set = "status = $2, active_at = created_at"
			case ims.ImageDeleted:
				status, set = ims.ImageKilled, "status = $2, deleted_at = created_at"
			}
			if _, err := tx.ExecContext(c.t.Context(), "UPDATE images SET "+set+" WHERE id = $1", img.ID, string(status)); err != nil {
				return err
			}
		}
		return nil
	}))
}

// attributeValues are such that a search in their JSON could go wrong; "" is unset.
var attributeValues = []string{
	"", "true", "TRUE", "true ", `true","__support_xen":"true`, `"__support_xen":"true"`, `true\`, `true\"`, "<é%_", "<", "\U0001f600",
}

// anyImage draws an image whose fields collide often.
func anyImage(t *rapid.T, project string) ims.Image {
	img, _ := newImport(project)
	img.Status = rapid.SampledFrom([]ims.ImageStatus{ims.ImageQueued, ims.ImageSaving, ims.ImageActive, ims.ImageActive, ims.ImageKilled, ims.ImageDeleted}).Draw(t, "status")
	img.Name = rapid.SampledFrom([]string{"a", "A", "a b", "a-b", "é", "z", "\U0001f600", "10", "9"}).Draw(t, "name")
	img.Env = rapid.SampledFrom([]ims.EnvType{ims.EnvECS, ims.EnvBMS, ims.EnvData}).Draw(t, "env")
	img.FileSize = rapid.SampledFrom([]int64{9, 10, ims.TiB}).Draw(t, "size")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	img.CreatedAt = start.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "created")) * time.Millisecond)
	img.UpdatedAt = img.CreatedAt.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "updated")) * time.Millisecond)
	img.OSType = rapid.SampledFrom([]string{"Linux", "Windows"}).Draw(t, "os_type")
	img.OSBit = rapid.SampledFrom([]string{"32", "64", ""}).Draw(t, "os_bit")
	img.Platform = rapid.SampledFrom([]string{"Ubuntu", "Red Hat", ""}).Draw(t, "platform")
	img.OSVersion = img.Platform + " 1"
	img.Architecture = rapid.SampledFrom([]string{ims.ArchX86, ims.ArchARM}).Draw(t, "architecture")
	img.Firmware = rapid.SampledFrom([]string{ims.FirmwareBIOS, ims.FirmwareUEFI}).Draw(t, "firmware")
	img.Protected = rapid.Bool().Draw(t, "protected")
	img.MinDiskGiB = rapid.IntRange(1, 2).Draw(t, "min_disk")
	img.MinRAMMiB = rapid.IntRange(0, 1).Draw(t, "min_ram")
	img.Attributes = map[string]string{}
	for _, name := range []string{"__support_xen", "__support_xen_gpu_type"} {
		if v := rapid.SampledFrom(attributeValues).Draw(t, name); v != "" {
			img.Attributes[name] = v
		}
	}
	img.Tags = nil
	for _, key := range []string{"k", "l"} {
		if v := rapid.SampledFrom([]string{"no", "", "1", "2"}).Draw(t, "tag "+key); v != "no" {
			img.Tags = append(img.Tags, ims.Tag{Key: key, Value: v})
		}
	}
	if img.Status == ims.ImageActive {
		img.Data = ims.Data{Key: "x", Format: rapid.SampledFrom([]string{"raw", "zvhd2"}).Draw(t, "format")}
		img.ActiveAt = img.CreatedAt
	}
	return img
}

// compareBy is the model of the order by a sort key.
func compareBy(order []ims.SortOrder) func(a, b ims.Image) int {
	return func(a, b ims.Image) int {
		for _, o := range append(slices.Clone(order), ims.SortOrder{Key: "id", Asc: order[len(order)-1].Asc}) {
			n := compareKey(o.Key, a, b)
			if !o.Asc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return 0
	}
}

func compareKey(key string, a, b ims.Image) int {
	switch key {
	case "created_at":
		return a.CreatedAt.Compare(b.CreatedAt)
	case "updated_at":
		return a.UpdatedAt.Compare(b.UpdatedAt)
	case "name":
		return strings.Compare(a.Name, b.Name)
	case "disk_format":
		return strings.Compare(a.Data.Format, b.Data.Format)
	case "status":
		return strings.Compare(string(a.Status), string(b.Status))
	case "size":
		return cmp.Compare(a.FileSize, b.FileSize)
	case "id":
		return strings.Compare(a.ID, b.ID)
	}
	return 0
}

// matches is the model of the filters.
func matches(img ims.Image, f ims.ImageFilter) bool {
	status := f.Status
	if len(status) == 0 {
		status = []ims.ImageStatus{ims.ImageQueued, ims.ImageSaving, ims.ImageActive}
	}
	if img.Status == ims.ImageDeleted || f.None || !slices.Contains(status, img.Status) ||
		len(f.IDs) > 0 && !slices.Contains(f.IDs, img.ID) || len(f.Names) > 0 && !slices.Contains(f.Names, img.Name) ||
		f.Env != "" && f.Env != img.Env || !matchesMachine(img, f) || !during(img.CreatedAt, f.Created) || !during(img.UpdatedAt, f.Updated) {
		return false
	}
	for name, want := range f.Attributes {
		if got, set := img.Attributes[name]; !set || got != want {
			return false
		}
	}
	for _, name := range f.Unset {
		if _, set := img.Attributes[name]; set {
			return false
		}
	}
	for _, part := range f.NameParts {
		if !strings.Contains(img.Name, part) {
			return false
		}
	}
	carries := func(want ims.TagCondition) bool {
		return slices.ContainsFunc(img.Tags, func(t ims.Tag) bool {
			return t.Key == want.Key && (len(want.Values) == 0 || slices.Contains(want.Values, t.Value))
		})
	}
	lacks := func(want ims.TagCondition) bool { return !carries(want) }
	return !slices.ContainsFunc(f.Tags, lacks) && (len(f.AnyTags) == 0 || slices.ContainsFunc(f.AnyTags, carries)) &&
		(len(f.NotAllTags) == 0 || slices.ContainsFunc(f.NotAllTags, lacks)) && !slices.ContainsFunc(f.NotAnyTags, carries) &&
		(!f.Untagged || len(img.Tags) == 0)
}

func matchesMachine(img ims.Image, f ims.ImageFilter) bool {
	for _, want := range [][2]string{
		{f.OSType, img.OSType}, {f.OSBit, img.OSBit}, {f.OSVersion, img.OSVersion}, {f.Architecture, img.Architecture},
		{f.Firmware, img.Firmware}, {f.DiskFormat, img.Data.Format},
	} {
		if want[0] != "" && want[0] != want[1] {
			return false
		}
	}
	return (len(f.Platforms) == 0 || slices.Contains(f.Platforms, img.Platform)) && (f.Protected == nil || *f.Protected == img.Protected) &&
		(f.MinDiskGiB == nil || *f.MinDiskGiB == img.MinDiskGiB) && (f.MinRAMMiB == nil || *f.MinRAMMiB == img.MinRAMMiB)
}

func during(at time.Time, f ims.TimeFilter) bool {
	in := (f.From.IsZero() || !at.Before(f.From)) && (f.Before.IsZero() || at.Before(f.Before))
	return in != f.Except
}

// anyTimes draws a filter around the times of anyImage.
func anyTimes(t *rapid.T, what string) ims.TimeFilter {
	bound := func(which string) time.Time {
		n := rapid.IntRange(-1, 6).Draw(t, which+" of "+what)
		if n < 0 {
			return time.Time{}
		}
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond)
	}
	return ims.TimeFilter{From: bound("from"), Before: bound("before"), Except: rapid.Bool().Draw(t, "except "+what)}
}

func anyFilter(t *rapid.T, images []ims.Image) ims.ImageFilter {
	f := ims.ImageFilter{
		Sort: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ims.SortOrder {
			return ims.SortOrder{Key: rapid.SampledFrom(ims.SortKeys).Draw(t, "sort_key"), Asc: rapid.Bool().Draw(t, "ascending")}
		}), 1, 3).Draw(t, "order"),
		Limit: rapid.IntRange(1, 5).Draw(t, "limit"),
	}
	some := func(what string) bool { return rapid.IntRange(0, 4).Draw(t, what) == 0 }
	if some("filter by status") {
		f.Status = rapid.SliceOfN(rapid.SampledFrom([]ims.ImageStatus{ims.ImageActive, ims.ImageKilled, ims.ImageDeleted, ims.ImageQueued}), 1, 3).Draw(t, "states")
	}
	if some("filter by name") {
		f.Names = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "A", "é", "\U0001f600", "x", "a\x00", "\xff"}), 1, 3).Draw(t, "names")
	}
	if some("filter by id") && len(images) > 0 {
		f.IDs = []string{images[rapid.IntRange(0, len(images)-1).Draw(t, "one")].ID, "no id\x00", images[0].ID}
	}
	if some("filter by env") {
		f.Env = rapid.SampledFrom([]ims.EnvType{ims.EnvECS, ims.EnvData, "\x00"}).Draw(t, "env")
	}
	text := func(what string, values ...string) string {
		if !some("filter by " + what) {
			return ""
		}
		return rapid.SampledFrom(values).Draw(t, what+" wanted")
	}
	// Seldom, so that not every list is empty.
	if some("filter by the machine") {
		f.OSType = text("os_type", "Linux", "Windows", "linux", "\x00")
		f.OSBit = text("os_bit", "32", "64", "128")
		f.OSVersion = text("os_version", "Ubuntu 1", "Ubuntu")
		f.Architecture = text("architecture", ims.ArchX86, ims.ArchARM, "\xff")
		f.Firmware = text("firmware", ims.FirmwareBIOS, ims.FirmwareUEFI)
		f.DiskFormat = text("disk_format", "raw", "zvhd2", "vhd")
		if some("filter by platform") {
			f.Platforms = []string{"RedHat", "Red Hat"}
		}
		if some("filter by protected") {
			f.Protected = new(rapid.Bool().Draw(t, "protected wanted"))
		}
		if some("filter by min_disk") {
			f.MinDiskGiB = new(rapid.IntRange(0, 2).Draw(t, "min_disk wanted"))
		}
		if some("filter by min_ram") {
			f.MinRAMMiB = new(rapid.IntRange(0, 2).Draw(t, "min_ram wanted"))
		}
	}
	if some("filter by time") {
		f.Created = anyTimes(t, "created")
	}
	if some("filter by time of change") {
		f.Updated = anyTimes(t, "updated")
	}
	if some("filter by attribute") {
		f.Attributes = map[string]string{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"__support_xen", "__support_xen_gpu_type", "gpu_type"}), 1, 2, rapid.ID).Draw(t, "attributes") {
			f.Attributes[name] = rapid.SampledFrom(append(attributeValues, "\x00", "\xff")).Draw(t, name+" wanted")
		}
	}
	if some("filter by attributes that are not set") {
		f.Unset = rapid.SliceOfN(rapid.SampledFrom([]string{"__support_xen", "__support_xen_gpu_type", "gpu_type", "true"}), 1, 2).Draw(t, "unset")
	}
	if some("filter by tag") {
		f.Tags = anyTags(t, "tags")
	}
	if some("filter by conditions on tags") {
		f.AnyTags, f.NotAllTags, f.NotAnyTags = anyTags(t, "any tags"), anyTags(t, "not all tags"), anyTags(t, "not any tags")
		f.Untagged = rapid.IntRange(0, 3).Draw(t, "untagged") == 0
	}
	if some("filter by a part of the name") {
		f.NameParts = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", " ", "-b", "\U0001f600", "\x00"}), 1, 2).Draw(t, "parts")
	}
	return f
}

func anyTags(t *rapid.T, what string) []ims.TagCondition {
	return rapid.SliceOfN(rapid.SampledFrom([]ims.TagCondition{
		ims.ParseTagFilter("k"), ims.ParseTagFilter("k="), ims.ParseTagFilter("k=1"), ims.ParseTagFilter("l=2"), ims.ParseTagFilter("l"), {Key: "\xff"},
		{Key: "k", Values: []string{"1", "", "\x00"}}, {Key: "l", Values: []string{"\x00"}}, {Key: "l", Values: []string{"1", "2"}},
	}), 0, 2).Draw(t, what)
}

// TestImagesPages compares the list with a model: every order, filter and page size,
// page by page, with images deleted between two pages.
func TestImagesPages(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		rapid.Check(t, func(rt *rapid.T) {
			project := ims.NewJobID() // of its own, so that the database can stay
			n := rapid.IntRange(0, 14).Draw(rt, "images")
			var images []ims.Image
			for range n {
				images = append(images, anyImage(rt, project))
			}
			c.insertAll(append(images, anyImage(rt, other)))
			f := anyFilter(rt, images)

			var want []ims.Image
			for _, img := range images {
				if matches(img, f) {
					want = append(want, img)
				}
			}
			slices.SortFunc(want, compareBy(f.Sort))
			if n, err := c.CountMatching(t.Context(), project, f); err != nil || n != len(want) {
				rt.Fatalf("filter %+v\ncounted %d, want %d: %v", f, n, len(want), err)
			}
			f.Offset = rapid.IntRange(0, len(want)+1).Draw(rt, "offset")
			behind, err := c.Images(t.Context(), project, f)
			must(t, err)
			if exp := want[min(f.Offset, len(want)):min(f.Offset+f.Limit, len(want))]; names(behind) != names(exp) {
				rt.Fatalf("filter %+v\npage %s\nwant %s", f, names(behind), names(exp))
			}
			f.Offset = 0
			for {
				page, err := c.Images(t.Context(), project, f)
				must(t, err)
				if exp := want[:min(f.Limit, len(want))]; names(page) != names(exp) {
					rt.Fatalf("filter %+v\npage %s\nwant %s", f, names(page), names(exp))
				}
				if len(page) == 0 {
					break
				}
				want = want[len(page):]
				last := page[len(page)-1]
				f.MarkerID = last.ID
				// Whoever reads page by page is not disturbed when the marker goes.
				if last.Status == ims.ImageActive && !last.Protected && rapid.Bool().Draw(rt, "delete the marker") {
					must(t, c.DeleteImage(t.Context(), project, last.ID, false))
				}
			}
		})
	})
}

func names(images []ims.Image) string {
	var b strings.Builder
	for _, img := range images {
		fmt.Fprintf(&b, "%s %q %s %v\n", img.ID, img.Name, img.Status, img.Tags)
	}
	return b.String()
}

func TestImagesRefuses(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		for _, f := range []ims.ImageFilter{
			{MarkerID: "nonsense"},
			{Sort: []ims.SortOrder{{Key: "id; DROP TABLE images"}}},
			{Names: make([]string, maxFilterValues+1)},
		} {
			_, err := c.Images(t.Context(), mine, f)
			wantCode(t, err, ims.CodeBadFormat)
		}
	})
}

// TestUnknownMarker: another project's image is as unknown as one that never was.
func TestUnknownMarker(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		c.accept(mine)
		theirs, _ := c.accept(other)
		for _, marker := range []string{theirs.ID, uuid.NewString()} {
			for _, asc := range []bool{false, true} {
				if list, err := c.Images(t.Context(), mine, ims.ImageFilter{MarkerID: marker, Sort: []ims.SortOrder{{Key: "created_at", Asc: asc}}}); err != nil || len(list) != 0 {
					t.Errorf("behind %s: %s %v", marker, names(list), err)
				}
			}
		}
	})
}

func TestImagesOfEnterpriseProject(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ep := c.enterprise("lab")
		inside, _ := c.active(mine)
		outside, _ := c.active(mine)
		must(t, c.MigrateResource(t.Context(), domain, mine, inside.ID, ep))
		for id, want := range map[string]int{"": 2, ims.AllEnterpriseProjects: 2, ep: 1, "0": 1, uuid.NewString(): 0, "\x00": 0} {
			list, err := c.Images(t.Context(), mine, ims.ImageFilter{EnterpriseProjectID: id})
			must(t, err)
			if len(list) != want || id == ep && list[0].ID != inside.ID || id == "0" && list[0].ID != outside.ID {
				t.Errorf("enterprise project %q lists %d images, want %d", id, len(list), want)
			}
		}
	})
}

// TestListLimits: no limit means the default one, none is above the highest.
func TestListLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		var images []ims.Image
		for range ims.DefaultListLimit + 1 {
			img, _ := newImport(mine)
			img.Status, img.CreatedAt, img.UpdatedAt = ims.ImageQueued, c.now(), c.now()
			images = append(images, img)
		}
		c.insertAll(images)
		for limit, want := range map[int]int{0: ims.DefaultListLimit, -1: ims.DefaultListLimit, 7: 7, 1 << 40: len(images)} {
			list, err := c.Images(t.Context(), mine, ims.ImageFilter{Limit: limit})
			must(t, err)
			if len(list) != want {
				t.Errorf("limit %d gives %d images, want %d", limit, len(list), want)
			}
		}
	})
}
