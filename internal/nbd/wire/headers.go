package wire

import "encoding/binary"

// OptionHeader is what comes before an option's data.
type OptionHeader struct {
	Magic  uint64
	Option Option
	Length uint32
}

// ParseOption reads a header from the first OptionHeaderSize bytes of b.
func ParseOption(b []byte) OptionHeader {
	return OptionHeader{
		Magic:  binary.BigEndian.Uint64(b),
		Option: Option(binary.BigEndian.Uint32(b[8:])),
		Length: binary.BigEndian.Uint32(b[12:]),
	}
}

// AppendOptionReply appends an answer with its data.
func AppendOptionReply(b []byte, option Option, reply OptionReply, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, OptionReplyMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(option))
	b = binary.BigEndian.AppendUint32(b, uint32(reply))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// Request is a request's header, in either form.
type Request struct {
	Magic   uint32
	Flags   uint16
	Command Command
	Cookie  uint64 // chosen by the client, comes back in the reply
	Offset  uint64
	Length  uint64
}

// ParseRequest reads a header from b: RequestSize bytes, or ExtendedRequestSize.
func ParseRequest(b []byte, extended bool) Request {
	r := Request{
		Magic:   binary.BigEndian.Uint32(b),
		Flags:   binary.BigEndian.Uint16(b[4:]),
		Command: Command(binary.BigEndian.Uint16(b[6:])),
		Cookie:  binary.BigEndian.Uint64(b[8:]),
		Offset:  binary.BigEndian.Uint64(b[16:]),
	}
	if extended {
		r.Length = binary.BigEndian.Uint64(b[24:])
	} else {
		r.Length = uint64(binary.BigEndian.Uint32(b[24:]))
	}
	return r
}

// PutSimpleReply writes a simple reply's header to the first SimpleReplySize bytes of b.
func PutSimpleReply(b []byte, cookie uint64, errno Errno) {
	binary.BigEndian.PutUint32(b, SimpleReplyMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(errno))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// ChunkHeader is what comes before a chunk's payload, in either form.
type ChunkHeader struct {
	Flags  uint16
	Type   Chunk
	Cookie uint64
	Offset uint64 // the request's; extended form only
	Length uint64 // of the payload
}

// ChunkHeaderSize is the size of a chunk's header in bytes.
func ChunkHeaderSize(extended bool) int {
	if extended {
		return ExtendedReplySize
	}
	return StructuredReplySize
}

// PutChunk writes a chunk's header to the first ChunkHeaderSize bytes of b.
func PutChunk(b []byte, h ChunkHeader, extended bool) {
	binary.BigEndian.PutUint32(b, StructuredReplyMagic)
	binary.BigEndian.PutUint16(b[4:], h.Flags)
	binary.BigEndian.PutUint16(b[6:], uint16(h.Type))
	binary.BigEndian.PutUint64(b[8:], h.Cookie)
	if !extended {
		binary.BigEndian.PutUint32(b[16:], uint32(h.Length))
		return
	}
	binary.BigEndian.PutUint32(b, ExtendedReplyMagic)
	binary.BigEndian.PutUint64(b[16:], h.Offset)
	binary.BigEndian.PutUint64(b[24:], h.Length)
}
