package storetest

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/posix"
)

// countedBackend keeps in a file how many GETs of objects there were and how many
// bytes left for them: two integers of 8 bytes, little-endian.
type countedBackend struct {
	*posix.Posix

	mu         sync.Mutex
	file       *os.File
	gets, sent uint64
}

// GetObject implements backend.Backend.
func (b *countedBackend) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	out, err := b.Posix.GetObject(ctx, in)
	b.count(1, 0)
	if err == nil && out.Body != nil {
		out.Body = &countedBody{ReadCloser: out.Body, backend: b}
	}
	return out, err
}

func (b *countedBackend) count(gets, sent uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets += gets
	b.sent += sent
	var text [16]byte
	binary.LittleEndian.PutUint64(text[:], b.gets)
	binary.LittleEndian.PutUint64(text[8:], b.sent)
	_, _ = b.file.WriteAt(text[:], 0) // a reader of the file sees what is missing
}

type countedBody struct {
	io.ReadCloser
	backend *countedBackend
	sent    uint64
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sent += uint64(n)
	return n, err
}

func (c *countedBody) Close() error {
	c.backend.count(0, c.sent)
	c.sent = 0
	return c.ReadCloser.Close()
}

// Sent is how many GETs of objects the gateway has answered, and how many bytes of
// objects left for them. A GET whose answer is still under way counts without bytes.
func (g *Gateway) Sent(t testing.TB) (gets, bytes int64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(g.Folder), gatewayCounts))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) < 16 {
		return 0, 0
	}
	return int64(binary.LittleEndian.Uint64(text)), int64(binary.LittleEndian.Uint64(text[8:]))
}
