package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/objectstore/storetest"
	"github.com/quickims/quickims/test/measure"
)

// Names of what is served.
const (
	sourceBucket = "bench"
	imageBucket  = "bench-images"

	diskRaw   = "disk.raw"
	diskMF    = "disk.mf"
	diskZVHD2 = "disk.zvhd2"
	tibRaw    = "tib.raw"
	tibMF     = "tib.mf"
	tibZVHD2  = "tib.zvhd2"
)

// disks are the files that are served, in a folder of their own.
type disks struct {
	dir  string
	size int64 // of the system disk, in bytes
	// extents is where the disk has data, in its order.
	extents []extent
}

type extent struct{ off, n int64 }

// makeDisks makes what is not there yet: a system disk of the files of from, a
// sparse TiB, and the bitmap and the ZVHD2 form of each.
func makeDisks(dir, from string, size int64) (*disks, error) {
	d := &disks{dir: dir}
	raw := filepath.Join(dir, diskRaw)
	if _, err := os.Stat(raw); errors.Is(err, os.ErrNotExist) {
		aside := raw + ".part"
		if err := measure.MakeDisk(aside, from, size, size/2); err != nil {
			return nil, err
		}
		if err := os.Rename(aside, raw); err != nil {
			return nil, err
		}
	}
	tib := filepath.Join(dir, tibRaw)
	if _, err := os.Stat(tib); errors.Is(err, os.ErrNotExist) {
		if err := makeTiB(tib); err != nil {
			return nil, err
		}
	}
	for _, names := range [][3]string{{diskRaw, diskMF, diskZVHD2}, {tibRaw, tibMF, tibZVHD2}} {
		if err := d.derive(names[0], names[1], names[2]); err != nil {
			return nil, err
		}
	}
	d.size = d.sizeOf(diskRaw)
	f, err := os.Open(raw)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = measure.DataExtents(f, func(off, n int64) error {
		d.extents = append(d.extents, extent{off, n})
		return nil
	})
	return d, err
}

// tibPiece is where the sparse TiB has the piece that is read first.
const tibPiece = 32 * (measure.TiB / 64)

// makeTiB makes a TiB with 64 pieces of 1 MiB.
func makeTiB(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	piece := bytes.Repeat([]byte("quickims"), 1<<17)
	for i := range int64(64) {
		if _, err := f.WriteAt(piece, i*measure.TiB/64); err != nil {
			return err
		}
	}
	return f.Truncate(measure.TiB)
}

// derive makes the bitmap, anew each time so that it is what this version makes, and
// unless it is there the ZVHD2 form of a RAW disk.
func (d *disks) derive(rawName, mfName, zvhd2Name string) error {
	ctx := context.Background()
	raw, err := os.Open(filepath.Join(d.dir, rawName))
	if err != nil {
		return err
	}
	defer raw.Close()
	info, err := raw.Stat()
	if err != nil {
		return err
	}
	m, err := bitmap.Build(ctx, raw, info.Size(), bitmap.Options{})
	if err != nil {
		return err
	}
	err = writeFile(filepath.Join(d.dir, mfName), func(w io.Writer) error {
		_, err := m.WriteTo(w)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.dir, zvhd2Name)); err == nil {
		return nil
	}
	return writeFile(filepath.Join(d.dir, zvhd2Name), func(w io.Writer) error {
		_, err := zvhd2.Convert(ctx, w, raw, info.Size(), zvhd2.ConvertOptions{})
		return err
	})
}

// writeFile makes a file of what write writes. It is there whole or as it was before.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// sizeOf is the size of a file in bytes.
func (d *disks) sizeOf(name string) int64 {
	info, err := os.Stat(filepath.Join(d.dir, name))
	if err != nil {
		return 0
	}
	return info.Size()
}

// link puts files into a folder, without a copy where that can be.
func (d *disks) link(folder string, names ...string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Link(filepath.Join(d.dir, name), filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("%w; the folder of -dir must be on the file system of the temporary folder", err)
		}
	}
	return nil
}

// startStore starts an S3 server with the disks in a bucket that anybody may read.
func startStore(tb *measure.Console, d *disks) *storetest.Gateway {
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	g := storetest.StartDirectGatewayIn(tb, dir)
	for _, name := range []string{sourceBucket, imageBucket} {
		if err := g.Client.MakeBucket(tb.Context(), name, minio.MakeBucketOptions{}); err != nil {
			tb.Fatal(err)
		}
	}
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::%s/*"]}]}`, sourceBucket)
	if err := g.Client.SetBucketPolicy(tb.Context(), sourceBucket, policy); err != nil {
		tb.Fatalf("let anybody read the bucket: %v", err)
	}
	for _, name := range []string{diskRaw, diskMF, diskZVHD2, tibZVHD2} {
		if err := upload(tb, g, filepath.Join(d.dir, name), name); err != nil {
			tb.Fatalf("upload %s: %v", name, err)
		}
	}
	return g
}

func upload(tb *measure.Console, g *storetest.Gateway, path, key string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = g.Client.PutObject(tb.Context(), sourceBucket, key, f, size, minio.PutObjectOptions{PartSize: 512 << 20})
	return err
}
