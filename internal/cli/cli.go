// Package cli is the command line of quickims: one file for each command, and what
// they share.
//
// Its contract, which scripts may rely on: the result goes to stdout, all else
// (progress, notes, errors) to stderr. With --json the result is one JSON document
// and what goes to stderr is one JSON document a line: {"event":…} for what goes
// on, {"error":{"code","message","details"}} at last when the command failed. The
// exit status is 0, 1 for a command that failed or was interrupted, and 2 for one
// that was not called rightly; attach --exec ends with the status of what it ran.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/quickims/quickims/internal/client"
)

// Env is what a command has of its surroundings.
type Env struct {
	Stdin          io.Reader // nil: empty
	Stdout, Stderr io.Writer
	// Getenv answers "" for a variable that is not set.
	Getenv func(string) string
	// Version is the program's own, "" to go by what the go tool noted.
	Version string
}

// OSEnv is the process's own.
func OSEnv() Env {
	return Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
}

// The exit statuses.
const (
	statusOK = 0
	// StatusFailed is that of a command that failed or was interrupted.
	StatusFailed = 1
	statusUsage  = 2
)

// commands is the grammar of the command line.
type commands struct {
	JSON  bool `name:"json" help:"Print JSON: the result as one document on stdout, progress and errors as one document a line on stderr."`
	Quiet bool `short:"q" help:"Show no progress."`

	Serve       ServeCmd             `cmd:"" group:"The service" help:"Run the image service."`
	Account     AccountCmd           `cmd:"" group:"The service" help:"Manage the projects, users and access keys of a service."`
	Fsck        FsckCmd              `cmd:"" group:"The service" help:"Compare a service's database with its image area; take an image area over."`
	Import      ImportCmd            `cmd:"" group:"Use a service" help:"Make an image of a disk file: upload it if it is local, quick-import it, wait."`
	Upload      UploadsCmd           `cmd:"" group:"Use a service" help:"Upload a file to a bucket; list and abort unfinished uploads."`
	Bucket      BucketCmd            `cmd:"" group:"Use a service" help:"List, create and delete buckets."`
	Object      ObjectCmd            `cmd:"" group:"Use a service" help:"List and delete objects in buckets."`
	Job         JobCmd               `cmd:"" group:"Use a service" help:"Show a job, wait for its end, or list jobs."`
	Image       ImageCmd             `cmd:"" group:"Use a service" help:"List, show, change, tag, share, save and delete images."`
	Attach      AttachCmd            `cmd:"" group:"Use a service" help:"Serve an image's disk as a block device over NBD; run a command on it."`
	Detach      DetachCmd            `cmd:"" group:"Use a service" help:"End attachments."`
	Attachments AttachmentsCmd       `cmd:"" group:"Use a service" help:"List the attachments, or renew them."`
	OSVersions  OSVersionsCmd        `cmd:"" name:"os-versions" group:"Use a service" help:"List the operating systems that an import may name."`
	Quota       QuotaCmd             `cmd:"" group:"Use a service" help:"Show how many images the project has and may have."`
	Enterprise  EnterpriseProjectCmd `cmd:"" name:"enterprise-project" group:"Use a service" help:"List and create enterprise projects."`
	Conformance ConformanceCmd       `cmd:"" group:"Use a service" help:"Check whether a service, this or a cloud's, keeps the promises of the API."`
	Convert     ConvertCmd           `cmd:"" group:"Work on disk files" help:"Convert a disk file to ZVHD2, RAW, qcow2, VMDK, VHD, VHDX or ZVHD."`
	Mf          MfCmd                `cmd:"" group:"Work on disk files" help:"Make the bitmap file (.mf) that belongs beside a RAW disk file."`
	Info        InfoCmd              `cmd:"" group:"Work on disk files" help:"Tell what a disk file is and whether it can be quick-imported."`
	Verify      VerifyCmd            `cmd:"" group:"Work on disk files" help:"Check what a disk file stores against its checksums, or the disk against a RAW file."`
	Map         MapCmd               `cmd:"" group:"Work on disk files" help:"List which ranges of a disk hold data and which are holes."`
	Check       CheckCmd             `cmd:"" group:"Work on disk files" help:"Tell whether the system on a disk is ready for a quick import, and what to fix."`
	Version     VersionCmd           `cmd:"" group:"About" help:"Print the version."`
	Completion  CompletionCmd        `cmd:"" group:"About" help:"Print what makes a shell complete commands and flags."`
	Man         ManCmd               `cmd:"" group:"About" help:"Print the manual page."`
}

