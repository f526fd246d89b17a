package api

import "testing"

// However many disks one project reads, another one finds a place.
func TestStreamsAreShared(t *testing.T) {
	t.Parallel()
	s := newStreams(8)
	var leave []func()
	for {
		f := s.enter("greedy")
		if f == nil {
			break
		}
		leave = append(leave, f)
	}
	if len(leave) != 4 {
		t.Fatalf("one project has %d of 8 places, want half", len(leave))
	}
	for range 4 {
		if s.enter("modest") == nil {
			t.Fatal("no place for another project")
		}
	}
	if s.enter("third") != nil {
		t.Error("more places than there are")
	}
	for _, f := range leave {
		f()
	}
	if s.enter("third") == nil || s.enter("greedy") == nil {
		t.Error("places that were left are not free")
	}
	if len(s.project) != 3 {
		t.Errorf("%d projects are counted", len(s.project))
	}
	if one := newStreams(1); one.enter("a") == nil || one.enter("b") != nil {
		t.Error("one place is not one place")
	}
}
