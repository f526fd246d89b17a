package nbdtest

import (
	"encoding/binary"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// What a client writes and reads of the wire, and a server does not.

// AppendOption appends an option with its data.
func AppendOption(b []byte, option wire.Option, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, wire.OptionMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(option))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// AppendRequest appends the header. The compact form keeps the low 32 bits of the length.
func AppendRequest(b []byte, r wire.Request, extended bool) []byte {
	b = binary.BigEndian.AppendUint32(b, r.Magic)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Command))
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	if extended {
		return binary.BigEndian.AppendUint64(b, r.Length)
	}
	return binary.BigEndian.AppendUint32(b, uint32(r.Length))
}

// ParseChunk reads what follows the magic number of a chunk's header; b starts with
// the magic number.
func ParseChunk(b []byte, extended bool) wire.ChunkHeader {
	h := wire.ChunkHeader{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   wire.Chunk(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
	}
	if extended {
		h.Offset = binary.BigEndian.Uint64(b[16:])
		h.Length = binary.BigEndian.Uint64(b[24:])
	} else {
		h.Length = uint64(binary.BigEndian.Uint32(b[16:]))
	}
	return h
}

// isErrorReply reports whether the answer ends its option with an error: bit 31.
func isErrorReply(r wire.OptionReply) bool { return r&(1<<31) != 0 }

// isErrorChunk reports whether the chunk says that the request failed: bit 15.
func isErrorChunk(c wire.Chunk) bool { return c&(1<<15) != 0 }
