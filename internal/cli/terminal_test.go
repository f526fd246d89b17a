package cli

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// seen runs a command whose outputs are a terminal and returns what a person sees.
func seen(t *testing.T, ctx context.Context, env map[string]string, args ...string) (status int, text string) {
	t.Helper()
	program, person := openTerminal(t, 60, 30)
	shown := make(chan string)
	go func() {
		var all bytes.Buffer
		all.ReadFrom(person) // ends with an error when the program's side is closed
		shown <- all.String()
	}()
	status = Main(ctx, args, Env{Stdout: program, Stderr: program, Getenv: func(k string) string { return env[k] }, Version: "v1.2.3"})
	must(t, program.Close())
	return status, <-shown
}

// Errors are red on a terminal that has colours, unless somebody asked for none.
func TestColours(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"a terminal": {map[string]string{"TERM": "xterm"}, true},
		"NO_COLOR":   {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false},
		"dumb":       {map[string]string{"TERM": "dumb"}, false},
	} {
		status, text := seen(t, t.Context(), c.env, "info", t.TempDir()+"/nothing.raw")
		if status != StatusFailed || strings.Contains(text, "\x1b[31mquickims:\x1b[0m") != c.want {
			t.Errorf("%s: status %d, %q", name, status, text)
		}
	}
	if _, _, stderr := run(t, "info", "nothing.raw"); strings.Contains(stderr, "\x1b") {
		t.Errorf("colours in a file: %q", stderr)
	}
}

// A bar leaves no trace on the terminal.
func TestBarVanishes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/disk.raw", bytes.Repeat([]byte{0x91, 7, 3}, 512<<10), 0o600))
	_, text := seen(t, t.Context(), nil, "convert", dir+"/disk.raw", dir+"/disk.zvhd2")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := lines[len(lines)-1]
	if i := strings.LastIndex(text, "=]"); i < 0 || !strings.Contains(text[i:], "\x1b[J") && !strings.Contains(text[i:], "\x1b[2K") && !strings.Contains(text[i:], "\x1b[0J") {
		t.Errorf("nothing clears the bar: %q", text)
	}
	if !strings.Contains(last, "-> ") {
		t.Errorf("the last line is %q", last)
	}
}

// serve tells people where it is and what to do; a port in use leaves no folder.
func TestServeOnATerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/data"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	program, person := openTerminal(t, 120, 30)
	done := make(chan int)
	var stderr bytes.Buffer
	go func() {
		done <- Main(ctx, []string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--s3-listen", "127.0.0.1:0"},
			Env{Stdout: program, Stderr: &stderr, Getenv: func(string) string { return "" }})
	}()
	var text []byte
	for b := make([]byte, 4096); !bytes.Contains(text, []byte("quickims image list")); {
		n, err := person.Read(b)
		if text = append(text, b[:n]...); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
	}
	for _, want := range []string{"API ", "http://127.0.0.1:", "S3 ", dir + "/credentials.env"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	_, rest, _ := strings.Cut(string(text), "http://")
	address, _, _ := strings.Cut(rest, "\r")
	other := t.TempDir() + "/other"
	if status, _, stderr := run(t, "serve", "--data", other, "--listen", address); status != StatusFailed || !strings.Contains(stderr, address) {
		t.Errorf("a port in use: status %d, %q", status, stderr)
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("a port in use leaves a folder: %v", err)
	}
	cancel()
	if status := <-done; status != statusOK {
		t.Errorf("status %d, %s", status, stderr.String())
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "15m": 15 * time.Minute, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour,
		"2w": 14 * 24 * time.Hour, "1w2d3h": 219 * time.Hour, "0": 0,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "1", "1y", "1.5d", "-1d", "1d-1h5", "99999999d", "1h1d"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{{"abcdef", 0, "abcdef"}, {"abcdef", 6, "abcdef"}, {"abcdef", 5, "abcd…"}, {"ab   f", 5, "ab…"}, {"äöüß", 3, "äö…"}} {
		if got := clip(c.line, c.width); got != c.want {
			t.Errorf("%q to %d: %q", c.line, c.width, got)
		}
	}
}
