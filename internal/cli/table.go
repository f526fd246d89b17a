package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// wideFlag is of commands that print tables.
type wideFlag struct {
	Wide bool `short:"w" help:"Show whole ids, times and names on a terminal too, on lines of any length."`
}

// column is one of a table. Its kind says what a terminal needs not show of it; an extra
// one is left out where the line is too long in spite of that.
type column struct {
	head  string
	kind  kind
	extra bool
}

type kind int

const (
	whole   kind = iota // all is shown
	shortID             // an id: commands take its beginning for it
	moment              // a time as RFC 3339: it is shown to the minute
	soft                // a text, which is shortened where the line is too long
)

// idLetters is how much of an id a table shows on a terminal.
const idLetters = 8

// gap stands between columns.
const gap = 2

// table is result for a list: a line of heads and one for each row. On a terminal it
// fits the width, unless it shall be wide. none is said of an empty list.
func (s *session) table(doc any, wide bool, none string, columns []column, rows [][]string) error {
	if s.json {
		return s.result(doc, nil)
	}
	if len(rows) == 0 {
		fmt.Fprintln(s.Stderr, none)
		return nil
	}
	width := 0
	if !wide {
		width = s.width(s.Stdout)
	}
	for _, row := range rows {
		for i, c := range columns {
			switch {
			case c.kind == moment:
				row[i] = at(row[i], width > 0)
			case c.kind == shortID && width > 0:
				row[i] = row[i][:min(len(row[i]), idLetters)]
			}
			if row[i] == "" {
				row[i] = "-"
			}
		}
	}
	heads := make([]string, len(columns))
	for i, c := range columns {
		heads[i] = c.head
	}
	lines := append([][]string{heads}, rows...)
	if width > 0 {
		lines = fit(columns, lines, width)
	}
	return s.result(doc, func(w io.Writer) {
		for _, line := range lines {
			fmt.Fprintln(w, strings.Join(line, "\t"))
		}
	})
}

// at is a time of RFC 3339 as a table shows it.
func at(text string, short bool) string {
	t, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return text
	case short:
		return t.UTC().Format("2006-01-02 15:04")
	}
	return when(text)
}

// fit shortens the longest soft columns until the lines have the width. Where that is
// not enough, extra columns go, the first ones first.
func fit(columns []column, lines [][]string, width int) [][]string {
	longest := make([]int, len(columns))
	for i := range columns {
		for _, line := range lines {
			longest[i] = max(longest[i], utf8.RuneCountInString(line[i]))
		}
	}
	gone := make([]bool, len(columns))
	total, least := -gap, -gap
	for i, c := range columns {
		total += longest[i] + gap
		least += leastWidth(c, longest[i]) + gap
	}
	for i, c := range columns {
		if c.extra && least > width {
			gone[i] = true
			total -= longest[i] + gap
			least -= leastWidth(c, longest[i]) + gap
		}
	}
	for total > max(width, least) {
		widest := -1
		for i, c := range columns {
			if !gone[i] && longest[i] > leastWidth(c, longest[i]) && (widest < 0 || longest[i] > longest[widest]) {
				widest = i
			}
		}
		longest[widest]--
		total--
	}
	out := make([][]string, len(lines))
	for n, line := range lines {
		for i := range columns {
			if !gone[i] {
				out[n] = append(out[n], clip(line[i], longest[i]))
			}
		}
	}
	return out
}

// leastWidth is what a column with that longest text can be shortened to.
func leastWidth(c column, longest int) int {
	if c.kind != soft {
		return longest
	}
	return min(longest, max(idLetters, utf8.RuneCountInString(c.head)))
}
