package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// CompletionCmd prints what makes a shell complete the program's commands and flags.
type CompletionCmd struct {
	Shell string `arg:"" name:"shell" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help shows the command's use.
func (CompletionCmd) Help() string {
	return `The shell runs the program itself to complete a line. Put the line of your shell into its start-up file, or the output where the shell looks for completions.

Examples:

    source <(quickims completion bash)
    source <(quickims completion zsh)
    quickims completion fish >~/.config/fish/completions/quickims.fish
`
}

// scripts ask the program for completions, as a shell's own mechanism does that: it sets
// COMP_LINE.
var scripts = map[string]string{
	"bash": "complete -o default -o bashdefault -C %[1]q quickims\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o default -o bashdefault -C %[1]q quickims\n",
	"fish": `function __complete_quickims
    set -lx COMP_LINE (commandline -cp)
    if test -z (commandline -ct)
        set COMP_LINE "$COMP_LINE "
    end
    %[1]q
end
complete -c quickims -f -a "(__complete_quickims)"
`,
}

// Run prints it.
func (c *CompletionCmd) Run(s *session) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	_, err = fmt.Fprintf(s.Stdout, scripts[c.Shell], program)
	return err
}

// ManCmd prints the manual page.
type ManCmd struct{}

// Help shows the command's use.
func (ManCmd) Help() string {
	return `Examples:

    quickims man | man -l -
    quickims man >/usr/local/share/man/man1/quickims.1
`
}

// Run prints it.
func (ManCmd) Run(s *session, app *kong.Kong) error {
	_, err := io.WriteString(s.Stdout, manual(app.Model))
	return err
}

// manual is the manual page, in the man macros that every man program knows.
func manual(app *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH QUICKIMS 1\n.SH NAME\nquickims \\- image service and tools for disk images\n")
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B quickims\n.I command\n[flags]\n.SH DESCRIPTION\n%s\n", roff(app.Help))
	b.WriteString(".SH OPTIONS\nThey go with every command.\n")
	manFlags(&b, app.Flags)
	b.WriteString(".SH COMMANDS\n")
	for _, command := range app.Leaves(true) {
		fmt.Fprintf(&b, ".SS %s\n%s\n", roff(command.Path()), roff(command.Help))
		for _, arg := range command.Positional {
			fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", roff(arg.Summary()), roff(arg.Help))
		}
		manFlags(&b, command.Flags)
		if command.Detail != "" {
			fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(strings.TrimSpace(wrapLines(command.Detail))))
		}
	}
	b.WriteString(".SH EXIT STATUS\n0 if the command succeeded, 1 if it failed, 2 if the call is wrong; 128 and the number of the signal that ended it.\n")
	return b.String()
}

func manFlags(b *strings.Builder, flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		name := "\\fB\\-\\-" + roff(f.Name) + "\\fR"
		if f.Short != 0 {
			name = "\\fB\\-" + string(f.Short) + "\\fR, " + name
		}
		if !f.IsBool() {
			name += " \\fI" + roff(f.FormatPlaceHolder()) + "\\fR"
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", name, roff(f.Help))
	}
}

// wrapLines breaks the lines of a text that are wider than a terminal.
func wrapLines(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, " ") { // an example
			lines = append(lines, line)
			continue
		}
		lines = append(lines, wrap(line, wrapAt)...)
	}
	return strings.Join(lines, "\n")
}

// roff escapes what means something to roff.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
