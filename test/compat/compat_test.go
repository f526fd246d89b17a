package compat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRecords: a passed case, a case with a result of its own and a failed case are
// one record each; a skipped case is none.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(Variable, dir)
	c := Client{Area: "S3", Name: "some client", Version: "1.0"}
	c.Run(t, Case{Did: "list a/b", Over: "http"}, func(t *testing.T) {
		t.Run("inner", func(t *testing.T) { t.Parallel() })
	})
	c.Run(t, Case{Did: "website", Result: "refused: 501", Report: "https://example.org/1"}, func(*testing.T) {})
	c.Run(t, Case{Did: "skipped"}, func(t *testing.T) { t.Skip("asked to") })
	c.Record(t, Case{Did: "broken", Result: "refused: 501"}, false)

	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files of records: %v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, strings.Join([]string{r.Area, r.Name, r.Version, r.Did, r.Over, r.Result, r.Report}, "|"))
	}
	want := []string{
		"S3|some client|1.0|list a/b|http|works|",
		"S3|some client|1.0|website||refused: 501|https://example.org/1",
		"S3|some client|1.0|broken||fails|",
	}
	if !slices.Equal(got, want) {
		t.Errorf("records:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
