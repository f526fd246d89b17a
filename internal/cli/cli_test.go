package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
)

// run runs a command line in the process and gives what it printed.
func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = Main(t.Context(), args, Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Version: "v1.2.3"})
	return status, out.String(), errs.String()
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"serve", "import", "upload", "job", "image", "image list", "image show", "image save", "image delete", "attach", "detach", "attachments", "convert", "mf", "info", "verify", "map", "check", "version"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := run(t, append(strings.Fields(command), "--help")...)
			if status != statusOK || stderr != "" {
				t.Errorf("status %d, stderr %q", status, stderr)
			}
			if !strings.Contains(stdout, "Example") || !strings.Contains(stdout, "  quickims "+command) {
				t.Errorf("no example of %q in:\n%s", command, stdout)
			}
			for i, line := range strings.Split(stdout, "\n") {
				if len(line) > 100 && !strings.HasPrefix(strings.TrimSpace(line), "quickims ") {
					t.Errorf("line %d is long: %q", i+1, line)
				}
			}
		})
	}
}

func TestHelpListsEveryCommand(t *testing.T) {
	t.Parallel()
	status, help, _ := run(t, "--help")
	if status != statusOK {
		t.Errorf("status %d", status)
	}
	for _, command := range []string{"serve", "import", "upload", "job", "image", "attach", "detach", "attachments", "convert", "mf", "info", "verify", "map", "check", "version"} {
		if !strings.Contains(help, "\n  "+command+" ") {
			t.Errorf("%s is missing in:\n%s", command, help)
		}
	}
	status, stdout, stderr := run(t)
	if status != statusUsage || stdout != "" || stderr != help {
		t.Errorf("without arguments: status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

// The README's table has every command of the grammar.
func TestReadmeListsEveryCommand(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed strings.Builder // the first cells of its tables
	for _, line := range strings.Split(string(readme), "\n") {
		if cells := strings.SplitN(line, "|", 3); len(cells) == 3 {
			listed.WriteString(cells[1])
		}
	}
	parser, err := kong.New(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if !strings.Contains(listed.String(), "`"+command.Name+"`") && !strings.Contains(listed.String(), "`"+command.Name+" ") {
			t.Errorf("%s is missing", command.Name)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if status, stdout, _ := run(t, "version"); status != 0 || !strings.HasPrefix(stdout, "quickims v1.2.3 (go1.") {
		t.Errorf("status %d, %q", status, stdout)
	}
	_, stdout, _ := run(t, "--json", "version")
	var doc versionDoc
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc.Version != "v1.2.3" || doc.Go == "" {
		t.Errorf("%q, %v", stdout, err)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want errorDoc
	}{
		{usagef("so not"), errorDoc{Code: "usage", Message: "so not"}},
		{fmt.Errorf("a: %w", errInterrupted), errorDoc{Code: "interrupted", Message: "a: interrupted"}},
		{fmt.Errorf("a: %w", fs.ErrNotExist), errorDoc{Code: "not_found", Message: "a: file does not exist"}},
		{fmt.Errorf("a: %w", &os.PathError{Op: "write", Path: "p", Err: syscall.ENOSPC}), errorDoc{Code: "no_space", Message: "a: write p: no space left on device"}},
		{diskformat.Errorf(diskformat.ZVHD2, diskformat.ErrCorrupt, "footer", "bad"), errorDoc{Code: "corrupt", Message: "zvhd2: corrupt: footer: bad"}},
		{diskformat.Errorf(diskformat.ZVHD2, diskformat.ErrIncomplete, "footer", "cut"), errorDoc{Code: "incomplete", Message: "zvhd2: incomplete: footer: cut"}},
		{fmt.Errorf("import: %w", ims.Faultf(ims.CodeDiskSize, "min_disk is 0")),
			errorDoc{Code: "IMG.0055", Message: ims.CodeDiskSize.Message(), Details: "min_disk is 0"}},
		{fmt.Errorf("import: %w", &client.Error{Request: "POST /x", Status: 400, Code: "IMG.0057", Message: "m", Details: "d", RequestID: "r"}),
			errorDoc{Code: "IMG.0057", Message: "m", Details: "d", Status: 400, RequestID: "r"}},
		{fmt.Errorf("import: %w", client.Job{ID: "j", Status: ims.JobFail, ErrorCode: "IMG.0055", FailReason: "too big"}.Err()),
			errorDoc{Code: "IMG.0055", Message: "too big", JobID: "j"}},
		{errors.New("odd"), errorDoc{Code: "failed", Message: "odd"}},
	} {
		if got := describe(test.err); got != test.want {
			t.Errorf("%v:\ngot  %+v\nwant %+v", test.err, got, test.want)
		}
	}
}

func TestAnErrorOfTheServiceIsPrintedWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &session{Env: Env{Stderr: &out}}
	s.printError(fmt.Errorf("import images:a.raw: %w", &client.Error{
		Request: "POST /v2/cloudimages/quickimport/action", Status: 400, Code: "IMG.0057", Message: "No such file.", Details: "a.mf is missing", RequestID: "req-7"}))
	want := `quickims: import images:a.raw: No such file.
  code        IMG.0057
  details     a.mf is missing
  request     POST /v2/cloudimages/quickimport/action
  status      400
  request id  req-7
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1 MiB", 1 << 20: "1 MiB", 10<<30 + 1: "10 GiB",
		1<<40 - 1: "1 TiB", 1 << 40: "1 TiB", 1<<63 - 1: "8 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// meterAt makes a meter whose clock is moved by hand.
func meterAt(t *testing.T, asJSON, quiet bool, total int64) (m *meter, clock *time.Time, out *bytes.Buffer) {
	t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	out = &bytes.Buffer{}
	s := &session{Env: Env{Stderr: out}, json: asJSON, quiet: quiet, now: func() time.Time { return now }}
	return s.bytesMeter("copy", total), &now, out
}

func TestAMeterPrintsFewLinesWithoutATerminal(t *testing.T) {
	t.Parallel()
	m, now, out := meterAt(t, false, false, 1000<<20)
	for done := range int64(1001) {
		*now = now.Add(100 * time.Millisecond)
		m.at(done << 20)
	}
	m.close(nil)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 10 || lines[0] != "copy: 10% (100 MiB of 1000 MiB)" || lines[9] != "copy: 100% (1000 MiB of 1000 MiB)" {
		t.Errorf("got %q", lines)
	}
	// A task of a moment is not worth a line; a slow one shows that it lives.
	m, now, out = meterAt(t, false, false, 1<<40)
	m.at(1 << 39)
	if out.Len() > 0 {
		t.Errorf("printed %q", out)
	}
	*now = now.Add(31 * time.Second)
	m.at(1<<39 + 1)
	if out.String() != "copy: 50% (512 GiB of 1 TiB)\n" {
		t.Errorf("printed %q", out)
	}
}

// TestAMeterPrintsAStepOnce: a new step that also brought much is one line.
func TestAMeterPrintsAStepOnce(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	s := &session{Env: Env{Stderr: &out}, now: func() time.Time { return now }}
	m := s.percentMeter("job")
	m.atStep("adopt", 0)
	now = now.Add(2 * time.Second)
	m.atStep("adopt", 40)
	now = now.Add(2 * time.Second)
	m.atStep("SUCCESS", 100)
	if want := "job: 0% adopt\njob: 40% adopt\njob: 100% SUCCESS\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestAMeterPrintsJSONLines(t *testing.T) {
	t.Parallel()
	m, now, out := meterAt(t, true, false, 200)
	*now = now.Add(2 * time.Second)
	m.add(50)
	m.add(50)
	*now = now.Add(2 * time.Second)
	m.add(500) // a part sent again
	want := `{"event":"progress","task":"copy","done":50,"total":200,"percent":25}
{"event":"progress","task":"copy","done":200,"total":200,"percent":100}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
	m, now, out = meterAt(t, true, true, 200)
	*now = now.Add(time.Hour)
	m.add(100)
	if out.Len() > 0 {
		t.Errorf("a quiet meter printed %q", out)
	}
}

func TestAMeterTakesManyAtOnce(t *testing.T) {
	t.Parallel()
	m, _, _ := meterAt(t, false, false, 100_000)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 10_000 {
				m.add(1)
			}
		})
	}
	wg.Wait()
	if m.done != 100_000 {
		t.Errorf("counted %d", m.done)
	}
}

// names are those of the files in a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAnOutputAppearsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	begin := func(force bool, text string) *output {
		t.Helper()
		o, err := newOutput(path, force)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil && !force {
			t.Error("it is there before commit")
		}
		if got := names(t, dir); o.aside == "" && got != nil && !force && !slices.Equal(got, []string{"out"}) {
			t.Errorf("without a name there is %q", got)
		}
		return o
	}
	begin(false, "thrown away").cancel()
	if got := names(t, dir); got != nil {
		t.Errorf("after cancel there is %q", got)
	}

	first, second := begin(false, "first"), begin(false, "second")
	if err := first.commit(); err != nil {
		t.Fatal(err)
	}
	if err := second.commit(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("the second of two: %v", err)
	}
	first.cancel() // as the deferred one of every command
	if _, err := newOutput(path, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("with a file there: %v", err)
	}
	if got, err := os.ReadFile(path); string(got) != "first" {
		t.Errorf("holds %q, %v", got, err)
	}
	if err := begin(true, "third").commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); string(got) != "third" {
		t.Errorf("after force holds %q, %v", got, err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"out"}) {
		t.Errorf("at the end there is %q", got)
	}
}

