package zdisk

import (
	"encoding/binary"

	"github.com/quickims/quickims/internal/diskformat"
)

// The frame of a stored block: a head, the payload, padding, and a tail in the
// last bytes of the record, which is a whole number of pages.
const (
	// RecordHeadSize is the length of a record's head.
	RecordHeadSize = 48
	// RecordTailSize is the length of its tail.
	RecordTailSize = 4

	recordMagic   = "hwstream bg\x00"
	recordTail    = "end\x00"
	offRecordSize = 12
	offRecordBlk  = 16
)

// RecordLen is the length on disk of a record with a payload of n bytes.
func RecordLen(n int64) int64 {
	return (RecordHeadSize + n + RecordTailSize + PageSize - 1) / PageSize * PageSize
}

// RecordHead is what the head of a record says.
type RecordHead struct {
	Payload uint32 // length in bytes
	Block   uint32
}

// IsRecord tells whether b begins as a record does.
func IsRecord(b []byte) bool {
	return len(b) >= len(recordMagic) && string(b[:len(recordMagic)]) == recordMagic
}

// ParseHead reads the head of a record from b, which has at least
// RecordHeadSize bytes.
func ParseHead(f diskformat.Format, b []byte) (RecordHead, error) {
	if !IsRecord(b) {
		return RecordHead{}, diskformat.Errorf(f, diskformat.ErrCorrupt, "record head",
			"it begins with %q instead of %q", b[:len(recordMagic)], recordMagic)
	}
	return RecordHead{
		Payload: binary.LittleEndian.Uint32(b[offRecordSize:]),
		Block:   binary.LittleEndian.Uint32(b[offRecordBlk:]),
	}, nil
}

// Payload checks the frame of the record rec, all of it, that stores block,
// and returns its payload, which lies in rec. What lies in the padding is
// unspecified.
func Payload(f diskformat.Format, rec []byte, block uint32) ([]byte, error) {
	if len(rec) < PageSize || len(rec)%PageSize != 0 {
		return nil, diskformat.Errorf(f, diskformat.ErrCorrupt, "record",
			"it has %d bytes; a record is one or more pages of %d", len(rec), PageSize)
	}
	h, err := ParseHead(f, rec)
	if err != nil {
		return nil, err
	}
	if h.Block != block {
		return nil, diskformat.Errorf(f, diskformat.ErrCorrupt, "record block number",
			"it says %d where block %d is stored", h.Block, block)
	}
	if h.Payload == 0 || RecordLen(int64(h.Payload)) != int64(len(rec)) {
		return nil, diskformat.Errorf(f, diskformat.ErrCorrupt, "record payload size",
			"it says %d bytes, which does not fit a record of %d", h.Payload, len(rec))
	}
	if tail := rec[len(rec)-RecordTailSize:]; string(tail) != recordTail {
		return nil, diskformat.Errorf(f, diskformat.ErrCorrupt, "record tail",
			"it is %q instead of %q", tail, recordTail)
	}
	return rec[RecordHeadSize : RecordHeadSize+int(h.Payload)], nil
}

// FinishRecord makes rec, RecordHeadSize spare bytes and then the payload,
// into a whole record of block: head, zero padding, tail.
func FinishRecord(rec []byte, block uint32) []byte {
	payload := len(rec) - RecordHeadSize
	n := int(RecordLen(int64(payload)))
	if cap(rec) >= n {
		end := len(rec)
		rec = rec[:n]
		clear(rec[end:])
	} else {
		rec = append(rec, make([]byte, n-len(rec))...)
	}
	clear(rec[:RecordHeadSize])
	copy(rec, recordMagic)
	binary.LittleEndian.PutUint32(rec[offRecordSize:], uint32(payload))
	binary.LittleEndian.PutUint32(rec[offRecordBlk:], block)
	copy(rec[n-RecordTailSize:], recordTail)
	return rec
}
