package qcow2

import (
	"bytes"
	"context"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/fuzztest"
)

func FuzzQCOW2(f *testing.F) {
	for _, method := range []byte{compressionZlib, compressionZstd} {
		m, _ := sample(f, 9, method)
		f.Add(bytes.Clone(m.b))
		m.version2()
		f.Add(m.b)
	}
	m := newMade(14, 2)
	m.or64(offIncompatible, featureExtendedL2)
	m.set64(2<<14, 2<<14)
	m.set64(2<<14+8, 0x0000_00f0_8000_000f)
	f.Add(m.b)
	m = victim()
	m.extension(104, extBackingFormat, "raw")
	m.backing(200, 12)
	f.Add(m.b)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		opts := Options{}
		if info, err := ReadInfo(r, int64(len(b))); err == nil {
			if info.Size > MaxDiskSize || info.ClusterSize > MaxClusterSize {
				t.Fatalf("%+v", info)
			}
			if info.BackingFile != "" {
				opts.Backing = memory{r}
			}
			if info.DataFile {
				opts.Data, opts.DataSize = r, int64(len(b))
			}
		}
		file, err := Open(r, int64(len(b)), opts)
		if err != nil {
			return
		}
		// As many extents as there may be entries in the file.
		p := make([]byte, 4096)
		at, n, last := int64(0), 0, false
		for e, err := range file.Map(context.Background()) {
			if err != nil {
				break
			}
			if e.Offset != at || e.Length <= 0 || n > 0 && e.Data == last {
				t.Fatalf("extent %+v after %d", e, at)
			}
			at, last = e.End(), e.Data
			if n++; n > 500 {
				return
			}
			q := p[:min(e.Length, int64(len(p)))]
			for _, off := range []int64{e.Offset, e.End() - int64(len(q))} {
				p[0] = 0xee
				err := diskformat.ReadFull(file, q, off)
				if !e.Data && (err != nil || len(bytes.Trim(q, "\x00")) != 0) {
					t.Fatalf("the extent %+v is a hole, but at %d: %v, % x", e, off, err, q[:16])
				}
			}
		}
		if at > file.Size() {
			t.Fatalf("the extents end at %d of %d", at, file.Size())
		}
	})
}
