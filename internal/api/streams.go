package api

import "sync"

// streams bounds how many disks are read at once. A project has no more than half of
// the places, so that one whose clients stall does not keep the others out.
type streams struct {
	mu      sync.Mutex
	max     int
	all     int
	project map[string]int
}

func newStreams(most int) *streams { return &streams{max: most, project: map[string]int{}} }

// share is the most that a project may have.
func (s *streams) share() int { return max(1, s.max/2) }

// enter takes a place; leave is nil when there is none.
func (s *streams) enter(project string) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.max || s.project[project] >= s.share() {
		return nil
	}
	s.all++
	s.project[project]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.project[project]--; s.project[project] == 0 {
			delete(s.project, project)
		}
	}
}
