package blockdev

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
)

// An image whose blocks are too large for the memory is refused when it is opened, and
// the error says what to do.
func TestLargeBlocks(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	if _, err := zvhd2.Convert(t.Context(), &buf, bytes.NewReader(make([]byte, 40<<20)), 40<<20, zvhd2.ConvertOptions{Options: zvhd2.Options{WholeBlocks: true}}); err != nil {
		t.Fatal(err)
	}
	file := buf.Bytes()
	// The footer of an empty disk says blocks of 32 MiB instead, as other writers may.
	footer := file[len(file)-4096:]
	binary.LittleEndian.PutUint32(footer[88:], 32<<20)
	binary.LittleEndian.PutUint32(footer[92:], 2)
	clear(footer[512:576]) // our extension
	clear(footer[64:68])
	sum := uint32(0)
	for _, b := range footer[:512] {
		sum += uint32(b)
	}
	binary.LittleEndian.PutUint32(footer[64:], ^sum)
	f := newFixture(t)
	info := f.put(t, "image/1/disk", file)
	data := ims.Data{Key: "image/1/disk", ETag: info.ETag, Size: info.Size, Format: "zvhd2", VirtualSize: ims.GiB}
	if _, err := newCache(t, f.store, Options{Memory: 128 << 20}).Open(t.Context(), "image", at(data)); err == nil || !strings.Contains(err.Error(), "cache.memory") {
		t.Errorf("blocks of 32 MiB in 128 MiB of memory: error %v", err)
	}
	d := f.open(t, newCache(t, f.store, Options{Memory: 145 << 20}), data)
	if d.BlockSize() != 32<<20 {
		t.Errorf("the blocks have %d bytes", d.BlockSize())
	}
}