// session is one run of a command.
type session struct {
	Env
	json, quiet bool
	now         func() time.Time
}

// usageError is a fault of the call. Nothing was tried.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// Main runs the command that args name (without the program's own name) and gives
// the exit status. When ctx ends, the command gives up in order: nothing half-made
// stays.
func Main(ctx context.Context, args []string, env Env) int {
	s := &session{Env: env, now: time.Now, json: asksJSON(args)}
	var grammar commands
	helped := false
	parser, err := kong.New(&grammar,
		kong.Name("quickims"),
		kong.Description("A self-hosted image service: a disk file in a bucket becomes an image within a second. Run \"quickims COMMAND --help\" for examples."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Writers(env.Stdout, env.Stderr),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.Exit(func(int) { helped = true }), // only --help exits
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s, &s.Env),
	)
	if err != nil {
		return s.fail(fmt.Errorf("set up the command line: %w", err)) // a broken build: the grammar is constant
	}
	kongcompletion.Register(parser) // answers a shell that asks for completions
	if helped {
		return statusOK
	}
	if len(args) > 0 && args[0] == "help" { // as most programs have it, too
		args = append(slices.Clone(args[1:]), "--help")
	}
	if len(args) == 1 && args[0] == "--version" { // as most programs have it
		args = []string{"version"}
	}
	if len(args) == 0 {
		args, helped = []string{"--help"}, false
		parser.Stdout = env.Stderr
		_, _ = parser.Parse(args) // prints the help; what follows it is of no interest
		return statusUsage
	}
	call, err := parser.Parse(args)
	switch {
	case helped:
		return statusOK
	case err != nil:
		hint := "quickims --help"
		if parse, ok := errors.AsType[*kong.ParseError](err); ok {
			if node := parse.Context.Selected(); node != nil {
				hint = node.FullPath() + " --help"
			}
		}
		if _, ok := errors.AsType[*usageError](err); !ok {
			err = usagef("%s (see \"%s\")", strings.TrimSpace(err.Error()), hint)
		}
		return s.fail(err)
	}
	s.json, s.quiet = grammar.JSON, grammar.Quiet
	if call.Command() != "serve" { // to which SIGHUP means something else
		ctx, stop := untilHangup(ctx)
		defer stop()
		context.AfterFunc(ctx, stop) // a second one ends the command at once
		call.BindTo(ctx, (*context.Context)(nil))
	}
	if err := call.Run(); err != nil {
		return s.fail(err)
	}
	return statusOK
}

// decodeDuration reads a duration of a flag.
func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.ValueOf(&d))
		return nil
	}
	target.SetInt(int64(d))
	return nil
}

// parseDuration reads a duration as Go does, or one that begins with weeks and days of
// 24 hours: 90s, 12h, 1d, 1d12h, 2w.
func parseDuration(text string) (time.Duration, error) {
	total, rest := time.Duration(0), text
	for _, unit := range []struct {
		name string
		d    time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		digits, after, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n > 10_000 {
			return 0, fmt.Errorf("%q is not a duration; write 90s, 15m, 12h, 1d or 2w", text)
		}
		total, rest = total+time.Duration(n)*unit.d, after
	}
	if rest == "" && text != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write 90s, 15m, 12h, 1d or 2w", text)
	}
	return total + d, nil
}

// asksJSON finds --json before the line is parsed: a line that can't be is an error
// that must be printed in the form asked for.
func asksJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}

// fail prints err and gives the status that belongs to it.
func (s *session) fail(err error) int {
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.status
	}
	s.printError(err)
	if _, ok := errors.AsType[*usageError](err); ok || errors.Is(err, client.ErrNotConfigured) {
		return statusUsage
	}
	return StatusFailed
}
