package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/quickims/quickims/internal/app"
)

// FsckCmd is `quickims fsck`.
type FsckCmd struct {
	Data     string `placeholder:"DIR" help:"The service's data folder."`
	Database string `placeholder:"URL" help:"The service's postgres:// URL, where it has one." env:"QUICKIMS_DATABASE"`
	Config   string `placeholder:"FILE" help:"The service's YAML configuration; flags override it."`
	TakeOver bool   `name:"take-over" help:"Give the image area, seal.key and credentials.env to the database, whatever they belonged to."`
	Yes      bool   `short:"y" help:"Ask nothing."`
}

// Help is what --help adds.
func (*FsckCmd) Help() string {
	return `A service refuses to start when its database and its image area do not belong together: the image area (or
seal.key, credentials.env) carries the id of another installation, or a newer generation than the database.
--take-over makes them the database's. It removes nothing: what the database does not know stays, as unknown. Use it
only when the database that the image area belongs to is lost for good, with the service stopped.

Example:
  quickims fsck --data /var/lib/quickims --take-over`
}

// config is the service's configuration.
func (c *FsckCmd) config() (app.Config, error) {
	cfg := app.DefaultConfig()
	if c.Config != "" {
		var err error
		if cfg, err = app.LoadConfig(c.Config); err != nil {
			return cfg, &usageError{err.Error()}
		}
	}
	if c.Data != "" {
		cfg.Data = c.Data
	}
	if c.Database != "" {
		cfg.Database = app.Secret(c.Database)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, &usageError{err.Error()}
	}
	return cfg, nil
}

// Run does what the flags say.
func (c *FsckCmd) Run(ctx context.Context, s *session) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if !c.TakeOver {
		return usagef("say what to do: --take-over")
	}
	if !c.Yes && !s.confirm("The image area, seal.key and credentials.env will belong to this database, whatever they belonged to. Images that it does not know become unknown.") {
		return fmt.Errorf("take over the image area: not confirmed; nothing was changed")
	}
	taken, err := app.TakeOver(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return s.result(struct {
		Installation string   `json:"installation"`
		Area         string   `json:"area"`
		Changed      []string `json:"changed"`
	}{taken.Installation, taken.Area, append([]string{}, taken.Changed...)}, func(w io.Writer) {
		if len(taken.Changed) == 0 {
			fmt.Fprintf(w, "the image area %s belongs to installation %s already\n", taken.Area, taken.Installation)
			return
		}
		fmt.Fprintf(w, "now of installation %s: %s\n", taken.Installation, strings.Join(taken.Changed, ", "))
	})
}

// confirm asks a question on stderr; only yes is yes.
func (s *session) confirm(text string) bool {
	fmt.Fprintf(s.Stderr, "%s\nGo on? Type yes: ", text)
	if s.Stdin == nil {
		return false
	}
	answer, _ := bufio.NewReader(s.Stdin).ReadString('\n') // an input that ends is no yes
	return strings.TrimSpace(answer) == "yes"
}
