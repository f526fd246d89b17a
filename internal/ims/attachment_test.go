package ims

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestAttachTime(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int64]time.Duration{60: time.Minute, 3601: time.Hour + time.Second, 2592000: 30 * 24 * time.Hour, 0: 0} {
		if got, err := AttachTime(&seconds); err != nil || got != want {
			t.Errorf("%d: %v (%v), want %v", seconds, got, err, want)
		}
	}
	if got, err := AttachTime(nil); err != nil || got != DefaultAttachTime {
		t.Errorf("no ttl: %v (%v)", got, err)
	}
	for _, seconds := range []int64{1, -1, 59, 2592001, math.MaxInt64, math.MinInt64, math.MaxInt64 / int64(time.Second) * 3} {
		_, err := AttachTime(&seconds)
		if CodeOf(err) != CodeBadFormat || !strings.Contains(err.Error(), "ttl_seconds") {
			t.Errorf("%d: %v", seconds, err)
		}
	}
}

func TestAttachAge(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int64]time.Duration{0: 0, 60: time.Minute, 315360000: 3650 * 24 * time.Hour} {
		if got, err := AttachAge(&seconds); err != nil || got != want {
			t.Errorf("%d: %v (%v), want %v", seconds, got, err, want)
		}
	}
	if got, err := AttachAge(nil); err != nil || got != 0 {
		t.Errorf("no age: %v (%v)", got, err)
	}
	for _, seconds := range []int64{-1, 59, 315360001, math.MaxInt64} {
		if _, err := AttachAge(&seconds); CodeOf(err) != CodeBadFormat || !strings.Contains(err.Error(), "max_age_seconds") {
			t.Errorf("%d: %v", seconds, err)
		}
	}
}

func TestAttachToken(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z2-7]{32}$`)
	seen := map[string]bool{}
	for range 1000 {
		token := NewAttachToken()
		if !form.MatchString(token) || len(token) != AttachTokenLength || seen[token] {
			t.Fatalf("token %q", token)
		}
		seen[token] = true
		if hash := HashAttachToken(token); len(hash) != 64 || strings.Contains(hash, token) || hash != HashAttachToken(token) {
			t.Fatalf("hash %q", hash)
		}
	}
}
