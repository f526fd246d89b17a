package fuzztest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
)

// maxSize bounds what a mutation may grow to, in bytes.
const maxSize = 1 << 20

// mutator makes inputs out of a corpus.
type mutator struct {
	rand   *rand.Rand
	corpus [][]reflect.Value
	// scratch holds the bytes of each argument: what is made is valid until the next
	// is. Without it most of the time goes into memory.
	scratch [][]byte
}

// next is a mutation of one of the corpus' entries, valid until next is called again.
func (m *mutator) next() []reflect.Value {
	entry := m.corpus[m.rand.IntN(len(m.corpus))]
	out := make([]reflect.Value, len(entry))
	if m.scratch == nil {
		m.scratch = make([][]byte, len(entry))
	}
	for i, v := range entry {
		switch a := v.Interface().(type) {
		case []byte:
			out[i] = reflect.ValueOf(m.bytes(a, i))
		case string:
			out[i] = reflect.ValueOf(string(m.bytes([]byte(a), i)))
		case bool:
			out[i] = reflect.ValueOf(a != (m.rand.IntN(4) == 0))
		case int64:
			out[i] = reflect.ValueOf(m.int(a))
		default:
			panic(fmt.Sprintf("fuzztest: a %T can't be mutated", a))
		}
	}
	return out
}

// interesting are values at which ranges and signs end.
var interesting = []int64{
	0, 1, 2, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1000, 4095, 4096, 32767, 32768, 65535, 65536,
	1<<20 - 1, 1 << 20, 1 << 21, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 40, 1 << 62, 1<<63 - 1, -1, -2, -128, -4096, -1 << 31, -1 << 63,
}

func (m *mutator) int(v int64) int64 {
	switch m.rand.IntN(6) {
	case 0:
		return interesting[m.rand.IntN(len(interesting))]
	case 1:
		return v + m.rand.Int64N(33) - 16
	case 2:
		return v ^ 1<<m.rand.IntN(64)
	}
	return v // most often the other arguments are what is tried
}

// bytes changes a copy of a in a few places, rarely in many.
func (m *mutator) bytes(a []byte, arg int) []byte {
	out := append(m.scratch[arg][:0], a...)
	steps := 1
	for steps < 64 && m.rand.IntN(2) == 0 {
		steps++
	}
	for range steps {
		out = m.step(out, arg)
	}
	m.scratch[arg] = out
	return out
}

func (m *mutator) step(b []byte, arg int) []byte {
	r := m.rand
	if len(b) == 0 {
		return append(b, byte(r.Uint32()))
	}
	at := r.IntN(len(b))
	switch r.IntN(12) {
	case 0:
		b[at] ^= 1 << r.IntN(8)
	case 1:
		b[at] = byte(r.Uint32())
	case 2:
		b[at] += byte(r.IntN(33) - 16)
	case 3, 4: // a number where one may be
		m.number(b, at, interesting[r.IntN(len(interesting))], false)
	case 5, 6:
		m.number(b, at, r.Int64N(65)-32, true)
	case 7: // cut out
		n := m.length(len(b) - at)
		b = append(b[:at], b[at+n:]...)
	case 8: // twice
		b = m.insert(b, at, bytes.Clone(b[at:at+m.length(len(b)-at)]))
	case 9: // copied over another place
		from := r.IntN(len(b))
		copy(b[at:], b[from:from+m.length(len(b)-from)])
	case 10: // a piece of another entry
		other := m.other(arg)
		if len(other) == 0 {
			break
		}
		from := r.IntN(len(other))
		piece := other[from : from+m.length(len(other)-from)]
		if r.IntN(2) == 0 {
			copy(b[at:], piece)
		} else {
			b = m.insert(b, at, piece)
		}
	case 11: // cut off
		if r.IntN(4) == 0 {
			b = b[:at]
		} else {
			clear(b[at : at+m.length(len(b)-at)])
		}
	}
	return b
}

// number writes v into b, or adds it to what is there, as 2, 4 or 8 bytes in either
// order, most often aligned.
func (m *mutator) number(b []byte, at int, v int64, add bool) {
	width := 2 << m.rand.IntN(3)
	if m.rand.IntN(4) != 0 {
		at -= at % width
	}
	if at+width > len(b) {
		return
	}
	var order binary.ByteOrder = binary.LittleEndian
	if m.rand.IntN(2) == 0 {
		order = binary.BigEndian
	}
	p := b[at : at+width]
	switch width {
	case 2:
		if add {
			v += int64(order.Uint16(p))
		}
		order.PutUint16(p, uint16(v))
	case 4:
		if add {
			v += int64(order.Uint32(p))
		}
		order.PutUint32(p, uint32(v))
	case 8:
		if add {
			v += int64(order.Uint64(p))
		}
		order.PutUint64(p, uint64(v))
	}
}

// length is how many of up to n bytes a step is about: few more often than many.
func (m *mutator) length(n int) int {
	limit := 8 << (m.rand.IntN(5) * 2)
	return 1 + m.rand.IntN(min(n, limit))
}

func (m *mutator) insert(b []byte, at int, piece []byte) []byte {
	if len(b)+len(piece) > maxSize {
		return b
	}
	return slices.Insert(b, at, piece...)
}

// other is the same argument of another entry.
func (m *mutator) other(arg int) []byte {
	switch a := m.corpus[m.rand.IntN(len(m.corpus))][arg].Interface().(type) {
	case []byte:
		return a
	case string:
		return []byte(a)
	}
	return nil
}
