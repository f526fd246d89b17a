//go:build !libzstd || !cgo

package zvhd2

import "github.com/klauspost/compress/zstd"

// goEncoder is zstd in Go, which every build has.
type goEncoder struct{ z *zstd.Encoder }

// newEncoder makes one for frames that hold up to size bytes.
func (o Options) newEncoder(size int) (encoder, error) {
	level, err := o.checkLevel()
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(o.concurrency()),
		zstd.WithWindowSize(size),
		zstd.WithSingleSegment(true), // as the published writer's frames are
		zstd.WithEncoderCRC(true), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return nil, err
	}
	return goEncoder{z}, nil
}

func (e goEncoder) encode(dst, src []byte) ([]byte, error) { return e.z.EncodeAll(src, dst), nil }

func (e goEncoder) close() { e.z.Close() }
