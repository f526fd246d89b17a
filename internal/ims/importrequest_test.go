package ims

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func ptr[T any](v T) *T { return &v }

func systemRequest() ImportRequest {
	return ImportRequest{
		Name: ptr("image01"), OSVersion: ptr("Ubuntu 22.04 server 64bit"),
		ImageURL: ptr("bucket-1:dir/image01.raw"), MinDisk: ptr(int64(40)),
	}
}

func dataRequest() ImportRequest {
	return ImportRequest{
		Name: ptr("data01"), Type: ptr("DataImage"), ImageURL: ptr("bucket-1:data01.zvhd2"), MinDisk: ptr(int64(1)),
	}
}

func TestValidateFillsInDefaults(t *testing.T) {
	t.Parallel()
	s, err := systemRequest().Validate(DefaultOSVersions())
	if err != nil {
		t.Fatal(err)
	}
	if s.Env != EnvECS || s.Architecture != ArchX86 || s.Firmware != FirmwareBIOS || s.EnterpriseProjectID != "0" ||
		s.OS.Platform != "Ubuntu" || s.OS.Type != "Linux" || s.OS.Bit != 64 || s.Bucket != "bucket-1" || s.Key != "dir/image01.raw" ||
		s.JobType() != JobImportSystem {
		t.Errorf("system disk: %+v", s)
	}
	s, err = dataRequest().Validate(DefaultOSVersions())
	if err != nil {
		t.Fatal(err)
	}
	if s.Env != EnvData || s.OS.Type != "Linux" || s.OS.Version != "" || s.JobType() != JobImportData {
		t.Errorf("data disk: %+v", s)
	}
	more := systemRequest()
	more.Description, more.MinRAM, more.MaxRAM, more.CMKID = ptr("two\nlines\t"), ptr(int64(512)), ptr(int64(1024)), ptr("")
	s, err = more.Validate(DefaultOSVersions())
	if err != nil {
		t.Fatal(err)
	}
	if img := s.NewImage("id", "project"); img.Description != "two\nlines\t" || img.MinRAMMiB != 512 || img.MaxRAMMiB != "1024" {
		t.Errorf("image: %+v", img)
	}
	arm := systemRequest()
	arm.Architecture = ptr("arm")
	if s, err = arm.Validate(DefaultOSVersions()); err != nil || s.Firmware != FirmwareUEFI {
		t.Errorf("arm has firmware %q, want uefi (%v)", s.Firmware, err)
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	change := func(f func(*ImportRequest)) ImportRequest { r := systemRequest(); f(&r); return r }
	data := func(f func(*ImportRequest)) ImportRequest { r := dataRequest(); f(&r); return r }
	eleven := make([]string, 11)
	for i := range eleven {
		eleven[i] = "k" + string(rune('a'+i)) + ".v"
	}
	tests := []struct {
		name   string
		r      ImportRequest
		code   Code
		detail string // part of the detail: the field at fault
	}{
		{"no name", change(func(r *ImportRequest) { r.Name = nil }), CodeNameMissing, "name"},
		{"empty name", change(func(r *ImportRequest) { r.Name = ptr("") }), CodeNameMissing, "name"},
		{"long name", change(func(r *ImportRequest) { r.Name = ptr(strings.Repeat("é", 129)) }), CodeNameTooLong, "129"},
		{"name with a slash", change(func(r *ImportRequest) { r.Name = ptr("a/b") }), CodeNameFormat, "name"},
		{"name with a leading space", change(func(r *ImportRequest) { r.Name = ptr(" a") }), CodeNameFormat, "space"},
		{"name with a trailing space", change(func(r *ImportRequest) { r.Name = ptr("a ") }), CodeNameFormat, "space"},
		{"name that is not UTF-8", change(func(r *ImportRequest) { r.Name = ptr("a\xff") }), CodeNameFormat, "name"},
		{"long description", change(func(r *ImportRequest) { r.Description = ptr(strings.Repeat("x", 1025)) }), CodeDescriptionTooLong, "1025"},
		{"description with <", change(func(r *ImportRequest) { r.Description = ptr("a<b") }), CodeDescriptionFormat, "description"},
		{"description with CR", change(func(r *ImportRequest) { r.Description = ptr("a\rb") }), CodeDescriptionFormat, "description"},
		{"description with a bell", change(func(r *ImportRequest) { r.Description = ptr("a\ab") }), CodeDescriptionFormat, "description"},
		{"description with C1", change(func(r *ImportRequest) { r.Description = ptr("a\u0085b") }), CodeDescriptionFormat, "description"},
		{"min_ram negative", change(func(r *ImportRequest) { r.MinRAM = ptr(int64(-1)) }), CodeDiskSize, "min_ram"},
		{"min_ram too big", change(func(r *ImportRequest) { r.MinRAM = ptr(int64(maxRAMMiB + 1)) }), CodeDiskSize, "min_ram"},
		{"max_ram too big", change(func(r *ImportRequest) { r.MaxRAM = ptr(int64(math.MaxInt64)) }), CodeDiskSize, "max_ram"},
		{"max_ram below min_ram", change(func(r *ImportRequest) { r.MinRAM, r.MaxRAM = ptr(int64(2)), ptr(int64(1)) }), CodeDiskSize, "max_ram 1 MiB"},
		{"a key to encrypt with", change(func(r *ImportRequest) { r.CMKID = ptr("0f0f") }), CodeUnsupported, "cmk_id"},
		{"no os_version", change(func(r *ImportRequest) { r.OSVersion = nil }), CodeOSVersion, "os_version"},
		{"unknown os_version", change(func(r *ImportRequest) { r.OSVersion = ptr("Plan 9") }), CodeOSVersion, "Plan 9"},
		{"unknown os_type", data(func(r *ImportRequest) { r.OSType = ptr("BeOS") }), CodeOSType, "BeOS"},
		{"no image_url", change(func(r *ImportRequest) { r.ImageURL = nil }), CodeURLFormat, "image_url"},
		{"image_url without colon", change(func(r *ImportRequest) { r.ImageURL = ptr("bucket/key") }), CodeURLFormat, "bucket/key"},
		{"image_url without object", change(func(r *ImportRequest) { r.ImageURL = ptr("bucket:") }), CodeURLFormat, "object"},
		{"image_url with ..", change(func(r *ImportRequest) { r.ImageURL = ptr("bucket:a/../b") }), CodeURLFormat, "segment"},
		{"image_url with a leading slash", change(func(r *ImportRequest) { r.ImageURL = ptr("bucket:/etc/passwd") }), CodeURLFormat, "segment"},
		{"image_url with NUL", change(func(r *ImportRequest) { r.ImageURL = ptr("bucket:a\x00b") }), CodeURLFormat, "object"},
		{"empty bucket", change(func(r *ImportRequest) { r.ImageURL = ptr(":key") }), CodeBucketEmpty, "bucket"},
		{"bad bucket name", change(func(r *ImportRequest) { r.ImageURL = ptr("Bucket_1:key") }), CodeBucketName, "Bucket_1"},
		{"bucket ..", change(func(r *ImportRequest) { r.ImageURL = ptr("..:key") }), CodeBucketName, ".."},
		{"space in image_url", change(func(r *ImportRequest) { r.ImageURL = ptr("bucket:my key") }), CodeSpaces, "space"},
		{"no min_disk", change(func(r *ImportRequest) { r.MinDisk = nil }), CodeDiskSize, "min_disk"},
		{"min_disk 0", change(func(r *ImportRequest) { r.MinDisk = ptr(int64(0)) }), CodeDiskSize, "0"},
		{"min_disk 1025", change(func(r *ImportRequest) { r.MinDisk = ptr(int64(1025)) }), CodeDiskSize, "1025"},
		{"min_disk negative", change(func(r *ImportRequest) { r.MinDisk = ptr(int64(-1)) }), CodeDiskSize, "-1"},
		{"unknown type", change(func(r *ImportRequest) { r.Type = ptr("VM") }), CodeTypeUnknown, "VM"},
		{"both tag forms", change(func(r *ImportRequest) { r.Tags = []string{"a.b"}; r.ImageTags = []Tag{{"c", "d"}} }), CodeTag, "image_tags"},
		{"tag without dot", change(func(r *ImportRequest) { r.Tags = []string{"ab"} }), CodeTag, "ab"},
		{"tag with a bad character", change(func(r *ImportRequest) { r.Tags = []string{"a b.c"} }), CodeTag, "a b.c"},
		{"tag with two dots", change(func(r *ImportRequest) { r.Tags = []string{"a.b.c"} }), CodeTag, "a.b.c"},
		{"tag without key", change(func(r *ImportRequest) { r.ImageTags = []Tag{{" ", "v"}} }), CodeTag, "key"},
		{"long tag key", change(func(r *ImportRequest) { r.ImageTags = []Tag{{strings.Repeat("k", 37), "v"}} }), CodeTag, "37"},
		{"long tag value", change(func(r *ImportRequest) { r.ImageTags = []Tag{{"k", strings.Repeat("v", 44)}} }), CodeTag, "44"},
		{"duplicate tag keys", change(func(r *ImportRequest) { r.ImageTags = []Tag{{"k", "1"}, {" k ", "2"}} }), CodeTag, "twice"},
		{"eleven tags", change(func(r *ImportRequest) { r.Tags = eleven }), CodeTagQuota, "11"},
		{"enterprise project no UUID", change(func(r *ImportRequest) { r.EnterpriseProjectID = ptr("x") }), CodeEnterpriseProject, "enterprise_project_id"},
		{"unknown architecture", change(func(r *ImportRequest) { r.Architecture = ptr("mips") }), CodeArchitecture, "mips"},
		{"unknown firmware", change(func(r *ImportRequest) { r.Firmware = ptr("coreboot") }), CodeFirmware, "coreboot"},
		{"bios with arm", change(func(r *ImportRequest) { r.Architecture = ptr("arm"); r.Firmware = ptr("bios") }), CodeFirmware, "arm"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tt.r.Validate(DefaultOSVersions())
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error is %v, want code %s", err, tt.code)
			}
			if e.Code != tt.code || !strings.Contains(e.Detail, tt.detail) {
				t.Errorf("got %s %q, want %s and a detail with %q", e.Code, e.Detail, tt.code, tt.detail)
			}
			if e.Kind() != KindInvalid {
				t.Errorf("kind %d, want KindInvalid", e.Kind())
			}
		})
	}
}

