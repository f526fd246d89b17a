package queue

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestQuiet: what is no warning is left out, and the same complaint comes twice a
// minute, however often River repeats it.
func TestQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newQuiet(slog.NewTextHandler(&out, nil)))
		for range 20 * 60 * 10 { // a minute at 20 looks a second, a little more often
			log.Info("fetched")
			log.With("queue", "default").WithGroup("g").Error("no database")
			time.Sleep(5 * time.Millisecond)
		}
		if got := strings.Count(out.String(), "\n"); got != 2 {
			t.Errorf("%d lines in a minute, want 2:\n%s", got, &out)
		}
		out.Reset()
		for i := range 2 * maxSaid {
			log.Warn(fmt.Sprint("text ", i)) // texts without end take no memory without end
		}
		if got := strings.Count(out.String(), "\n"); got != 2*maxSaid {
			t.Errorf("%d different texts came through, want %d", got, 2*maxSaid)
		}
	})
}
