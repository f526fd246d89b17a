package files_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/s3face/files"
)

// TestEarlierReleases reads what earlier releases wrote beside an object: the
// attributes of versitygw's back end, the ETag with the state of the file behind it.
func TestEarlierReleases(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	write := func(name string, attrs map[string]string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("content"), 0o600))
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		for attr, v := range attrs {
			if attr == "etag" {
				v += fmt.Sprintf("\x00%x-%x", st.Size, st.Mtim.Nano())
			}
			must(t, unix.Setxattr(path, "user."+attr, []byte(v), 0))
		}
		return path
	}
	path := write("k", map[string]string{
		"etag": `"9a0364b9e99bb480dd25e1f0284c8555"`, "content-type": "x/y", "content-encoding": "gzip", "content-disposition": "d", "content-language": "l",
		"cache-control": "c", "expires": "e", "metadata": `{"Mtime":"1.5","Sha256-Of-Disk":"ab"}`,
		"checksums": `{"Algorithm":"CRC32","Type":"FULL_OBJECT","CRC32":"NSRBwg=="}`,
	})
	o, err := b.Stat("k")
	must(t, err)
	headers := map[string]string{}
	o.Headers.Each(func(name, value string) { headers[name] = value })
	meta := map[string]string{}
	for _, m := range o.Meta {
		meta[string(m.Name)] = string(m.Value)
	}
	if o.ETag != "9a0364b9e99bb480dd25e1f0284c8555" || len(headers) != 6 || headers["Content-Type"] != "x/y" || headers["Expires"] != "e" ||
		len(meta) != 2 || meta["mtime"] != "1.5" || meta["sha256-of-disk"] != "ab" || o.Checksum == nil || o.Checksum.Value != "NSRBwg==" || o.Checksum.Type != "FULL_OBJECT" {
		t.Errorf("%+v, %v, %v, %+v", o, headers, meta, o.Checksum)
	}
	must(t, os.WriteFile(path, []byte("written since"), 0o600))
	if o, err = b.Stat("k"); err != nil || o.ETag == "9a0364b9e99bb480dd25e1f0284c8555" || o.Checksum != nil {
		t.Errorf("after a write: %+v, %v", o, err)
	}
	// A new upload leaves none of it.
	must(t, put(b, "k", []byte("new")))
	if o, err = b.Stat("k"); err != nil || len(o.Meta) != 0 || o.Size != 3 {
		t.Errorf("after an upload: %+v, %v", o, err)
	}

	// An object beside a directory was an attribute of that.
	must(t, os.MkdirAll(filepath.Join(dir, "folder", "below"), 0o700))
	must(t, unix.Setxattr(filepath.Join(dir, "folder"), "user.etag", []byte(`"d41d8cd98f00b204e9800998ecf8427e"`), 0))
	var keys []string
	must(t, b.Walk(t.Context(), "", "", func(key string, _ func() (*files.Object, error)) (string, bool, error) {
		keys = append(keys, key)
		return "", true, nil
	}))
	if len(keys) != 2 || keys[0] != "folder/" {
		t.Errorf("listed %q", keys)
	}
	if o, err := b.Stat("folder/"); err != nil || o.Size != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	must(t, b.Delete("folder/", nil))
	if _, err := b.Stat("folder/"); !errors.Is(err, files.ErrNoObject) {
		t.Errorf("after its deletion: %v", err)
	}
}
