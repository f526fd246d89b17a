package cli

import (
	"os"

	"github.com/vbauerster/cupwriter"
)

// A console is a terminal that bars are drawn on. One that does not say its size, as a
// pseudo-terminal that nobody gave one, counts as the smallest usual one.
type console struct{ *cupwriter.Writer }

// The size, in characters, of a terminal that says none: that of the VT100.
const (
	consoleWidth  = 80
	consoleHeight = 24
)

func newConsole(f *os.File) console { return console{cupwriter.New(f, false)} }

// GetTermSize implements mpb.ConsoleWriter.
func (c console) GetTermSize() (width, height int, err error) {
	width, height, err = c.Writer.GetTermSize()
	if width == 0 {
		width = consoleWidth
	}
	if height == 0 {
		height = consoleHeight
	}
	return width, height, err
}
