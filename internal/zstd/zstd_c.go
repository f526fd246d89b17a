//go:build cgo

package zstd

// The library's source is in the Go module github.com/DataDog/zstd, which is linked
// into the program; its own Go calls cannot set the parameters that are wanted here.
// What is declared are the functions of the library's stable API (zstd.h, since 1.4.0)
// that are called. They are weak because cgo tries to link this package alone, in which
// nothing defines them.

// #include <stddef.h>
// #define API __attribute__((weak))
// typedef struct ZSTD_CCtx_s ZSTD_CCtx;
// API ZSTD_CCtx *ZSTD_createCCtx(void);
// API size_t ZSTD_freeCCtx(ZSTD_CCtx *);
// API size_t ZSTD_CCtx_setParameter(ZSTD_CCtx *, int, int);
// API size_t ZSTD_compress2(ZSTD_CCtx *, void *, size_t, const void *, size_t);
// API size_t ZSTD_compressBound(size_t);
// API unsigned ZSTD_isError(size_t);
// API const char *ZSTD_getErrorName(size_t);
// API const char *ZSTD_versionString(void);
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	_ "github.com/DataDog/zstd" // the library
)

// Parameters of the library, from zstd.h.
const (
	paramLevel       = 100
	paramContentSize = 200
	paramChecksum    = 201
)

// library has a context for each goroutine.
type library struct{ free chan *C.ZSTD_CCtx }

func newEncoder(level, concurrency, _ int) (Encoder, error) {
	e := &library{make(chan *C.ZSTD_CCtx, concurrency)}
	runtime.AddCleanup(e, freeAll, e.free) // of an encoder that was never closed
	for range cap(e.free) {
		ctx := C.ZSTD_createCCtx()
		if ctx == nil {
			e.Close()
			return nil, errors.New("zstd: no memory for a compressor")
		}
		e.free <- ctx
		for param, value := range map[int]int{paramLevel: level, paramContentSize: 1, paramChecksum: 1} {
			if err := fault(C.ZSTD_CCtx_setParameter(ctx, C.int(param), C.int(value))); err != nil {
				e.Close()
				return nil, err
			}
		}
	}
	return e, nil
}

func fault(code C.size_t) error {
	if C.ZSTD_isError(code) == 0 {
		return nil
	}
	return fmt.Errorf("zstd: %s", C.GoString(C.ZSTD_getErrorName(code)))
}

// Encode implements [Encoder].
func (e *library) Encode(dst, src []byte) ([]byte, error) {
	ctx := <-e.free
	defer func() { e.free <- ctx }()
	if bound := len(dst) + int(C.ZSTD_compressBound(C.size_t(len(src)))); cap(dst) < bound {
		dst = append(make([]byte, 0, bound), dst...)
	}
	room := dst[len(dst):cap(dst)]
	n := C.ZSTD_compress2(ctx, unsafe.Pointer(&room[0]), C.size_t(len(room)), unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src)))
	if err := fault(n); err != nil {
		return nil, err
	}
	return dst[:len(dst)+int(n)], nil
}

// Close implements [Encoder].
func (e *library) Close() { freeAll(e.free) }

// freeAll frees the contexts that are not at work.
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

func implementation() string { return "libzstd " + C.GoString(C.ZSTD_versionString()) }
