package cli

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestTableFits: no line is longer than the terminal, no column loses what a command
// needs, and --wide shows all.
func TestTableFits(t *testing.T) {
	t.Parallel()
	columns := []column{{"ID", shortID, false}, {"NAME", soft, false}, {"SINCE", moment, true}, {"STATUS", whole, false}, {"TAGS", soft, true}}
	lines := [][]string{
		{"ID", "NAME", "SINCE", "STATUS", "TAGS"},
		{"8f1c9a5e", "a name of thirty-one characters", "2026-03-02 12:00", "active", strings.Repeat("tag,", 20)},
	}
	for width := 120; width >= 30; width-- {
		fitted := fit(columns, lines, width)
		n := gap * (len(fitted[0]) - 1)
		for i := range fitted[0] {
			n += max(utf8.RuneCountInString(fitted[0][i]), utf8.RuneCountInString(fitted[1][i]))
		}
		if n > width {
			t.Errorf("%d characters in %d: %q", n, width, fitted[1])
		}
		if fitted[1][0] != "8f1c9a5e" || len(fitted[0]) < 3 || fitted[0][1] != "NAME" {
			t.Errorf("in %d: %q", width, fitted)
		}
		if width >= 110 && len(fitted[0]) < len(columns) {
			t.Errorf("a column went though there is room, in %d: %q", width, fitted)
		}
	}
	a := &attachments{detach: http.StatusNoContent}
	env := serviceEnv(t, a.handle)
	_, text := seen(t, t.Context(), env, "attachments")
	for line := range strings.Lines(strings.ReplaceAll(text, "\r", "")) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 60 {
			t.Errorf("%d characters on a terminal of 60: %q", n, line)
		}
	}
	if !strings.Contains(text, testAttachment[:8]+"  web") || strings.Contains(text, testAttachment[:9]) {
		t.Errorf("%q", text)
	}
	if _, text := seen(t, t.Context(), env, "attachments", "--wide"); !strings.Contains(text, testAttachment+"  "+testImage) {
		t.Errorf("wide: %q", text)
	}
	if _, text := seen(t, t.Context(), env, "detach", testAttachment[:8]); !strings.Contains(text, "detached "+testAttachment) {
		t.Errorf("by the beginning of its id: %q", text)
	}
	if status, text := seen(t, t.Context(), env, "detach", "00000000"); status != StatusFailed || !strings.Contains(text, "no attachment's id begins") {
		t.Errorf("status %d: %q", status, text)
	}
}
