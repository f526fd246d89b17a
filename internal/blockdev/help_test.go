package blockdev

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

type fixture struct {
	store   *objectstore.Counter
	images  string // folders of the directory store
	buckets string
}

// newFixture makes a directory store, as the service uses it.
func newFixture(t testing.TB) fixture {
	t.Helper()
	return newFixtureOf(t, func(s objectstore.Store) objectstore.Store { return s })
}

// newFarFixture makes a store whose every read is a request: it holds nothing open.
func newFarFixture(t testing.TB) fixture {
	t.Helper()
	return newFixtureOf(t, func(s objectstore.Store) objectstore.Store { return struct{ objectstore.Store }{s} })
}

func newFixtureOf(t testing.TB, as func(objectstore.Store) objectstore.Store) fixture {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"buckets", "images"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	store, err := objectstore.OpenDir(filepath.Join(dir, "buckets"), filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	return fixture{objectstore.Count(as(store)), filepath.Join(dir, "images"), filepath.Join(dir, "buckets")}
}

func (f fixture) put(t testing.TB, key string, data []byte) objectstore.ObjectInfo {
	t.Helper()
	info, err := f.store.Put(t.Context(), objectstore.Location{Key: key}, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// image stores the disk in one of the forms that images have.
func (f fixture) image(t testing.TB, form string, disk []byte) ims.Data {
	t.Helper()
	ctx := context.Background()
	key := form + "/1/disk"
	if strings.HasPrefix(form, "zvhd2") {
		var buf bytes.Buffer
		if _, err := zvhd2.Convert(ctx, &buf, bytes.NewReader(disk), int64(len(disk)), zvhd2.ConvertOptions{Options: zvhd2.Options{WholeBlocks: form == "zvhd2 in blocks"}}); err != nil {
			t.Fatal(err)
		}
		info := f.put(t, key, buf.Bytes())
		return ims.Data{Key: key, ETag: info.ETag, Size: info.Size, Format: "zvhd2", VirtualSize: ims.GiB}
	}
	info := f.put(t, key, disk)
	data := ims.Data{Key: key, ETag: info.ETag, Size: info.Size, Format: "raw", VirtualSize: info.Size}
	if form == "raw with bitmap" {
		m, err := bitmap.Build(ctx, bytes.NewReader(disk), int64(len(disk)), bitmap.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		if _, err := m.WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		data.BitmapKey = form + "/1/bitmap"
		info := f.put(t, data.BitmapKey, buf.Bytes())
		data.BitmapETag, data.BitmapSize = info.ETag, info.Size
	}
	return data
}

var forms = []string{"raw", "raw with bitmap", "zvhd2", "zvhd2 in blocks"}

// at is the Locate of data that stays where it is.
func at(data ims.Data) Locate {
	return func(context.Context) (ims.Data, error) { return data, nil }
}

func newCache(t testing.TB, store objectstore.Store, opts Options) *Cache {
	t.Helper()
	c, err := NewCache(store, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the cache: %v", err)
		}
	})
	return c
}

// open opens an image that is named after its data.
func (f fixture) open(t testing.TB, c *Cache, data ims.Data) *Device {
	t.Helper()
	d, err := c.Open(t.Context(), data.Key, at(data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close the device: %v", err)
		}
	})
	return d
}

// source puts an image's objects into a bucket, as they lie before they are adopted.
func (f fixture) source(t testing.TB, data ims.Data) ims.Data {
	t.Helper()
	data.Bucket = "source"
	for _, name := range []struct{ key, etag *string }{{&data.Key, &data.ETag}, {&data.BitmapKey, &data.BitmapETag}} {
		if *name.key == "" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(f.images, *name.key))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(f.buckets, data.Bucket, *name.key)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := f.store.Stat(t.Context(), objectstore.Location{Bucket: data.Bucket, Key: *name.key})
		if err != nil {
			t.Fatal(err)
		}
		*name.etag = info.ETag
	}
	return data
}

func (f fixture) removeSource(t testing.TB, data ims.Data) {
	t.Helper()
	if err := os.Remove(filepath.Join(f.buckets, data.Bucket, data.Key)); err != nil {
		t.Fatal(err)
	}
}

// writeSource changes bytes of a source in place.
func (f fixture) writeSource(t testing.TB, data ims.Data) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(f.buckets, data.Bucket, data.Key), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("other bytes"), 8192); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// dropMemory evicts all that nobody reads.
func (c *Cache) dropMemory() {
	c.mem.Charge(c.mem.Limit())
	c.mem.Discharge(c.mem.Limit())
}
