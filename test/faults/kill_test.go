// Package faults kills the server at every named step of an import and starts it
// again: each job ends once, with an image whose bytes are the source's or with
// nothing left.
package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const bucket = "faults"

// place puts a disk into the bucket in one of the two formats and returns its key.
func place(t *testing.T, s *harness.Server, format string, disk []byte) string {
	t.Helper()
	ctx := context.Background()
	switch format {
	case "raw":
		mf, err := bitmap.Build(ctx, bytes.NewReader(disk), int64(len(disk)), bitmap.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		if _, err := mf.WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		s.PutFile(t, bucket, "disk.raw", disk)
		s.PutFile(t, bucket, "disk.mf", buf.Bytes())
		return "disk.raw"
	default:
		var buf bytes.Buffer
		if _, err := zvhd2.Convert(ctx, &buf, bytes.NewReader(disk), int64(len(disk)), zvhd2.ConvertOptions{}); err != nil {
			t.Fatal(err)
		}
		s.PutFile(t, bucket, "disk.zvhd2", buf.Bytes())
		return "disk.zvhd2"
	}
}

// databases runs f with SQLite and, where there is one, with PostgreSQL.
func databases(t *testing.T, f func(t *testing.T, database func(t *testing.T) string)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, func(*testing.T) string { return "" })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, harness.Postgres)
	})
}

func TestKillAtEveryStepOfAnImport(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, database func(t *testing.T) string) {
		for i, point := range faultpoint.Import {
			format := []string{"raw", "zvhd2"}[i%2]
			t.Run(point+"/"+format, func(t *testing.T) {
				t.Parallel()
				s := harness.Start(t, harness.Options{Database: database(t), Faults: point + "=kill"})
				disk := harness.Disk(uint64(i), 6)
				key := place(t, s, format, disk)
				token := s.Token(t)
				request := []byte(fmt.Sprintf(`{"name":"killed","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"%s:%s","min_disk":1}`, bucket, key))
				_, err := s.Send("POST", harness.QuickImportPath, token, request)
				s.Ended(t)
				s.Restart(t, "")

				images := s.Images(t, "")
				if point == faultpoint.AcceptBeforeCommit {
					if err == nil || len(images) != 0 {
						t.Fatalf("killed before the commit: answered %v, %d images", err == nil, len(images))
					}
					nothingLeft(t, s, 0)
					return
				}
				if len(images) != 1 {
					t.Fatalf("%d images after the restart, want 1", len(images))
				}
				var image harness.Image
				harness.Eventually(t, "the image is active", func() bool {
					s.Get(t, "/v2/images/"+images[0].ID, &image)
					return image.Status == "active" || image.Status == "killed"
				})
				if image.Status != "active" {
					t.Fatalf("the image is %s", image.Status)
				}
				if err := os.RemoveAll(filepath.Join(s.Dir, "buckets", bucket)); err != nil {
					t.Fatal(err)
				}
				s.CheckBytes(t, image.ID, disk)
				files := 1
				if format == "raw" {
					files = 2
				}
				nothingLeft(t, s, files)
			})
		}
	})
}

// nothingLeft waits until the image area holds want files: those of living images.
func nothingLeft(t *testing.T, s *harness.Server, want int) {
	t.Helper()
	var files []string
	deadline := time.Now().Add(20 * time.Second)
	harness.Eventually(t, fmt.Sprintf("the image area holds %d files", want), func() bool {
		files = harness.Files(t, filepath.Join(s.Dir, "images"), ".pins", ".tmp", imagearea.MarkKey)
		if len(files) != want && time.Now().After(deadline) {
			t.Fatalf("the image area holds %q, want %d files", files, want)
		}
		return len(files) == want
	})
}

func TestKillWhileAnImportFails(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, database func(t *testing.T) string) {
		for _, point := range faultpoint.Failure {
			t.Run(point, func(t *testing.T) {
				t.Parallel()
				s := harness.Start(t, harness.Options{Database: database(t), Faults: point + "=kill"})
				qcow2 := append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 1<<20)...)
				s.PutFile(t, bucket, "disk.raw", qcow2[:1<<20])
				s.PutFile(t, bucket, "disk.mf", []byte("of another tool"))
				s.Token(t)
				body := `{"name":"failing","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"faults:disk.raw","min_disk":1}`
				s.Send("POST", harness.QuickImportPath, s.Token(t), []byte(body))
				s.Ended(t)
				s.Restart(t, "")
				harness.Eventually(t, "the image is killed", func() bool { return len(s.Images(t, "?status=killed")) == 1 })
				nothingLeft(t, s, 0)
			})
		}
	})
}

func TestKillWhileAnImageIsDeleted(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, database func(t *testing.T) string) {
		for _, point := range faultpoint.Deletion {
			t.Run(point, func(t *testing.T) {
				t.Parallel()
				s := harness.Start(t, harness.Options{Database: database(t), Faults: point + "=kill"})
				disk := harness.Disk(3, 4)
				id := s.Import(t, harness.Request("deleted", bucket+":"+place(t, s, "raw", disk)))
				s.Send("DELETE", "/v2/images/"+id, s.Token(t), nil)
				s.Ended(t)
				s.Restart(t, "")
				if a := s.Do(t, "GET", "/v2/images/"+id, nil); a.Status != 404 {
					t.Errorf("the deleted image answers %d", a.Status)
				}
				nothingLeft(t, s, 0)
			})
		}
	})
}
