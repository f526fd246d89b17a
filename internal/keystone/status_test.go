package keystone

import (
	"net/http"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// TestStatusOfEachKind: a fault of each kind is answered with the status that clients
// act on.
func TestStatusOfEachKind(t *testing.T) {
	t.Parallel()
	want := map[ims.Kind]int{
		ims.KindInvalid: 400, ims.KindUnauthenticated: 401, ims.KindForbidden: 403, ims.KindNotFound: 404,
		ims.KindConflict: 409, ims.KindThrottled: 429, ims.KindWrongFormat: 415, ims.KindUnavailable: 503, ims.KindInternal: 500, ims.KindTooLarge: 413, ims.KindNoSpace: 507,
	}
	for kind, status := range want {
		if got := Status(kind); got != status {
			t.Errorf("kind %d: %d %s, want %d", kind, got, http.StatusText(got), status)
		}
	}
}
