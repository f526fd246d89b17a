package blockdev

import (
	"bytes"
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	// What all share is made before a test stops the clock for itself.
	var file bytes.Buffer
	if _, err := zvhd2.Convert(context.Background(), &file, bytes.NewReader(bytes.Repeat([]byte("text"), 1024)), 4096, zvhd2.ConvertOptions{}); err != nil {
		panic(err)
	}
	if f, err := zvhd2.Open(bytes.NewReader(file.Bytes()), int64(file.Len())); err != nil {
		panic(err)
	} else if _, err := f.ReadAt(make([]byte, 512), 0); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