// Whatever a stranger sends, what passes keeps every limit.
func TestValidateKeepsLimits(t *testing.T) {
	t.Parallel()
	known := DefaultOSVersions()
	rapid.Check(t, func(t *rapid.T) {
		r := systemRequest()
		r.Name = ptr(rapid.String().Draw(t, "name"))
		r.ImageURL = ptr(rapid.StringMatching(`[a-z.:/ -]{0,20}:.{0,20}`).Draw(t, "url"))
		r.MinDisk = ptr(rapid.Int64().Draw(t, "min_disk"))
		if rapid.Bool().Draw(t, "has tags") {
			r.ImageTags = []Tag{{rapid.String().Draw(t, "key"), rapid.String().Draw(t, "value")}}
		}
		s, err := r.Validate(known)
		if err != nil {
			if CodeOf(err) == "" {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		if len([]rune(s.Name)) > MaxName || s.MinDiskGiB < 1 || s.MinDiskGiB > MaxDiskGiB || !ValidBucketName(s.Bucket) || !ValidKey(s.Key) ||
			strings.HasPrefix(s.Key, "/") || strings.Contains("/"+s.Key+"/", "/../") {
			t.Fatalf("passed: %+v", s)
		}
	})
}

func TestBitmapKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"image01.raw": "image01.mf", "a.b/image01": "a.b/image01.mf", "d/e/x.tar.raw": "d/e/x.tar.mf", ".raw": ".raw.mf", "x": "x.mf",
	} {
		if got := BitmapKey(key); got != want {
			t.Errorf("BitmapKey(%q) is %q, want %q", key, got, want)
		}
	}
}

