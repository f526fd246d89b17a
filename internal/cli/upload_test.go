package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	os.Exit(m.Run())
}

func TestAFileThatChangesMeanwhileIsNotUploaded(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	bucket := g.MakeBucket(t)
	store, err := client.NewStore(client.Config{S3Endpoint: g.URL, AccessKey: g.AccessKey, SecretKey: client.Secret(g.SecretKey)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &session{Env: Env{Stderr: &bytes.Buffer{}}, now: time.Now}
	to := objectName{bucket, "disk.raw"}
	if _, err := s.upload(t.Context(), store, f, to); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.upload(t.Context(), store, f, to); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("got %v", err)
	}
	_, err = store.Stat(t.Context(), bucket, "disk.raw")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != 404 {
		t.Errorf("the useless object is there: %v", err)
	}
}
