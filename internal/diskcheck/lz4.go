package diskcheck

import (
	"bufio"
	"bytes"
	"io"

	"github.com/quickims/quickims/internal/filesystem"
)

// lz4Block is the unpacked size of every block but the last in the form that the
// kernel reads (lz4 -l): a magic number, then for each block its packed length in
// four bytes, little-endian, and the block.
const lz4Block = 8 << 20

// lz4Ratio is how many bytes a packed byte makes at most: one that lengthens a match.
const lz4Ratio = 255

// lz4 unpacks that form. LZ4's block format is described in lz4_Block_format.md
// of the lz4 project.
type lz4 struct {
	r    *bufio.Reader
	in   bytes.Buffer
	out  []byte
	rest []byte // of out, not yet read
	err  error
}

func newLZ4(r *bufio.Reader) io.Reader {
	_, err := r.Discard(4)
	return &lz4{r: r, err: err}
}

func (z *lz4) Read(p []byte) (int, error) {
	for len(z.rest) == 0 && z.err == nil {
		z.rest, z.err = z.block()
	}
	if len(z.rest) == 0 {
		return 0, z.err
	}
	n := copy(p, z.rest)
	z.rest = z.rest[n:]
	return n, nil
}

// block unpacks the next block. A length that no block can have is the end: it is
// the length of the whole that mkinitramfs's callers append, or padding.
func (z *lz4) block() ([]byte, error) {
	head, err := z.r.Peek(4)
	if err != nil {
		return nil, io.EOF
	}
	packed := le.Uint32(head)
	if packed == 0 || packed > lz4Block+lz4Block/255+16 {
		return nil, io.EOF
	}
	_, _ = z.r.Discard(4)
	// Memory goes by the bytes that are there, not by the length that is said.
	z.in.Reset()
	if _, err := io.CopyN(&z.in, z.r, int64(packed)); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if most := min(lz4Block, lz4Ratio*int(packed)); len(z.out) < most {
		z.out = make([]byte, most)
	}
	n, ok := unpackLZ4(z.out, z.in.Bytes())
	if !ok {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "a block of %d bytes can't be unpacked", packed)
	}
	return z.out[:n], nil
}

// unpackLZ4 unpacks one block: sequences of a token, literals, and a match of at
// least four bytes some way back in the output; the last has no match.
func unpackLZ4(out, in []byte) (n int, ok bool) {
	length := func(short int) (int, bool) {
		if short < 15 {
			return short, true
		}
		for {
			if len(in) == 0 {
				return 0, false
			}
			more := int(in[0])
			in = in[1:]
			if short += more; more < 255 {
				return short, short <= len(out)
			}
		}
	}
	for len(in) > 0 {
		token := in[0]
		in = in[1:]
		literals, ok := length(int(token >> 4))
		if !ok || literals > len(in) || literals > len(out)-n {
			return 0, false
		}
		n += copy(out[n:], in[:literals])
		in = in[literals:]
		if len(in) == 0 {
			return n, true
		}
		if len(in) < 2 {
			return 0, false
		}
		back := int(le.Uint16(in))
		in = in[2:]
		match, ok := length(int(token & 15))
		if match += 4; !ok || back == 0 || back > n || match > len(out)-n {
			return 0, false
		}
		// A match may overlap itself: what was copied is copied again.
		for start, end := n-back, n+match; n < end; {
			n += copy(out[n:end], out[start:n])
		}
	}
	return 0, false
}
