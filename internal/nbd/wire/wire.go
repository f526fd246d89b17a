// Package wire has the numbers and the fixed headers of the NBD protocol, for the
// server and for the client of the tests. Everything is big-endian.
//
// Source: doc/proto.md of github.com/NetworkBlockDevice/nbd, named by the sections of
// that document, and its extension "extended headers" (branch extension-ext-header).
package wire

// Magic numbers ("Newstyle negotiation", "Fixed newstyle negotiation", "Transmission").
const (
	InitMagic            = 0x4e42444d41474943 // "NBDMAGIC", the first bytes of a server
	OptionMagic          = 0x49484156454f5054 // "IHAVEOPT", before the handshake flags and each option
	OptionReplyMagic     = 0x0003e889045565a9
	RequestMagic         = 0x25609513
	ExtendedRequestMagic = 0x21e41c71
	SimpleReplyMagic     = 0x67446698
	StructuredReplyMagic = 0x668e33ef
	ExtendedReplyMagic   = 0x6e8a278c
)

// Sizes of fixed parts in bytes.
const (
	GreetingSize         = 18 // two magic numbers, handshake flags
	OptionHeaderSize     = 16
	OptionReplySize      = 20
	RequestSize          = 28
	ExtendedRequestSize  = 32
	SimpleReplySize      = 16
	StructuredReplySize  = 20
	ExtendedReplySize    = 32
	ExportNameReplySize  = 10  // size, transmission flags
	ExportNameZeroes     = 124 // follow unless both sides said no zeroes
	MaxString            = 4096
	MaxSaneLength        = 1 << 25 // "Block size constraints": a smaller payload is no attack
	DefaultPreferredSize = 4096
)

// Handshake flags of the server and of the client; both fields use the same bits.
const (
	FlagFixedNewstyle = 1 << 0
	FlagNoZeroes      = 1 << 1
)

// Transmission flags ("Transmission flags").
const (
	FlagHasFlags           = 1 << 0
	FlagReadOnly           = 1 << 1
	FlagSendFlush          = 1 << 2
	FlagSendFUA            = 1 << 3
	FlagRotational         = 1 << 4
	FlagSendTrim           = 1 << 5
	FlagSendWriteZeroes    = 1 << 6
	FlagSendDF             = 1 << 7
	FlagCanMultiConn       = 1 << 8
	FlagSendResize         = 1 << 9
	FlagSendCache          = 1 << 10
	FlagSendFastZero       = 1 << 11
	FlagBlockStatusPayload = 1 << 12
)

// Option is a request of the handshake ("Option types").
type Option uint32

// The options.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptPeekExport      Option = 4 // withdrawn
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

// OptionReply is the type of an answer to an option ("Option reply types").
type OptionReply uint32

// The answers. Those with bit 31 are errors; their data is a text for people.
const (
	RepAck         OptionReply = 1
	RepServer      OptionReply = 2
	RepInfo        OptionReply = 3
	RepMetaContext OptionReply = 4

	repError              OptionReply = 1 << 31
	RepErrUnsupported                 = repError + 1
	RepErrPolicy                      = repError + 2
	RepErrInvalid                     = repError + 3
	RepErrPlatform                    = repError + 4
	RepErrTLSRequired                 = repError + 5
	RepErrUnknown                     = repError + 6
	RepErrShutdown                    = repError + 7
	RepErrBlockSize                   = repError + 8
	RepErrTooBig                      = repError + 9
	RepErrExtendedHeaders             = repError + 10
)

// Information types of RepInfo.
const (
	InfoExport      = 0
	InfoName        = 1
	InfoDescription = 2
	InfoBlockSize   = 3
)

// Command is a request of the transmission phase ("Request types").
type Command uint16

// The commands.
const (
	CmdRead        Command = 0
	CmdWrite       Command = 1
	CmdDisconnect  Command = 2
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
	CmdBlockStatus Command = 7
)

// Command flags ("Command flags").
const (
	CmdFlagFUA           = 1 << 0
	CmdFlagNoHole        = 1 << 1
	CmdFlagDF            = 1 << 2
	CmdFlagReqOne        = 1 << 3
	CmdFlagFastZero      = 1 << 4
	CmdFlagPayloadLength = 1 << 5 // extended headers: the length is that of a payload
)

// ReplyFlagDone marks the last chunk of a reply.
const ReplyFlagDone = 1 << 0

// Chunk is the type of a reply's chunk ("Structured reply types").
type Chunk uint16

// The chunks. Those with bit 15 are errors.
const (
	ChunkNone           Chunk = 0
	ChunkOffsetData     Chunk = 1
	ChunkOffsetHole     Chunk = 2
	ChunkBlockStatus    Chunk = 5
	ChunkBlockStatusExt Chunk = 6

	chunkError       Chunk = 1 << 15
	ChunkError             = chunkError + 1
	ChunkErrorOffset       = chunkError + 2
)

// Flags of the metadata context base:allocation.
const (
	StateHole = 1 << 0
	StateZero = 1 << 1
)

// BaseAllocation is the metadata context that says what is allocated.
const BaseAllocation = "base:allocation"

// Errno is an error of the transmission phase ("Error values").
type Errno uint32

// The error values that the protocol allows.
const (
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)
