package ims

import (
	"testing"
	"time"
)

// TestParseTimeFilter: a time stands for its whole second.
func TestParseTimeFilter(t *testing.T) {
	t.Parallel()
	second := time.Date(2018, 10, 28, 10, 0, 0, 0, time.UTC)
	next := second.Add(time.Second)
	for text, want := range map[string]TimeFilter{
		"gt:2018-10-28T10:00:00Z":  {From: next},
		"gte:2018-10-28 10:00:00":  {From: second},
		"lt:2018-10-28T10:00:00Z":  {Before: second},
		"lte:2018-10-28 10:00:00":  {Before: next},
		"eq:2018-10-28T10:00:00Z":  {From: second, Before: next},
		"neq:2018-10-28T10:00:00Z": {From: second, Before: next, Except: true},
	} {
		if got, err := ParseTimeFilter(text, "created_at"); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ":", "gt", "gt:", "2018-10-28T10:00:00Z", "GT:2018-10-28T10:00:00Z", "ge:2018-10-28T10:00:00Z", "gt:2018-10-28",
		"gt:2018-10-28T10:00:00", "gt:2018-10-28T10:00:00+02:00", "gt:2018-10-28T10:00:00.5Z", "gt:2018-13-28T10:00:00Z", "gt: 2018-10-28 10:00:00",
	} {
		if got, err := ParseTimeFilter(text, "created_at"); CodeOf(err) != CodeBadFormat {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
