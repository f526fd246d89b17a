package queue

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quiet passes warnings and errors on, the same text at most once in quietFor. River
// looks at its table many times a second and complains each time when the database is
// away.
type quiet struct {
	slog.Handler
	said *said
}

const (
	quietFor = 30 * time.Second
	maxSaid  = 1000
)

type said struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newQuiet(h slog.Handler) *quiet {
	return &quiet{Handler: h, said: &said{last: map[string]time.Time{}}}
}

// Enabled implements slog.Handler.
func (q *quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (q *quiet) Handle(ctx context.Context, r slog.Record) error {
	if !q.said.mayRepeat(r.Message, r.Time) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q *quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quiet{Handler: q.Handler.WithAttrs(attrs), said: q.said}
}

// WithGroup implements slog.Handler.
func (q *quiet) WithGroup(name string) slog.Handler {
	return &quiet{Handler: q.Handler.WithGroup(name), said: q.said}
}

func (s *said) mayRepeat(text string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.last[text]; ok && now.Sub(last) < quietFor {
		return false
	}
	if len(s.last) >= maxSaid {
		clear(s.last)
	}
	s.last[text] = now
	return true
}
