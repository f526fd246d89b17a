package cli

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/vbauerster/cupwriter"
)

// onTerminal reports whether what is written to w is seen by a person.
func (s *session) onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many characters a line of w may have; 0: any number, since w is no
// terminal.
func (s *session) width(w io.Writer) int {
	if !s.onTerminal(w) {
		return 0
	}
	width, _, err := console{cupwriter.New(w.(*os.File), false)}.GetTermSize()
	if err != nil {
		return consoleWidth
	}
	return width
}

// Colours of SGR, ECMA-48.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// coloured is text in a colour, where w is a terminal that has colours and nobody asked
// for none (NO_COLOR, no-color.org).
func (s *session) coloured(w io.Writer, colour, text string) string {
	if !s.onTerminal(w) || s.Getenv("NO_COLOR") != "" || s.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// clip shortens a line to width characters. A width of 0 is none.
func clip(line string, width int) string {
	letters := []rune(line)
	if width <= 1 || len(letters) <= width {
		return line
	}
	return strings.TrimRight(string(letters[:width-1]), " ") + "…"
}
