package auth

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// Limits of the framing of a body in chunks.
const (
	maxChunkLine   = 512
	maxTrailerLine = 4 << 10
	maxTrailers    = 16
	maxChunk       = 5 << 30
)

// Framed reports whether the body comes in S3's own chunks (aws-chunked).
func (s *Signature) Framed() bool {
	return s.payload == streamingSigned || s.payload == streamingSignedTrailer || s.payload == streamingTrailer
}

// Body is the content of a verified request's body, without its framing. It is
// read to its end, where its hash or the signatures of its chunks are checked;
// until Read returned io.EOF nothing of it is proven.
type Body struct {
	in        *bufio.Reader
	signature *Signature
	hash      hash.Hash // of the whole, or of the chunk

	framed, signed, trailer bool
	previous                string // the signature before
	expect                  string // the signature that the chunk's header claims
	left                    int64  // of the chunk
	begun                   bool
	trailers                map[string]string
	wanted                  []string // trailers that were announced
	err                     error
}

// Body returns the content of a body. announced is the value of the
// x-amz-trailer header. The signature must have been verified.
func (s *Signature) Body(body io.Reader, announced string) *Body {
	b := &Body{in: bufio.NewReaderSize(body, 64<<10), signature: s, previous: s.signature, trailers: map[string]string{}}
	switch s.payload {
	case streamingSigned:
		b.framed, b.signed = true, true
	case streamingSignedTrailer:
		b.framed, b.signed, b.trailer = true, true, true
	case streamingTrailer:
		b.framed, b.trailer = true, true
	case unsignedPayload, "":
	default:
		b.hash = sha256.New()
	}
	if b.signed {
		b.hash = sha256.New()
	}
	for name := range strings.SplitSeq(announced, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			b.wanted = append(b.wanted, name)
		}
	}
	return b
}

// Trailer returns a trailing header, by its lower-case name, after the end was read.
func (b *Body) Trailer(name string) (string, bool) { v, ok := b.trailers[name]; return v, ok }

// Read implements io.Reader. Errors that are the client's are *wire.Error.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	if err != nil {
		b.err = err
	}
	return n, err
}

func (b *Body) read(p []byte) (int, error) {
	if !b.framed {
		n, err := b.in.Read(p)
		if b.hash != nil {
			b.hash.Write(p[:n])
			if err == io.EOF && hex.EncodeToString(b.hash.Sum(nil)) != strings.ToLower(b.signature.payload) {
				return n, wire.Err("XAmzContentSHA256Mismatch")
			}
		}
		return n, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.left == 0 {
		more, err := b.nextChunk()
		if err != nil {
			return 0, err
		}
		if !more {
			return 0, b.end()
		}
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	if b.signed {
		b.hash.Write(p[:n])
	}
	b.left -= int64(n)
	if err == io.EOF && (b.left > 0 || n == 0) {
		return n, cutOff(err)
	}
	if err == io.EOF {
		err = nil // the next read finds it
	}
	if err == nil && b.left == 0 {
		err = b.chunkEnd()
	}
	return n, err
}

// cutOff says of a body that ended too early what it is.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return wire.Errorf("IncompleteBody", "The body ended in the middle of a chunk.")
	}
	return err
}

func badFrame(format string, args ...any) error {
	return wire.Errorf("InvalidRequest", "The body's chunks are malformed: "+format, args...)
}

// line reads a line of at most limit bytes, without its end.
func (b *Body) line(limit int) (string, error) {
	var line []byte
	for {
		c, err := b.in.ReadByte()
		if err != nil {
			return string(line), err
		}
		if c == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		if len(line) == limit {
			return "", badFrame("a line has more than %d bytes.", limit)
		}
		line = append(line, c)
	}
}

