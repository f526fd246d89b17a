package objectstore_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// openS3 opens a store with an image area of its own in a gateway.
func openS3(t *testing.T, g *storetest.Gateway, change func(*objectstore.S3Config)) *objectstore.S3 {
	t.Helper()
	cfg := objectstore.S3Config{
		Endpoint: g.URL, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PathStyle: true,
		ImageBucket: g.MakeBucket(t), ImagePrefix: "img/",
	}
	if change != nil {
		change(&cfg)
	}
	s, err := objectstore.OpenS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func s3Harness(t *testing.T, g *storetest.Gateway) storetest.Harness {
	imageBucket := ""
	s := openS3(t, g, func(c *objectstore.S3Config) { imageBucket = c.ImageBucket })
	return storetest.Harness{
		Store:     s,
		NewBucket: func(t *testing.T) string { return g.MakeBucket(t) },
		Write: func(t *testing.T, bucket, key string, content []byte) {
			_, err := g.Client.PutObject(t.Context(), bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
			if err != nil {
				t.Fatalf("upload %s: %v", key, err)
			}
		},
		Remove: func(t *testing.T, bucket, key string) {
			if err := g.Client.RemoveObject(t.Context(), bucket, key, minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		HiddenBuckets: []string{imageBucket, strings.ToUpper(imageBucket)},
	}
}

func TestS3Conforms(t *testing.T) {
	g := storetest.StartGateway(t)
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Harness { return s3Harness(t, g) })
	})
}
