package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"text/tabwriter"

	"github.com/quickims/quickims/internal/app"
)

// ServeCmd is `quickims serve`.
type ServeCmd struct {
	Data      string `placeholder:"DIR" help:"Folder that holds all state: database, buckets, images, credentials.env."`
	Listen    string `placeholder:"ADDR" help:"Address of the API, host:port; port 0 picks a free one. Default 127.0.0.1:9292."`
	TLSCert   string `name:"tls-cert" placeholder:"FILE" help:"Certificate chain (PEM) of all listeners."`
	TLSKey    string `name:"tls-key" placeholder:"FILE" help:"Its private key (PEM)."`
	PlainHTTP bool   `name:"allow-plain-http" help:"Let API, S3 and metrics listen without TLS where other machines reach them: behind a proxy that speaks TLS."`
	Metrics   string `name:"metrics-listen" placeholder:"ADDR" help:"Address of /metrics, host:port. Default: a free port of 127.0.0.1, which the ready line names."`
	S3Listen  string `name:"s3-listen" placeholder:"ADDR" help:"Serve the directory store's buckets over S3 at this address."`
	NBDListen string `name:"nbd-listen" placeholder:"ADDR" help:"Serve attachments over NBD at this address, host:port or unix:PATH. On an address that other machines reach it takes --tls-cert."`
	NBDPublic string `name:"nbd-public" placeholder:"ADDR" help:"host:port that the URIs of attachments name. Default: the listener's."`
	Database  string `placeholder:"URL" help:"postgres:// URL. Default: SQLite in DIR. QUICKIMS_DATABASE keeps it out of the process list." env:"QUICKIMS_DATABASE"`
	Config    string `placeholder:"FILE" help:"YAML configuration; flags override it."`
	TakeOver  bool   `name:"take-over" help:"Take over from the process that serves DIR, if there is one: its listeners and the connections of NBD clients in clear. It goes on if this one cannot start."`
	Detach    bool   `name:"background" help:"With --take-over: return when the new process serves, which goes on in the background."`
	LogLevel  string `name:"log-level" enum:"debug,info,warn,error" default:"info" help:"What goes to stderr: debug, info, warn or error."`
}

// Help is what --help adds.
func (*ServeCmd) Help() string {
	return `Prints one line of JSON to stdout when it is ready to serve, on a terminal a text with the addresses; logs go to stderr. SIGTERM drains and stops,
SIGHUP reads the certificate and os_versions again. With --take-over a new version, or another configuration, takes the place of
the running one, and machines that read their disks over NBD do not notice.
The first start writes the keys it made to DIR/credentials.env.

Example:
  quickims serve --data /var/lib/quickims --listen 127.0.0.1:9292 --s3-listen 127.0.0.1:9000 --nbd-listen 127.0.0.1:10809`
}

// Run serves until the context ends.
func (c *ServeCmd) Run(ctx context.Context, s *session) error {
	cfg := app.DefaultConfig()
	if c.Config != "" {
		var err error
		if cfg, err = app.LoadConfig(c.Config); err != nil {
			return &usageError{err.Error()}
		}
	}
	for _, o := range []struct{ flag, value *string }{
		{&c.Data, &cfg.Data}, {&c.Listen, &cfg.Listen}, {&c.TLSCert, &cfg.TLSCert}, {&c.TLSKey, &cfg.TLSKey}, {&c.S3Listen, &cfg.S3Listen},
		{&c.NBDListen, &cfg.NBDListen}, {&c.NBDPublic, &cfg.NBDPublic}, {&c.Metrics, &cfg.MetricsListen},
	} {
		if *o.flag != "" {
			*o.value = *o.flag
		}
	}
	cfg.AllowPlainHTTP = cfg.AllowPlainHTTP || c.PlainHTTP
	if c.Database != "" {
		cfg.Database = app.Secret(c.Database)
	}
	if err := cfg.Validate(); err != nil {
		return &usageError{err.Error()}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return &usageError{err.Error()}
	}
	if c.Detach {
		if !c.TakeOver {
			return &usageError{"--background goes with --take-over"}
		}
		return c.detach(ctx, s)
	}
	if s.Getenv("GOGC") == "" {
		// Half of Go's default headroom: the live heap is small, memory counts for more
		// than the collector's time on the machines that this runs on.
		debug.SetGCPercent(50)
	}
	log := slog.New(slog.NewJSONHandler(s.Stderr, &slog.HandlerOptions{Level: level}))
	begin := app.New
	if c.TakeOver {
		begin = app.TakeOverService
	}
	service, err := begin(ctx, cfg, app.SeedFrom(s.Getenv), log)
	if err != nil {
		return err
	}
	hangups, stop := onHangup()
	defer stop()
	stdout := s.Stdout
	if s.onTerminal(stdout) && !s.json {
		stdout = &readyText{w: stdout, data: cfg.Data}
	}
	return service.Run(ctx, stdout, hangups)
}

// detach runs the same command without --background in a session of its own, and waits
// until it serves or has failed.
func (c *ServeCmd) detach(ctx context.Context, s *session) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return arg == "--background" })...)
	cmd.Stderr = os.Stderr // a descriptor, which outlives this process
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the new process did not start: %w", cmp.Or(cmd.Wait(), io.ErrUnexpectedEOF))
	}
	if s.onTerminal(s.Stdout) && !s.json {
		_, err = (&readyText{w: s.Stdout, data: c.Data}).Write(line)
	} else {
		_, err = s.Stdout.Write(line)
	}
	return err
}

// readyText prints the ready line for people.
type readyText struct {
	w    io.Writer
	data string
}

// Write takes the line, whole.
func (r *readyText) Write(line []byte) (int, error) {
	var ready struct{ API, S3, NBD, Metrics string }
	if err := json.Unmarshal(line, &ready); err != nil {
		return r.w.Write(line)
	}
	credentials := filepath.Join(absolute(r.data), "credentials.env")
	w := tabwriter.NewWriter(r.w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "quickims is ready")
	for _, row := range [][2]string{{"API", ready.API}, {"S3", ready.S3}, {"NBD", ready.NBD}, {"Metrics", ready.Metrics}, {"Credentials", credentials}} {
		if row[1] != "" {
			fmt.Fprintf(w, "  %s\t%s\n", row[0], row[1])
		}
	}
	fmt.Fprintf(w, "In another shell:\n  export QUICKIMS_CREDENTIALS=%s\n  quickims image list\n", credentials)
	return len(line), w.Flush()
}
