package ownership

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/test/harness"
)

// place is a service with its image area, in either store, under a test's hands.
type place struct {
	*harness.Server
	flags  []string // of fsck
	disk   []byte
	source string // image_url
	put    func(key string, data []byte)
	remove func(key string)
	age    func(key string) // makes an object a year old; nil: the store cannot
	keys   func() []string
	upload func(key string) // begins a multipart upload; nil: the store has none
}

// places runs f with the directory store and with S3, and each with another database.
func places(t *testing.T, f func(t *testing.T, p *place)) {
	t.Run("dir and postgres", func(t *testing.T) {
		t.Parallel()
		database := harness.Postgres(t)
		s := harness.Start(t, harness.Options{Database: database})
		p := &place{Server: s, disk: harness.Disk(3, 4), source: "disks:disk.zvhd2", flags: []string{"--data", s.Dir, "--database", database}}
		s.PutFile(t, "disks", "disk.zvhd2", zvhd2Of(t, p.disk))
		path := func(key string) string { return filepath.Join(s.Dir, "images", key) }
		p.put = func(key string, data []byte) {
			if err := os.MkdirAll(filepath.Dir(path(key)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path(key), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p.remove = func(key string) {
			if err := os.Remove(path(key)); err != nil {
				t.Fatal(err)
			}
		}
		p.age = func(key string) {
			old := time.Now().Add(-365 * 24 * time.Hour)
			if err := os.Chtimes(path(key), old, old); err != nil {
				t.Fatal(err)
			}
		}
		p.keys = func() []string {
			keys := harness.Files(t, filepath.Join(s.Dir, "images"), ".pins", ".tmp", imagearea.MarkKey)
			slices.Sort(keys)
			return keys
		}
		f(t, p)
	})
	t.Run("s3 and sqlite", func(t *testing.T) {
		t.Parallel()
		s := newStore(t)
		p := &place{Server: harness.Start(t, s.options("area/")), disk: s.disk, source: s.disks + ":disk.zvhd2"}
		config := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(config, []byte(s.config("area/")), 0o600); err != nil {
			t.Fatal(err)
		}
		p.flags = []string{"--data", p.Dir, "--config", config}
		p.put = func(key string, data []byte) {
			if _, err := s.Client.PutObject(t.Context(), s.images, "area/"+key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		p.remove = func(key string) {
			if err := s.Client.RemoveObject(t.Context(), s.images, "area/"+key, minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		p.upload = func(key string) {
			if _, err := (minio.Core{Client: s.Client}).NewMultipartUpload(t.Context(), s.images, "area/"+key, minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		p.keys = func() []string {
			var keys []string
			for _, o := range s.objects(t) {
				key, _, _ := strings.Cut(strings.TrimPrefix(o, "area/"), " ")
				keys = append(keys, key)
			}
			return keys
		}
		f(t, p)
	})
}

// findings are what fsck prints as JSON.
type findings struct {
	Images, Objects int
	Open            int
	Findings        []struct {
		Kind, Key, Detail string
		ImageID           string `json:"image_id"`
		Repaired          bool
	}
	text string
}

// fsck runs fsck and checks its exit status.
func (p *place) fsck(t *testing.T, status int, args ...string) findings {
	t.Helper()
	out, stderr, got := harness.Command(t, append(append([]string{"fsck", "--json"}, p.flags...), args...)...)
	if got != status {
		t.Errorf("fsck %q: status %d, want %d: %s%s", args, got, status, out, stderr)
	}
	var f findings
	if out != "" {
		if err := json.Unmarshal([]byte(out), &f); err != nil {
			t.Fatalf("fsck %q: %v in %s", args, err, out)
		}
	}
	f.text = out + stderr
	return f
}

// want checks which findings there are, written as "kind key".
func (f findings) want(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, x := range f.Findings {
		got = append(got, x.Kind+" "+x.Key)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("findings\n%q, want\n%q\n%s", got, want, f.text)
	}
}

func (p *place) importDisk(t *testing.T, name string) string {
	t.Helper()
	return p.Import(t, harness.Request(name, p.source))
}

// TestFsckUnknown: what no row explains is found, and removed when it is old and the
// operator says so, while the service runs. Nothing else is.
func TestFsckUnknown(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, p *place) {
		var kept []string
		for i := range 8 {
			kept = append(kept, p.importDisk(t, fmt.Sprint("kept-", i)))
		}
		p.fsck(t, 0, "--read-data", "100").want(t)
		before := p.keys()
		stranger := uuid.NewString() + "/1/disk"
		unknown := []string{stranger, kept[0] + "/1/other", kept[0] + "/2/disk", "notes.txt"}
		var want []string
		for _, key := range unknown {
			p.put(key, []byte("12345"))
			want = append(want, "unknown-object "+key)
		}
		// An installation below this one's prefix.
		for _, key := range []string{"lab/" + imagearea.MarkKey, "lab/" + stranger} {
			p.put(key, []byte("{}"))
		}
		if p.upload != nil {
			p.upload(uuid.NewString() + "/3/disk")
			p.upload("lab/x")
			for _, f := range p.fsck(t, 1).Findings {
				if f.Kind == "unknown-upload" {
					want = append(want, "unknown-upload "+f.Key)
				}
			}
			if len(want) != len(unknown)+1 {
				t.Errorf("findings are %q, want one upload", want)
			}
		}
		p.fsck(t, 1, "--repair").want(t, want...) // all of it is young
		if p.age != nil {
			p.age("notes.txt")
			f := p.fsck(t, 1, "--repair") // one of 12
			for _, x := range f.Findings {
				if x.Repaired != (x.Key == "notes.txt") {
					t.Errorf("%s: repaired %v", x.Key, x.Repaired)
				}
			}
		}
		all := p.fsck(t, 1, "--repair", "--grace", "0s") // more than a tenth, and nobody says yes
		if !strings.Contains(all.text, "not confirmed") || !strings.Contains(all.text, "tenth") {
			t.Errorf("not asked: %s", all.text)
		}
		f := p.fsck(t, 0, "--repair", "--grace", "0s", "--yes")
		if f.Open != 0 {
			t.Errorf("%d findings stay", f.Open)
		}
		p.fsck(t, 0).want(t)
		now := slices.DeleteFunc(p.keys(), func(key string) bool { return strings.HasPrefix(key, "lab/") })
		if !slices.Equal(now, before) {
			t.Errorf("the image area holds %q and held %q", now, before)
		}
		for _, id := range kept {
			p.CheckBytes(t, id, p.disk)
		}
	})
}

// TestFsckDamage: images whose bytes are not there, or others, are found; so does the
// service, which stays ready and says so to those who read.
func TestFsckDamage(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, p *place) {
		sound, missing, short := p.importDisk(t, "sound"), p.importDisk(t, "missing"), p.importDisk(t, "short")
		other := p.importDisk(t, "other")
		file := zvhd2Of(t, p.disk)
		p.remove(missing + "/1/disk")
		p.remove(short + "/1/disk")
		p.put(short+"/1/disk", file[:len(file)/2])
		p.remove(other + "/1/disk")
		file[len(file)/2] ^= 1
		p.put(other+"/1/disk", file)
		f := p.fsck(t, 1)
		f.want(t, "missing "+missing+"/1/disk", "size "+short+"/1/disk", "etag "+other+"/1/disk")
		for _, x := range p.fsck(t, 1, "--repair", "--yes", "--grace", "0s", "--read-data", "100").Findings {
			if x.Repaired || x.ImageID == "" {
				t.Errorf("%+v: bytes that are gone cannot be repaired", x)
			}
		}
		if len(p.keys()) != 3 {
			t.Errorf("the image area holds %q", p.keys())
		}
		p.CheckBytes(t, sound, p.disk)

		// A read finds it at once.
		a, err := p.Send("GET", "/v2/images/"+missing+"/file", p.Token(t), nil)
		if _, _, details := a.Error(); err != nil || a.Status != http.StatusInternalServerError || !strings.Contains(details, "missing") || !strings.Contains(details, missing) {
			t.Errorf("reading the image: %d, %v: %s", a.Status, err, a.Body)
		}
		if got := metric(t, p.Server, "quickims_images_damaged"); got != "1" {
			t.Errorf("quickims_images_damaged is %s after a read", got)
		}
		if log := p.Log(); strings.Count(log, "image damaged") != 1 || !strings.Contains(log, missing) {
			t.Errorf("the log does not name the image once")
		}
		if a, err := p.Send("GET", "/readyz", "", nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("readyz: %d (%v), want 200", a.Status, err)
		}
		// The look at the start finds all.
		p.Stop(t)
		p.Restart(t, "")
		harness.Eventually(t, "the damaged images are counted", func() bool { return metric(t, p.Server, "quickims_images_damaged") == "3" })
		for _, id := range []string{missing, short, other} {
			if !strings.Contains(p.Log(), id) {
				t.Errorf("the log does not name %s", id)
			}
			if a := p.Do(t, "DELETE", "/v2/images/"+id, nil); a.Status != http.StatusNoContent {
				t.Errorf("delete %s: %d: %s", id, a.Status, a.Body)
			}
		}
		harness.Eventually(t, "they are cleaned up", func() bool { return len(p.keys()) == 1 })
		p.fsck(t, 0, "--read-data", "100").want(t)
	})
}

// TestFsckUsage: what was not called rightly has status 2, and changes nothing.
func TestFsckUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{{}, {"--data", dir, "--read-data", "101"}, {"--data", dir, "--read-data", "NaN"}, {"--data", dir, "--grace", "-1h"}, {"--data", dir, "--take-over", "--repair"}, {"--data", dir, "--no-such"}} {
		if _, stderr, status := harness.Command(t, append([]string{"fsck"}, args...)...); status != 2 {
			t.Errorf("fsck %q: status %d: %s", args, status, stderr)
		}
	}
	if _, stderr, status := harness.Command(t, "fsck", "--data", dir); status != 1 || !strings.Contains(stderr, "quickims serve") {
		t.Errorf("fsck of an empty folder: status %d: %s", status, stderr)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("fsck left %v (%v)", entries, err)
	}
}