// A file goes where a symbolic link leads, takes over the permissions of what it
// replaces, and may have any name that a file may have.
func TestWhereAnOutputGoes(t *testing.T) {
	t.Parallel()
	write := func(path string, force bool) {
		t.Helper()
		o, err := newOutput(path, force)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.WriteString("new"); err != nil {
			t.Fatal(err)
		}
		if err := o.commit(); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	there, link, dangling, long := filepath.Join(dir, "there"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, strings.Repeat("x", 255))
	if err := errors.Join(os.WriteFile(there, []byte("old"), 0o640), os.Chmod(there, 0o640), os.Symlink("there", link), os.Symlink("later", dangling)); err != nil {
		t.Fatal(err)
	}
	write(link, true)
	write(dangling, false)
	write(long, false)
	write(long, true)
	if got := names(t, dir); !slices.Equal(got, []string{"dangling", "later", "link", "there", filepath.Base(long)}) {
		t.Errorf("there is %q", got)
	}
	if got, err := os.ReadFile(there); string(got) != "new" || err != nil {
		t.Errorf("behind the link: %q, %v", got, err)
	}
	if info, err := os.Stat(there); err != nil || info.Mode() != 0o640 {
		t.Errorf("behind the link: %v, %v", info.Mode(), err)
	}
	for _, path := range []string{link, dangling} {
		if _, err := os.Readlink(path); err != nil {
			t.Errorf("%s is a link no more", path)
		}
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if _, err := newOutput(loop, true); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
}

// Where files without a name can't be had, the name aside goes too.
func TestAnOutputWithANameAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &output{path: filepath.Join(dir, "out"), target: filepath.Join(dir, "out")}
	for _, force := range []bool{false, true} {
		for _, keep := range []bool{false, true} {
			o := *o
			o.force, o.aside = force, o.nameAside()
			var err error
			if o.File, err = os.Create(o.aside); err != nil {
				t.Fatal(err)
			}
			if keep {
				err = o.commit()
			} else {
				o.cancel()
			}
			if err != nil {
				t.Errorf("force %v: %v", force, err)
			}
			if got := names(t, dir); keep && !slices.Equal(got, []string{"out"}) || !keep && !force && got != nil {
				t.Errorf("force %v, kept %v: there is %q", force, keep, got)
			}
		}
	}
}

func TestMainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "in.raw")
	if err := os.WriteFile(in, bytes.Repeat([]byte("data"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"convert", in, filepath.Join(dir, "out")}, {"mf", in}} {
		var errs bytes.Buffer
		status := Main(ctx, args, Env{Stdout: &errs, Stderr: &errs, Getenv: os.Getenv})
		if status != StatusFailed || !strings.HasSuffix(errs.String(), ": interrupted\n") {
			t.Errorf("%s: status %d, %q", args[0], status, errs.String())
		}
	}
	if left := names(t, dir); !slices.Equal(left, []string{"in.raw"}) {
		t.Errorf("left %q", left)
	}
}
