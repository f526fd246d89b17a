package filesystem_test

import (
	"testing"

	"github.com/quickims/quickims/internal/filesystem"
)

// Room is used again, but not while it is in use.
func TestRoom(t *testing.T) {
	t.Parallel()
	var r filesystem.Room
	first := r.Take(100)
	second := r.Take(100)
	if len(first) != 100 || len(second) != 100 || &first[0] == &second[0] {
		t.Error("two listings at a time have one room")
	}
	r.Give(first)
	again := r.Take(50)
	if len(again) != 50 || &again[0] != &first[0] {
		t.Error("room that was given back is not used again")
	}
	if other := r.Take(50); &other[0] == &again[0] {
		t.Error("two listings at a time have the room that was given back")
	}
	r.Give(first)
	if more := r.Take(200); len(more) != 200 {
		t.Errorf("%d bytes, want 200", len(more))
	}
}
