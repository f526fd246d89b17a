//go:build libzstd && cgo

package zvhd2

// #cgo LDFLAGS: -lzstd
// #include <zstd.h>
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// libzstd is the reference implementation, for those who build with the tag libzstd
// (Debian: libzstd-dev) because it compresses faster. Files of either are read by
// both.
type libzstd struct{ free chan *C.ZSTD_CCtx }

// newEncoder makes one for frames of any size.
func (o Options) newEncoder(int) (encoder, error) {
	level, err := o.checkLevel()
	if err != nil {
		return nil, err
	}
	e := &libzstd{make(chan *C.ZSTD_CCtx, o.concurrency())}
	runtime.AddCleanup(e, freeAll, e.free) // of a Writer that was thrown away
	for range cap(e.free) {
		ctx := C.ZSTD_createCCtx()
		if ctx == nil {
			e.close()
			return nil, errors.New("zstd: no memory for a compressor")
		}
		e.free <- ctx
		for _, p := range []struct {
			param C.ZSTD_cParameter
			value C.int
		}{{C.ZSTD_c_compressionLevel, C.int(level)}, {C.ZSTD_c_contentSizeFlag, 1}, {C.ZSTD_c_checksumFlag, 1}} {
			if code := C.ZSTD_CCtx_setParameter(ctx, p.param, p.value); C.ZSTD_isError(code) != 0 {
				e.close()
				return nil, fmt.Errorf("zstd: %s", C.GoString(C.ZSTD_getErrorName(code)))
			}
		}
	}
	return e, nil
}

func (e *libzstd) encode(dst, src []byte) ([]byte, error) {
	ctx := <-e.free
	defer func() { e.free <- ctx }()
	if bound := len(dst) + int(C.ZSTD_compressBound(C.size_t(len(src)))); cap(dst) < bound {
		dst = append(make([]byte, 0, bound), dst...)
	}
	room := dst[len(dst):cap(dst)]
	n := C.ZSTD_compress2(ctx, unsafe.Pointer(&room[0]), C.size_t(len(room)), unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src)))
	if C.ZSTD_isError(n) != 0 {
		return nil, fmt.Errorf("zstd: %s", C.GoString(C.ZSTD_getErrorName(n)))
	}
	return dst[:len(dst)+int(n)], nil
}

func (e *libzstd) close() { freeAll(e.free) }

// freeAll frees the compressors that are not at work.
func freeAll(free chan *C.ZSTD_CCtx) {
	for {
		select {
		case ctx := <-free:
			C.ZSTD_freeCCtx(ctx)
		default:
			return
		}
	}
}
