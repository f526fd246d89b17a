package nbd

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Of what fails many times a second one line a second is logged, which says how many were not.
func TestLogIsSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out safeBuffer
		var f failures
		l := slog.New(slog.NewTextHandler(&out, nil))
		for range 3500 { // in 3.5 s
			f.log(l, "read", 1, 2, errors.New("broken"))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Hour)
		f.log(l, "read", 1, 2, errors.New("broken"))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		want := []string{"unlogged=0", "unlogged=999", "unlogged=999", "unlogged=999", "unlogged=499"}
		if len(lines) != len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), out.String())
		}
		for i, w := range want {
			if !strings.HasSuffix(lines[i], w) || !strings.Contains(lines[i], "broken") {
				t.Errorf("line %d is %q, want %s", i, lines[i], w)
			}
		}
	})
}
