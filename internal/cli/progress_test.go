package cli

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openTerminal makes a pseudo-terminal of a size: the side that a program writes to,
// and the side that a person looks at.
func openTerminal(t *testing.T, columns, rows uint16) (program, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { person.Close() })
	must(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { program.Close() })
	return program, person
}

// TestBarOnATerminal: a bar is drawn, also on a terminal that does not say its size.
func TestBarOnATerminal(t *testing.T) {
	t.Parallel()
	for _, size := range []struct{ columns, rows uint16 }{{0, 0}, {0, 24}, {100, 0}, {100, 30}} {
		t.Run(fmt.Sprintf("%dx%d", size.columns, size.rows), func(t *testing.T) {
			t.Parallel()
			program, person := openTerminal(t, size.columns, size.rows)
			shown := make(chan []byte)
			go func() {
				var all bytes.Buffer
				all.ReadFrom(person) // ends with an error when the program's side is closed
				shown <- all.Bytes()
			}()
			dir := t.TempDir()
			source := filepath.Join(dir, "disk.raw")
			content := make([]byte, 4<<20)
			rand.Read(content)
			must(t, os.WriteFile(source, content, 0o600))
			var out bytes.Buffer
			status := Main(t.Context(), []string{"convert", source, filepath.Join(dir, "disk.zvhd2")},
				Env{Stdout: &out, Stderr: program, Getenv: func(string) string { return "" }, Version: "v1.2.3"})
			must(t, program.Close())
			text := <-shown
			if status != statusOK || !bytes.Contains(text, []byte("=]")) || !bytes.Contains(text, []byte("100 %")) {
				t.Errorf("status %d, shown: %q", status, text)
			}
		})
	}
}