// nextChunk reads a chunk's header, false for the last one's.
func (b *Body) nextChunk() (bool, error) {
	line, err := b.line(maxChunkLine)
	if err != nil {
		return false, cutOff(err)
	}
	b.begun = true
	digits, extension, _ := strings.Cut(line, ";")
	digits = strings.TrimSpace(digits)
	size, err := strconv.ParseUint(digits, 16, 63)
	if err != nil || digits[0] == '+' || size > maxChunk {
		return false, badFrame("a chunk's size is %.40q.", digits)
	}
	b.expect = ""
	if b.signed {
		sig, ok := strings.CutPrefix(strings.TrimSpace(extension), "chunk-signature=")
		if !ok {
			return false, badFrame("a chunk has no chunk-signature.")
		}
		b.expect = sig
		b.hash.Reset()
	}
	b.left = int64(size)
	if size == 0 {
		return false, b.checkChunk()
	}
	return true, nil
}

// chunkEnd reads what stands behind a chunk's data and checks its signature.
func (b *Body) chunkEnd() error {
	line, err := b.line(1) // its carriage return
	var bad *wire.Error
	if err != nil && !errors.As(err, &bad) {
		return cutOff(err)
	}
	if err != nil || line != "" {
		return badFrame("a chunk's data is longer than its size.")
	}
	return b.checkChunk()
}

// emptyHash is the SHA-256 of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (b *Body) checkChunk() error {
	if !b.signed {
		return nil
	}
	s := b.signature
	toSign := "AWS4-HMAC-SHA256-PAYLOAD\n" + s.stamp + "\n" + s.scope() + "\n" + b.previous + "\n" + emptyHash + "\n" + hex.EncodeToString(b.hash.Sum(nil))
	got := hex.EncodeToString(hmacSHA256(s.key, toSign))
	if !hmac.Equal([]byte(got), []byte(b.expect)) {
		return wire.Errorf("SignatureDoesNotMatch", "The signature of a chunk does not match.")
	}
	b.previous = got
	return nil
}

// end reads the trailers, if there are to be any, and that nothing follows.
func (b *Body) end() error {
	var signed bytes.Buffer
	signature, blank := "", false
	for {
		line, err := b.line(maxTrailerLine)
		if err == io.EOF && line == "" {
			break // some clients leave out the last empty line
		}
		if err != nil {
			return cutOff(err)
		}
		if line == "" {
			// AWS's own description has an empty line before the signature.
			if b.signed && b.trailer && signature == "" && len(b.trailers) > 0 && !blank {
				blank = true
				continue
			}
			break
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || !b.trailer:
			return badFrame("there is a trailer %.60q.", line)
		case name == "x-amz-trailer-signature":
			signature = value
			continue
		case signature != "" || !slices.Contains(b.wanted, name):
			return badFrame("the trailer %.60q is not announced in x-amz-trailer.", name)
		case len(b.trailers) == maxTrailers:
			return badFrame("there are more than %d trailers.", maxTrailers)
		}
		if _, twice := b.trailers[name]; twice {
			return badFrame("the trailer %.60q occurs twice.", name)
		}
		b.trailers[name] = value
		signed.WriteString(name + ":" + value + "\n")
	}
	for range 4 { // ends of lines that some clients send beyond the last
		c, err := b.in.ReadByte()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if c != '\r' && c != '\n' {
			return badFrame("something follows the last chunk.")
		}
	}
	for _, name := range b.wanted {
		if _, ok := b.trailers[name]; !ok {
			return badFrame("the trailer %.60q was announced and did not come.", name)
		}
	}
	if b.signed && b.trailer {
		s := b.signature
		sum := sha256.Sum256(signed.Bytes())
		toSign := "AWS4-HMAC-SHA256-TRAILER\n" + s.stamp + "\n" + s.scope() + "\n" + b.previous + "\n" + hex.EncodeToString(sum[:])
		if !hmac.Equal([]byte(hex.EncodeToString(hmacSHA256(s.key, toSign))), []byte(signature)) {
			return wire.Errorf("SignatureDoesNotMatch", "The signature of the trailers does not match.")
		}
	}
	return io.EOF
}