func TestEveryCodeUsedIsPublished(t *testing.T) {
	t.Parallel()
	for _, c := range []Code{
		CodeBadFormat, CodeNameTooLong, CodeNameFormat, CodeDescriptionTooLong, CodeBodyEmpty, CodeNameMissing, CodeQuota, CodeURLFormat,
		CodeJobUnknown, CodeTypeUnknown, CodeForbidden, CodeImageUnknown, CodeImageProtected, CodeProjectMismatch, CodeConflict,
		CodeImageNotActive, CodeDescriptionFormat, CodeDiskSize, CodeOSVersion, CodeFile, CodeRegion, CodeFileTooBig, CodeTooManyJobs,
		CodeInternal, CodeBucketEmpty, CodeBucketAccess, CodeToken, CodeImageBeingMade, CodeUnsupported, CodeBucketName, CodeTag,
		CodeTagQuota, CodeObjectUnknown, CodeOSType, CodeFirmware, CodeEnterpriseProject, CodeSpaces, CodeArchitecture,
	} {
		if !c.Known() || c.Message() == "" {
			t.Errorf("%s is not in the published table", c)
		}
	}
}

func TestOSVersions(t *testing.T) {
	t.Parallel()
	known := DefaultOSVersions()
	all, x86, bms := known.With(), known.With("x86"), known.With("x86", "bms")
	if !(len(all) > len(x86) && len(x86) > len(bms) && len(bms) > 0) {
		t.Errorf("%d in all, %d for x86, %d for x86 and bms: each must be fewer", len(all), len(x86), len(bms))
	}
	more, err := known.Extend(strings.NewReader("os_version,platform,os_type,os_bit,source,tags\nHouse Linux 1 64bit,House,Linux,64,local,x86 uefi\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := more.Lookup("House Linux 1 64bit"); !ok {
		t.Error("the operator's row is not there")
	}
	if _, ok := known.Lookup("House Linux 1 64bit"); ok {
		t.Error("Extend changed the table that it came from")
	}
	for _, bad := range []string{"", "a,b\n", "os_version,platform,os_type,os_bit,source,tags\nX,Y,Linux,65,local,\n",
		"os_version,platform,os_type,os_bit,source,tags\nX,Y,Linux,64,local,riscv\n", "os_version,platform,os_type,os_bit,source,tags\nX,Y,Linux\n"} {
		if _, err := known.Extend(strings.NewReader(bad)); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()
	fresh := func() Image {
		return Image{Name: "a", Env: EnvECS, Architecture: ArchX86, Firmware: FirmwareBIOS, Attributes: map[string]string{}}
	}
	img := fresh()
	err := img.Patch([]PatchOp{
		{"replace", "/name", "b"}, {"add", "/__description", "text"}, {"replace", "/min_ram", float64(1024)}, {"replace", "/max_ram", "4096"},
		{"add", "/__support_fc_inject", "true"}, {"replace", "/hw_firmware_type", "uefi"}, {"add", "/hw_vif_multiqueue_enabled", "true"},
		{"remove", "/hw_vif_multiqueue_enabled", nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != "b" || img.Description != "text" || img.MinRAMMiB != 1024 || img.MaxRAMMiB != "4096" || img.Firmware != "uefi" ||
		len(img.Attributes) != 1 || img.Attributes["__support_fc_inject"] != "true" {
		t.Errorf("patched: %+v", img)
	}
	for _, a := range Attributes {
		values, optional := attributeValues[a.Name]
		if !optional {
			continue
		}
		if !a.Patchable {
			t.Errorf("%s has values and is not patchable", a.Name)
		}
		img := fresh()
		if err := img.Patch([]PatchOp{{"replace", "/" + a.Name, values[0]}}); CodeOf(err) != CodeConflict {
			t.Errorf("%s is replaced though it is not set: %v", a.Name, err)
		}
		for _, value := range values {
			for _, op := range []string{"add", "add", "replace"} {
				if err := img.Patch([]PatchOp{{op, "/" + a.Name, value}}); err != nil || img.Attributes[a.Name] != value {
					t.Errorf("%s %s: %s: %v", op, a.Name, value, err)
				}
			}
		}
		for _, value := range []string{"foo", "", "True"} {
			err := img.Patch([]PatchOp{{"add", "/" + a.Name, value}})
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBadFormat || !strings.Contains(e.Detail, a.Name) {
				t.Errorf("%s takes %q, or does not name itself: %v", a.Name, value, err)
			}
		}
		if err := img.Patch([]PatchOp{{"remove", "/" + a.Name, nil}}); err != nil || len(img.Attributes) != 0 {
			t.Errorf("%s is not removed: %v", a.Name, err)
		}
	}
	for _, pair := range [][2]string{
		{"__support_xen", "__support_xen_hana"}, {"__support_xen", "__support_xen_gpu_type"}, {"__support_xen", "__support_kvm_gpu_type"},
		{"__support_xen", "__support_kvm_infiniband"},
	} {
		img := fresh()
		add := func(name string) PatchOp { return PatchOp{"add", "/" + name, attributeValues[name][0]} }
		if err := img.Patch([]PatchOp{add(pair[0]), add(pair[1])}); CodeOf(err) != CodeConflict {
			t.Errorf("%v together: %v", pair, err)
		}
		img = fresh()
		if err := img.Patch([]PatchOp{add(pair[0]), {"remove", "/" + pair[0], nil}, add(pair[1])}); err != nil {
			t.Errorf("%v one after the other: %v", pair, err)
		}
		if kvm := !strings.Contains(pair[1], "hana") && !strings.Contains(pair[1], "gpu"); img.PlainKVM() != kvm {
			t.Errorf("beside %s an image has plain KVM: %v", pair[1], !kvm)
		}
	}
	data := fresh()
	data.Env = EnvData
	if err := data.Patch([]PatchOp{{"add", "/__support_fc_inject", "true"}}); CodeOf(err) != CodeConflict {
		t.Errorf("a data disk image takes __support_fc_inject: %v", err)
	}

	// What is no attribute of the table is one that the client made up.
	own := fresh()
	if err := own.Patch([]PatchOp{{"add", "/role", "web"}, {"replace", "/role", "db"}, {"add", "/__image_login_user", "root"}, {"add", "/gone", "x"}, {"remove", "/gone", nil}}); err != nil {
		t.Error(err)
	}
	if own.Properties["role"] != "db" || len(own.Properties) != 1 || own.Attributes["__image_login_user"] != "root" {
		t.Errorf("made up: %v, %v", own.Properties, own.Attributes)
	}
	var many []PatchOp
	for i := range MaxOpenStackProperties + 1 {
		many = append(many, PatchOp{"add", fmt.Sprintf("/%sk%d", []string{"", "__"}[i%2], i), "v"})
	}
	if err := own.Patch(many[:100]); err != nil {
		t.Error(err)
	}
	if err := own.Patch(many[100:]); CodeOf(err) != CodeConflict {
		t.Errorf("too many: %v", err)
	}

	native := Image{Name: "a", Env: EnvECS, MadeVisible: VisibilityPrivate, Tags: []Tag{{Key: strings.Repeat("k", 200)}, {Key: "a", Value: "1"}}}
	if err := native.Patch([]PatchOp{
		{"replace", "/protected", true}, {"replace", "/protected", "false"}, {"add", "/protected", "true"}, {"replace", "/visibility", "shared"},
		{"replace", "/tags", []any{strings.Repeat("k", 200), "b = c=d", "bare"}},
	}); err != nil {
		t.Error(err)
	}
	if !native.Protected || native.MadeVisible != VisibilityShared || fmt.Sprint(native.Tags) != fmt.Sprint([]Tag{{Key: strings.Repeat("k", 200)}, {Key: "b", Value: "c=d"}, {Key: "bare"}}) {
		t.Errorf("patched: %+v", native)
	}
	for _, tt := range []struct {
		op   PatchOp
		code Code
	}{
		{PatchOp{"move", "/name", "x"}, CodeBadFormat},
		{PatchOp{"replace", "name", "x"}, CodeBadFormat},
		{PatchOp{"replace", "/nonsense", "x"}, CodeConflict},
		{PatchOp{"remove", "/nonsense", nil}, CodeConflict},
		{PatchOp{"add", "/Nonsense", "x"}, CodeBadFormat},
		{PatchOp{"add", "/a/b", "x"}, CodeBadFormat},
		{PatchOp{"add", "/a b", "x"}, CodeBadFormat},
		{PatchOp{"add", "/own", float64(1)}, CodeBadFormat},
		{PatchOp{"add", "/own", strings.Repeat("x", 256)}, CodeBadFormat},
		{PatchOp{"add", "/own", "a\nb"}, CodeBadFormat},
		{PatchOp{"add", "/deleted_at", "x"}, CodeConflict},
		{PatchOp{"add", "/license_type", "x"}, CodeConflict},
		{PatchOp{"add", "/os_hidden", "true"}, CodeConflict},
		{PatchOp{"add", "/locations", "x"}, CodeConflict},
		{PatchOp{"add", "/__support_kvm", "true"}, CodeConflict},
		{PatchOp{"replace", "/protected", "yes"}, CodeBadFormat},
		{PatchOp{"remove", "/protected", nil}, CodeConflict},
		{PatchOp{"replace", "/visibility", "hidden"}, CodeBadFormat},
		{PatchOp{"replace", "/tags", "a=b"}, CodeBadFormat},
		{PatchOp{"replace", "/tags", []any{"a=b", 1.5}}, CodeBadFormat},
		{PatchOp{"replace", "/tags", []any{"a=b", "a=c"}}, CodeTag},
		{PatchOp{"replace", "/tags", []any{"a*=b"}}, CodeTag},
		{PatchOp{"replace", "/tags", []any{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}}, CodeTagQuota},
		{PatchOp{"replace", "/id", "x"}, CodeConflict},
		{PatchOp{"replace", "/min_disk", float64(3)}, CodeConflict},
		{PatchOp{"remove", "/name", nil}, CodeConflict},
		{PatchOp{"remove", "/__support_amd", nil}, CodeConflict},
		{PatchOp{"replace", "/name", float64(1)}, CodeBadFormat},
		{PatchOp{"replace", "/name", "a@b"}, CodeNameFormat},
		{PatchOp{"replace", "/min_ram", float64(1.5)}, CodeDiskSize},
		{PatchOp{"replace", "/min_ram", float64(-1)}, CodeDiskSize},
		{PatchOp{"replace", "/min_ram", "many"}, CodeDiskSize},
		{PatchOp{"replace", "/min_ram", true}, CodeBadFormat},
		{PatchOp{"replace", "/hw_firmware_type", "x"}, CodeFirmware},
		{PatchOp{"replace", "/enterprise_project_id", "x"}, CodeEnterpriseProject},
		{PatchOp{"add", "/__support_amd", "a\nb"}, CodeBadFormat},
		{PatchOp{"replace", "/max_ram", "1"}, ""},
		{PatchOp{"add", "/__support_kvm_gpu_type", "V100_vGPU"}, ""},
		{PatchOp{"add", "/__support_xen_gpu_type", "a\nb"}, CodeBadFormat},
		{PatchOp{"add", "/hw_vif_multiqueue_enabled", "maybe"}, CodeBadFormat},
		{PatchOp{"add", "/hw_vif_multiqueue_enabled", ""}, CodeBadFormat},
	} {
		img := fresh()
		if got := CodeOf(img.Patch([]PatchOp{tt.op})); got != tt.code {
			t.Errorf("%+v: code %q, want %q", tt.op, got, tt.code)
		}
	}
}
