package queue

import (
	"context"
	"database/sql"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
)

// waker tells River in this process that an entry was committed by this process, so
// that it need not look for one many times a second. To River it is what LISTEN is on a
// PostgreSQL connection. A call that nobody waits for yet is kept; further ones add
// nothing to it.
type waker chan struct{}

func newWaker() waker { return make(waker, 1) }

// wake makes the queue look for entries. It never blocks.
func (w waker) wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// insertTopic and insertPayload are what River's inserts say with NOTIFY.
const (
	insertTopic   = "river_insert"
	insertPayload = `{"queue":"` + river.QueueDefault + `"}`
)

// WaitForNotification implements riverdriver.Listener.
func (w waker) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	select {
	case <-w:
		return &riverdriver.Notification{Topic: insertTopic, Payload: insertPayload}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// There is no connection behind a waker, and all that it says is for the one listener.

// Connect implements riverdriver.Listener.
func (waker) Connect(context.Context) error { return nil }

// Close implements riverdriver.Listener.
func (waker) Close(context.Context) error { return nil }

// Ping implements riverdriver.Listener.
func (waker) Ping(context.Context) error { return nil }

// Listen implements riverdriver.Listener.
func (waker) Listen(context.Context, string) error { return nil }

// Unlisten implements riverdriver.Listener.
func (waker) Unlisten(context.Context, string) error { return nil }

// Schema implements riverdriver.Listener.
func (waker) Schema() string { return "" }

// SetAfterConnectExec implements riverdriver.Listener.
func (waker) SetAfterConnectExec(string) {}

// wokenDriver is one of River's drivers for database/sql, none of which can listen, with
// a waker to listen to.
type wokenDriver struct {
	riverdriver.Driver[*sql.Tx]
	waker waker
}

// SupportsListener implements riverdriver.Driver.
func (wokenDriver) SupportsListener() bool { return true }

// GetListener implements riverdriver.Driver.
func (d wokenDriver) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.waker
}
