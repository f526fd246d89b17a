package blockdev

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// newS3Fixture is a fixture on a real S3 server.
func newS3Fixture(t testing.TB) fixture {
	t.Helper()
	return fixture{store: objectstore.Count(storeOn(t, storetest.StartGateway(t)))}
}

// storeOn is a store with its images on an S3 server.
func storeOn(t testing.TB, g *storetest.Gateway) *objectstore.S3 {
	t.Helper()
	s3, err := objectstore.OpenS3(objectstore.S3Config{
		Endpoint: g.URL, Region: "us-east-1", AccessKey: g.AccessKey, SecretKey: g.SecretKey,
		ImageBucket: g.MakeBucket(t), PathStyle: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s3.Close() })
	return s3
}

// Every form of image, in both stores, read from every state of the cache, at and around
// every boundary and with lengths around a unit's, gives the source's bytes.
func TestReadProduct(t *testing.T) {
	t.Parallel()
	const block = 2 << 20
	disk := make([]byte, 2*block+block/2+512) // data, hole, data to an end within a block
	rand.NewChaCha8([32]byte{7}).Read(disk[:block])
	rand.NewChaCha8([32]byte{8}).Read(disk[2*block:])
	for name, fix := range map[string]func(testing.TB) fixture{"dir": func(t testing.TB) fixture { return newFixture(t) }, "s3": newS3Fixture} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fix(t)
			for _, form := range forms {
				data := f.image(t, form, disk)
				whole := append(bytes.Clone(disk), make([]byte, block)...)
				whole = whole[:min(int64(len(whole)), data.VirtualSize)]
				for _, state := range []string{"cold", "memory"} {
					t.Run(form+"/"+state, func(t *testing.T) {
						t.Parallel()
						readProduct(t, f, data, whole, state)
					})
				}
			}
		})
	}
}

func readProduct(t *testing.T, f fixture, data ims.Data, whole []byte, state string) {
	c := newCache(t, f.store, Options{})
	d := f.open(t, c, data)
	if state != "cold" { // all of it goes into the cache
		if _, err := d.ReadAt(make([]byte, len(whole)), 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	unit := d.BlockSize()
	read := func(off, n int64) {
		if state != "memory" {
			c.dropMemory()
		}
		p := bytes.Repeat([]byte{0xaa}, int(n))
		got, err := d.ReadAtContext(t.Context(), p, off)
		want := whole[min(off, int64(len(whole))):min(off+n, int64(len(whole)))]
		if !bytes.Equal(p[:min(got, len(want))], want) {
			t.Errorf("%d bytes at %d: %d were read that are not the source's", n, off, got)
		}
		if atEnd := off+n > d.Size(); atEnd != errors.Is(err, io.EOF) || !atEnd && (err != nil || int64(got) != n) {
			t.Errorf("%d bytes at %d of %d: %d were read with error %v", n, off, d.Size(), got, err)
		}
	}
	before := c.Stats()
	lengths := []int64{1, 512, 4096, unit - 1, unit, unit + 1, 2*unit + 3}
	for _, edge := range []int64{0, unit, 2 << 20, 4 << 20, 4<<20 + unit, int64(len(whole)), d.Size()} {
		for _, by := range []int64{-4096, -1, 0, 1} {
			for _, n := range lengths {
				if off := edge + by; off >= 0 && off <= d.Size() && (off+n <= int64(len(whole)) || off+n > d.Size() || off >= int64(len(whole))) {
					read(off, n)
				}
			}
		}
	}
	read(0, int64(len(whole)))
	after := c.Stats()
	if fetched := after.Fetched > before.Fetched; fetched != (state == "cold") {
		t.Errorf("state %s: fetched from the store: %v", state, fetched)
	}
}

// Extents are the same from wherever they are asked for, and tell holes that read as
// zeros and data that covers all the rest.
func TestExtents(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	f := newFixture(t)
	c := newCache(t, f.store, Options{})
	for _, form := range forms {
		d := f.open(t, c, f.image(t, form, disk))
		hole := make([]bool, d.Size()>>9)
		at := int64(0)
		for e := range d.Extents(0, d.Size()) {
			if e.Offset != at || e.Length <= 0 {
				t.Fatalf("%s: an extent of %d bytes at %d, want one at %d", form, e.Length, e.Offset, at)
			}
			for i := e.Offset; i < e.End(); i += 512 {
				hole[i>>9] = !e.Data
			}
			at = e.End()
		}
		if at != d.Size() {
			t.Fatalf("%s: the extents end at %d of %d", form, at, d.Size())
		}
		for i := 0; i < len(disk); i += 512 {
			if hole[i>>9] && !bytes.Equal(disk[i:i+512], make([]byte, 512)) {
				t.Fatalf("%s: data at %d is called a hole", form, i)
			}
		}
		r := rand.New(rand.NewPCG(3, 4))
		for range 200 {
			off := r.Int64N(d.Size()/512) * 512
			n := 512 * (1 + r.Int64N(10000))
			end := min(off+n, d.Size())
			at := off
			for e := range d.Extents(off, n) {
				if e.Offset != at || e.Length <= 0 || e.End() > end {
					t.Fatalf("%s: from %d, %d bytes: an extent of %d bytes at %d", form, off, n, e.Length, e.Offset)
				}
				for i := e.Offset; i < e.End(); i += 512 {
					if hole[i>>9] == e.Data {
						t.Fatalf("%s: from %d: byte %d is told otherwise than from 0", form, off, i)
					}
				}
				at = e.End()
			}
			if at != end {
				t.Fatalf("%s: the extents of %d bytes from %d end at %d", form, n, off, at)
			}
		}
		for range d.Extents(d.Size(), 512) {
			t.Fatalf("%s: there is an extent behind the disk", form)
		}
	}
}
