package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/blockwise"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/zstd"
)

// What [Convert] writes: version 3, clusters of 64 KiB and refcounts of 16 bits,
// as QEMU's own default is.
const (
	writtenClusterBits = 16
	writtenCluster     = 1 << writtenClusterBits
	writtenHeader      = 112 // version 3 with the compression type, filled up to 8 bytes
	tableEntries       = writtenCluster / 8
	blockRefcounts     = writtenCluster / 2
	refcountOrder      = 4 // 16 bits

	// sectorsShift is where an L2 entry of a compressed cluster counts sectors.
	sectorsShift = 62 - (writtenClusterBits - 8)
)

// Compression says how the clusters of a written file are stored.
type Compression string

// The compressions that QEMU reads: zlib in all versions, zstd from 5.1 on.
const (
	None Compression = "none"
	Zlib Compression = "zlib"
	Zstd Compression = "zstd"
)

// ConvertOptions are those of [Convert].
type ConvertOptions struct {
	// Compression is None if empty.
	Compression Compression
	// Level is zstd's, 1 to 22; 0 is 1. zlib has one level, since its window is
	// 4 KiB here: QEMU takes no larger one.
	Level int
	sparse.CopyOptions
}

// Convert writes the disk src of size bytes to dst as qcow2. size is a multiple
// of 512 bytes. Clusters of zeros are left out. If dst cannot be written at any
// place, as a pipe, the file is plain: Compression must be None, and
// [blockwise.ErrNeedsFile] is returned otherwise. What was written is a file only
// if the error is nil.
func Convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (blockwise.Summary, error) {
	s, err := convert(ctx, dst, src, size, opts)
	if err != nil {
		return blockwise.Summary{}, fmt.Errorf("convert a disk to qcow2: %w", err)
	}
	return s, nil
}

func convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (blockwise.Summary, error) {
	if size <= 0 || size%sectorSize != 0 || size > ims.MaxDiskSize {
		return blockwise.Summary{}, unsupported("disk size", "it is %d bytes; it must be a multiple of %d up to %d", size, sectorSize, int64(ims.MaxDiskSize))
	}
	w := &writer{out: blockwise.NewOut(dst), compression: opts.Compression, size: size}
	clusters := (size + writtenCluster - 1) / writtenCluster
	w.l1 = make([]uint64, (clusters+tableEntries-1)/tableEntries)
	w.front = writtenCluster + upTo(int64(8*len(w.l1)), writtenCluster)
	l := blockwise.Layout{BlockSize: writtenCluster, FrontSize: w.front, Front: w.writeFront, Put: w.put, End: w.end}
	switch opts.Compression {
	case "", None:
	case Zlib:
		l.Measured = true
		l.Encoder = newDeflater
	case Zstd:
		l.Measured = true
		level := max(1, opts.Level)
		l.Encoder = func() (blockwise.Encoder, error) { return newZstdEncoder(level) }
	default:
		return blockwise.Summary{}, fmt.Errorf("compression is %q; it must be none, zlib or zstd", opts.Compression)
	}
	w.counted = l.Measured
	return blockwise.Write(ctx, w.out, src, size, opts.CopyOptions, l)
}

func upTo(n, multiple int64) int64 { return (n + multiple - 1) / multiple * multiple }

// writer lays a file out:
//
//	header | L1 table | clusters of the first L2 table | that table | ... | refcount blocks | refcount table
//
// Each L2 table follows its clusters, so that one table alone is in memory.
type writer struct {
	out         *blockwise.Out
	size        int64
	compression Compression
	front       int64
	dataEnd     int64 // where the last L2 table ends; 0: not written yet

	l1      []uint64
	l2      [writtenCluster]byte
	table   int64 // number of the L2 table in l2, if inUse
	inUse   bool
	counted bool     // clusters share host clusters, and refs counts them
	refs    []uint16 // by host cluster
}

// put appends a cluster.
func (w *writer) put(index int64, stored []byte) error {
	if table := index / tableEntries; !w.inUse || table != w.table {
		if err := w.endTable(); err != nil {
			return err
		}
		w.table, w.inUse = table, true
	}
	entry := uint64(0)
	if len(stored) == writtenCluster {
		if err := w.out.Align(writtenCluster); err != nil {
			return err
		}
		entry = uint64(w.out.Offset()) | flagCopied
		w.count(w.out.Offset(), writtenCluster)
	} else {
		at := w.out.Offset()
		last := at + int64(len(stored)) - 1
		entry = flagCompressed | uint64(last/sectorSize-at/sectorSize)<<sectorsShift | uint64(at)
		w.count(at, int64(len(stored)))
	}
	binary.BigEndian.PutUint64(w.l2[index%tableEntries*8:], entry)
	_, err := w.out.Write(stored)
	return err
}

// count notes that n bytes from off on are used once more.
func (w *writer) count(off, n int64) {
	if !w.counted {
		return
	}
	for c := off / writtenCluster; c <= (off+n-1)/writtenCluster; c++ {
		for int64(len(w.refs)) <= c {
			w.refs = append(w.refs, 0)
		}
		w.refs[c]++
	}
}

// endTable appends the L2 table that was filled last.
func (w *writer) endTable() error {
	if !w.inUse {
		return nil
	}
	if err := w.out.Align(writtenCluster); err != nil {
		return err
	}
	w.l1[w.table] = uint64(w.out.Offset()) | flagCopied
	w.count(w.out.Offset(), writtenCluster)
	_, err := w.out.Write(w.l2[:])
	clear(w.l2[:])
	w.inUse = false
	return err
}

