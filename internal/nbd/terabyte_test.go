package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// huge is a disk of 1 TiB with 64 KiB of data every 100 GiB, from 64 KiB on.
type huge struct{ read atomic.Int64 }

const (
	hugeSize = 1 << 40
	hugeStep = 100 << 30
	hugeData = 64 << 10
)

func (*huge) Size() int64      { return hugeSize }
func (*huge) BlockSize() int64 { return 2 << 20 }
func (*huge) Close() error     { return nil }

func (h *huge) ReadAtContext(_ context.Context, p []byte, off int64) error {
	h.read.Add(int64(len(p)))
	for i := range p {
		p[i] = 0
		if at := (off + int64(i)) % hugeStep; at >= hugeData && at < 2*hugeData {
			p[i] = byte(1 + (off+int64(i))/hugeStep)
		}
	}
	return nil
}

func (*huge) Extents(off, n int64) iter.Seq[Extent] {
	return func(yield func(Extent) bool) {
		for at := off / hugeStep * hugeStep; at < off+n; at += hugeStep {
			next := min(at+hugeStep, hugeSize)
			if !yield(Extent{at, hugeData, true}) || !yield(Extent{at + hugeData, hugeData, false}) || !yield(Extent{at + 2*hugeData, next - at - 2*hugeData, true}) {
				return
			}
		}
	}
}

// A disk of 1 TiB that is nearly empty is as cheap as its data, and with extended
// headers its map is one answer.
func TestTerabyte(t *testing.T) {
	t.Parallel()
	h := &huge{}
	s := start(t, "tcp", h, Options{})
	c := s.client(t, nbdtest.Config{Extended: true})
	got, err := c.BlockStatus(0, hugeSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []nbdtest.Status
	at := int64(hugeData)
	want = append(want, nbdtest.Status{Length: hugeData, Flags: wire.StateHole | wire.StateZero})
	for at < hugeSize {
		next := min((at/hugeStep+1)*hugeStep+hugeData, hugeSize)
		want = append(want, nbdtest.Status{Length: hugeData}, nbdtest.Status{Length: uint64(next - at - hugeData), Flags: wire.StateHole | wire.StateZero})
		at = next
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the map is %v, want %v", got, want)
	}
	p := make([]byte, hugeData)
	if err := c.Read(p, 7*hugeStep+hugeData); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{8}, hugeData)) {
		t.Errorf("the data at 700 GiB: %v, %d", err, p[0])
	}
	if err := c.Read(p[:100], hugeSize-100); err != nil || !bytes.Equal(p[:100], make([]byte, 100)) {
		t.Errorf("the end: %v", err)
	}

	var extents []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--map", "--json", s.uri())), &extents); err != nil {
		t.Fatal(err)
	}
	data := int64(0)
	for _, x := range extents {
		if x.Type == 0 {
			data += x.Length
		}
	}
	if data != 11*hugeData {
		t.Errorf("nbdinfo --map finds %d bytes of data", data)
	}
	h.read.Store(0)
	run(t, "nbdcopy", s.uri(), "null:")
	if n := h.read.Load(); n != 11*hugeData {
		t.Errorf("a copy read %d bytes of the export, its data are %d", n, 11*hugeData)
	}
}
