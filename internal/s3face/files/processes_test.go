package files_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/s3face/files"
)

// TestConditionBetweenProcesses: of two stores on the same buckets, as two processes have
// them, one alone publishes an object that must not be there yet.
func TestConditionBetweenProcesses(t *testing.T) {
	t.Parallel()
	b, dir := open(t)
	other, err := files.Open(files.Config{Buckets: filepath.Dir(dir), Meta: filepath.Join(filepath.Dir(dir), "..", "meta"), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer other.Close()
	b2, err := other.Bucket("images")
	must(t, err)
	defer b2.Close()
	exists := errors.New("it is there")
	publish := func(b *files.Bucket, looked func()) error {
		temp, err := b.Create()
		if err != nil {
			return err
		}
		defer temp.Discard()
		_, err = temp.Publish("key", &files.Record{ETag: "e"}, func(now *files.Object) error {
			looked()
			if now != nil {
				return exists
			}
			return nil
		})
		return err
	}
	second := make(chan error, 1)
	first := publish(b, func() {
		ended := make(chan struct{})
		go func() {
			second <- publish(b2, func() {})
			close(ended)
		}()
		select {
		case <-ended: // it did not wait for this one
		case <-time.After(100 * time.Millisecond):
		}
	})
	if err := <-second; first != nil || !errors.Is(err, exists) {
		t.Errorf("the one that looked first: %v, the other: %v", first, err)
	}
}