// refcounts says where the refcount blocks begin, how many they are and how many
// clusters the table after them takes, if dataEnd is where the L2 tables end.
func refcounts(dataEnd int64) (first, blocks, table int64) {
	first = dataEnd / writtenCluster
	for blocks, table = 1, 1; ; {
		need := (first + blocks + table + blockRefcounts - 1) / blockRefcounts
		if need <= blocks {
			return first, blocks, table
		}
		blocks = need
		table = (8*blocks + writtenCluster - 1) / writtenCluster
	}
}

// end appends the last L2 table and the refcounts.
func (w *writer) end(*bitset.Set) error {
	if err := w.endTable(); err != nil {
		return err
	}
	if err := w.out.Align(writtenCluster); err != nil {
		return err
	}
	w.count(0, w.front)
	w.dataEnd = w.out.Offset()
	first, blocks, table := refcounts(w.dataEnd)
	all := first + blocks + table
	w.count(first*writtenCluster, (blocks+table)*writtenCluster)
	b := make([]byte, writtenCluster)
	for i := range blocks {
		clear(b)
		for k := range int64(blockRefcounts) {
			c := i*blockRefcounts + k
			if c >= all {
				break
			}
			n := uint16(1)
			if w.counted {
				n = w.refs[c]
			}
			binary.BigEndian.PutUint16(b[2*k:], n)
		}
		if _, err := w.out.Write(b); err != nil {
			return err
		}
	}
	for i := range blocks {
		binary.BigEndian.PutUint64(b[:8], uint64((first+i)*writtenCluster))
		if _, err := w.out.Write(b[:8]); err != nil {
			return err
		}
	}
	return w.out.Align(writtenCluster)
}

// writeFront writes the header and the L1 table of a file that stores these
// clusters.
func (w *writer) writeFront(dst io.Writer, stored *bitset.Set) error {
	l1, dataEnd := w.l1, w.dataEnd
	if dataEnd == 0 { // a stream: nothing was written yet
		l1, dataEnd = w.plan(stored)
	}
	first, blocks, table := refcounts(dataEnd)
	h := make([]byte, writtenCluster)
	be := binary.BigEndian
	copy(h, magic)
	be.PutUint32(h[offVersion:], 3)
	be.PutUint32(h[offClusterBits:], writtenClusterBits)
	be.PutUint64(h[offSize:], uint64(w.size))
	be.PutUint32(h[offL1Size:], uint32(len(l1)))
	be.PutUint64(h[offL1Offset:], writtenCluster)
	be.PutUint64(h[offRefcounts:], uint64((first+blocks)*writtenCluster))
	be.PutUint32(h[offRefcountClusters:], uint32(table))
	be.PutUint32(h[offRefcountOrder:], refcountOrder)
	be.PutUint32(h[offHeaderLength:], writtenHeader)
	if w.compression == Zstd {
		be.PutUint64(h[offIncompatible:], featureCompression)
		h[offCompression] = compressionZstd
	}
	if _, err := dst.Write(h); err != nil {
		return err
	}
	b := make([]byte, w.front-writtenCluster)
	for i, entry := range l1 {
		be.PutUint64(b[8*i:], entry)
	}
	_, err := dst.Write(b)
	return err
}

// plan says where the L2 tables of a plain file lie that stores these clusters, and
// where the last ends.
func (w *writer) plan(stored *bitset.Set) (l1 []uint64, end int64) {
	l1, end = make([]uint64, len(w.l1)), w.front
	for i := range l1 {
		from := uint32(i) * tableEntries
		to := min(from+tableEntries, stored.Len())
		n := int64(0)
		for c := stored.Next(from); c < to; c = stored.Next(c + 1) {
			n++
		}
		if n > 0 {
			end += n * writtenCluster
			l1[i] = uint64(end) | flagCopied
			end += writtenCluster
		}
	}
	return l1, end
}

// deflater makes raw deflate data (RFC 1951) with a window of 4 KiB, the largest
// that QEMU inflates.
type deflater struct {
	z   *flate.Writer
	buf bytes.Buffer
}

func newDeflater() (blockwise.Encoder, error) {
	d := new(deflater)
	var err error
	d.z, err = flate.NewWriterWindow(&d.buf, 4<<10)
	return d, err
}

// Encode implements [blockwise.Encoder].
func (d *deflater) Encode(dst, plain []byte) ([]byte, error) {
	d.buf.Reset()
	d.z.Reset(&d.buf)
	if _, err := d.z.Write(plain); err != nil {
		return dst, err
	}
	if err := d.z.Close(); err != nil {
		return dst, err
	}
	return shorter(dst, d.buf.Bytes(), plain), nil
}

// shorter appends packed to dst, or plain if packed is no shorter.
func shorter(dst, packed, plain []byte) []byte {
	if len(packed) < len(plain) {
		return append(dst, packed...)
	}
	return append(dst, plain...)
}

// zstdEncoder makes one zstd frame of each cluster.
type zstdEncoder struct{ z zstd.Encoder }

func newZstdEncoder(level int) (blockwise.Encoder, error) {
	z, err := zstd.New(level, 1, writtenCluster)
	return zstdEncoder{z}, err
}

// Encode implements [blockwise.Encoder].
func (e zstdEncoder) Encode(dst, plain []byte) ([]byte, error) {
	at := len(dst)
	dst, err := e.z.Encode(dst, plain)
	if err != nil {
		return dst, err
	}
	if len(dst)-at >= len(plain) {
		dst = append(dst[:at], plain...)
	}
	return dst, nil
}
