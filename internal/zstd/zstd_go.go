//go:build !cgo

package zstd

import "github.com/klauspost/compress/zstd"

type goEncoder struct{ z *zstd.Encoder }

func newEncoder(level, concurrency, size int) (Encoder, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(concurrency),
		zstd.WithWindowSize(size),
		zstd.WithSingleSegment(true), // as the published writer's frames are
		zstd.WithEncoderCRC(true), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return nil, err
	}
	return goEncoder{z}, nil
}

// Encode implements [Encoder].
func (e goEncoder) Encode(dst, src []byte) ([]byte, error) { return e.z.EncodeAll(src, dst), nil }

// Close implements [Encoder].
func (e goEncoder) Close() { e.z.Close() }

func implementation() string { return "Go (klauspost/compress)" }
