package qcow2

import "testing"

// Reading a disk of 64 MiB in pieces of 2 MiB, the clusters stored as they are
// or compressed.
func BenchmarkReadAt(b *testing.B) {
	const bits, clusters = 16, 1024
	for _, c := range []struct {
		name   string
		method byte
		pack   func([]byte) []byte
	}{
		{"standard", compressionZlib, nil},
		{"zlib", compressionZlib, deflated},
		{"zstd", compressionZstd, func(p []byte) []byte { return zstdStreamed(p) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := newMade(bits, clusters)
			m.compression(c.method)
			for i := range clusters {
				if p := content(1<<bits, uint64(i)); c.pack == nil {
					m.store(i, p)
				} else {
					m.pack(i, c.pack(p))
				}
			}
			f := m.mustOpen(b)
			p := make([]byte, 2<<20)
			b.SetBytes(f.Size())
			b.ReportAllocs()
			for b.Loop() {
				for off := int64(0); off < f.Size(); off += int64(len(p)) {
					if _, err := f.ReadAt(p, off); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
