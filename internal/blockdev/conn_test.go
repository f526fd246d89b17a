package blockdev

import (
	"bytes"
	"net/http"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// Fetches one after another use one connection: none is cut short or left unread.
func TestFetchesShareAConnection(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	s3 := storeOn(t, g)
	f := fixture{store: objectstore.Count(s3)}
	disk := benchDisk(8 << 20)
	for _, form := range forms {
		data := f.image(t, form, disk)
		c := newCache(t, f.store, Options{})
		d := f.open(t, c, data)
		var mu sync.Mutex
		from := map[string]int{}
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				from[r.RemoteAddr]++
				mu.Unlock()
				next.ServeHTTP(w, r)
			})
		})
		p := make([]byte, 4096)
		for i := range int64(32) {
			off := (i * 7 % 32) * 256 << 10 // in no order that would be read ahead of
			if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
				t.Fatalf("%s: read at %d: %v", form, off, err)
			}
		}
		mu.Lock()
		if len(from) > 2 {
			t.Errorf("%s: the fetches came over %d connections: %v", form, len(from), from)
		}
		mu.Unlock()
		g.Use(nil)
	}
}
