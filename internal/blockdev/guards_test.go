package blockdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// reads reads a little of the disk, and checks it.
func (d *Device) reads(t *testing.T, disk []byte) {
	t.Helper()
	const off = 2 << 20
	p := make([]byte, 8192)
	if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+len(p)]) {
		t.Errorf("error %v, or other bytes", err)
	}
}

func (h *hanging) holds(t *testing.T, want int64, when string) {
	t.Helper()
	if n := h.held.Load(); n != want {
		t.Errorf("%s: %d files are held, want %d", when, n, want)
	}
}

// TestLastCloseLetsTheFileGo: a file that nobody reads is not held open, for a deleted
// image would keep its space; one that somebody reads stays open.
func TestLastCloseLetsTheFileGo(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	h, f := newHanging(t)
	data := f.image(t, "raw", disk)
	c := newCache(t, f.store, Options{})
	open := func() *Device {
		d, err := c.Open(t.Context(), "image", at(data))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 2 { // the image is remembered; its second life is like the first
		c.dropMemory()
		first, second := open(), open()
		first.reads(t, disk)
		second.reads(t, disk)
		h.holds(t, 1, "while two read")
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second.reads(t, disk)
		h.holds(t, 1, "while one reads")
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		h.holds(t, 0, "when nobody reads")
	}
}

// TestMoveLetsTheFileGo: once an image has moved from its source to the image area, the
// source's file is held no longer, whoever noticed: an opening, or a read.
func TestMoveLetsTheFileGo(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	for _, noticed := range []string{"by an opening", "by a read"} {
		h, f := newHanging(t)
		data := f.image(t, "raw", disk)
		source := f.source(t, data)
		c := newCache(t, f.store, Options{})
		var adopted atomic.Bool
		locate := func(context.Context) (ims.Data, error) {
			if adopted.Load() {
				return data, nil
			}
			return source, nil
		}
		open := func() *Device {
			d, err := c.Open(t.Context(), "image", locate)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		d := open()
		d.reads(t, disk)
		h.holds(t, 1, noticed+": before the move")
		adopted.Store(true)
		if noticed == "by an opening" {
			second := open()
			h.holds(t, 0, noticed+": after the move")
			if err := second.Close(); err != nil {
				t.Error(err)
			}
		} else {
			f.writeSource(t, source) // reads of the source fail, and the image is looked for
			c.dropMemory()
			d.reads(t, disk)
		}
		c.dropMemory()
		d.reads(t, disk)
		h.holds(t, 1, noticed+": of the image area's")
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		h.holds(t, 0, noticed+": at the end")
	}
}

// TestLayoutsAreBounded: what is known of the images in use takes at most half of the
// memory. One more than fits is refused, and fits when another is closed.
func TestLayoutsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var file bytes.Buffer
	if _, err := zvhd2.Convert(t.Context(), &file, bytes.NewReader(nil), ims.TiB, zvhd2.ConvertOptions{Data: func(func(diskformat.Extent, error) bool) {}}); err != nil {
		t.Fatal(err)
	}
	info := f.put(t, "large/1/disk", file.Bytes())
	data := ims.Data{Key: "large/1/disk", ETag: info.ETag, Size: info.Size, Format: "zvhd2", VirtualSize: ims.TiB}
	c := newCache(t, f.store, Options{Memory: MinMemory})
	var devices []*Device
	defer func() {
		for _, d := range devices {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	open := func() error {
		d, err := c.Open(t.Context(), fmt.Sprintf("image-%d", len(devices)), at(data))
		if err == nil {
			devices = append(devices, d)
		}
		return err
	}
	var err error
	for len(devices) < 1000 && err == nil {
		err = open()
		if used := c.images.memory; used > MinMemory/2 {
			t.Fatalf("%d images take %d bytes", len(devices), used)
		}
	}
	if !errors.Is(err, objectstore.ErrUnavailable) || !strings.Contains(err.Error(), "cache.memory") {
		t.Fatalf("%d images of 1 TiB are open in %d bytes of memory: %v", len(devices), MinMemory, err)
	}
	if err := devices[0].Close(); err != nil {
		t.Error(err)
	}
	devices[0] = devices[len(devices)-1]
	devices = devices[:len(devices)-1]
	if d, err := c.Open(t.Context(), "another", at(data)); err != nil {
		t.Errorf("after one was closed: %v", err)
	} else {
		devices = append(devices, d)
	}
}
