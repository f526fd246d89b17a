package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
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
	LogLevel  string `name:"log-level" enum:"debug,info,warn,error" default:"info" help:"What goes to stderr: debug, info, warn or error."`
}

// Help is what --help adds.
func (*ServeCmd) Help() string {
	return `Prints one line of JSON to stdout when it is ready to serve, on a terminal a text with the addresses; logs go to stderr. SIGTERM drains and stops,
SIGHUP reads the certificate and os_versions again.
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
	if s.Getenv("GOGC") == "" {
		// Half of Go's default headroom: the live heap is small, memory counts for more
		// than the collector's time on the machines that this runs on.
		debug.SetGCPercent(50)
	}
	log := slog.New(slog.NewJSONHandler(s.Stderr, &slog.HandlerOptions{Level: level}))
	service, err := app.New(ctx, cfg, app.SeedFrom(s.Getenv), log)
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
