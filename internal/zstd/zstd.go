// Package zstd makes zstd frames: with the reference library where the program was
// built with a C compiler, else in Go. The library takes about half of the processor
// time; readers do not tell the frames of the two apart. Decoding is in Go in both.
package zstd

// Encoder makes frames. It may be used by as many goroutines at once as it was made
// for.
type Encoder interface {
	// Encode appends one frame to dst that holds src, says its length and has a
	// checksum.
	Encode(dst, src []byte) ([]byte, error)
	// Close gives the memory back. Nobody may be encoding.
	Close()
}

// New makes an encoder for so many goroutines at once, of frames that hold up to size
// bytes each. level is 1 (fastest) to 22.
func New(level, concurrency, size int) (Encoder, error) { return newEncoder(level, concurrency, size) }

// Implementation names what makes the frames, with its version.
func Implementation() string { return implementation() }
