package s3face

import (
	"net/http"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/auth"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// WithFormTime returns the configuration with another time for a form up to its file.
func WithFormTime(c Config, d time.Duration) Config {
	c.formTime = d
	return c
}

// WithoutXattr returns the configuration for a file system without extended
// attributes.
func WithoutXattr(c Config) Config {
	c.noXattr = true
	return c
}

// Operations are the names of all operations.
func Operations() []string {
	var names []string
	for _, op := range operations {
		names = append(names, op.name)
	}
	return names
}

// OperationOf is the name of the operation that a request would be, on a service, bucket
// or object as the path has it; "": none.
func OperationOf(r *http.Request) string {
	q := &request{r: r, sig: &auth.Signature{}}
	q.bucket, q.key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var err *wire.Error
	if q.query, err = auth.ParseQuery(r.URL.RawQuery); err != nil {
		return ""
	}
	if err := q.route(); err != nil {
		return ""
	}
	return q.op.name
}
