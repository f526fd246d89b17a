package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/quickims/quickims/internal/app"
	"github.com/quickims/quickims/internal/fsck"
)

// FsckCmd is `quickims fsck`.
type FsckCmd struct {
	Data     string        `placeholder:"DIR" help:"The service's data directory."`
	Database string        `placeholder:"URL" help:"The service's postgres:// URL, where it has one." env:"QUICKIMS_DATABASE"`
	Config   string        `placeholder:"FILE" help:"The service's YAML configuration; flags override it."`
	ReadData float64       `name:"read-data" placeholder:"PERCENT" help:"Decode and check so much of each image's data, picked at random; 100 is all of it."`
	Repair   bool          `help:"Remove what is unknown and older than --grace, and set rows right."`
	Grace    time.Duration `default:"168h" help:"How old unknown objects and uploads must be for --repair to remove them, such as 48h; the default is 7 days."`
	Yes      bool          `short:"y" help:"Ask nothing."`
	TakeOver bool          `name:"take-over" help:"Give the image area, seal.key and credentials.env to the database, whatever they belonged to."`
}

// Help is what --help adds.
func (*FsckCmd) Help() string {
	return `Compares the database with the image area, both ways, also while the service runs. It finds images whose bytes are
missing, of another size or another ETag; objects and multipart uploads that no row of the database explains; what the
service should have removed an hour ago and has not; counts that differ from the rows they count; rows that belong to
no image. The exit status is 0 if nothing is wrong (any
more), 1 if there are findings or the check failed, 2 for a usage error.

--repair removes unknown objects and uploads that are older than --grace, by the time of their last modification; if
that is more than a tenth of the image area it asks first. It cannot bring back the bytes of an image: restore them
from a backup, or delete the image.

A service refuses to start when its database and its image area do not belong together. --take-over makes the image
area, seal.key and credentials.env the database's. It removes nothing: what the database does not know stays, as
unknown. Use it only when the database that the image area belongs to is lost for good, with the service stopped.

Examples:
  quickims fsck --data /var/lib/quickims
  quickims fsck --data /var/lib/quickims --read-data 5
  quickims fsck --data /var/lib/quickims --repair --grace 48h
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
	switch {
	case err != nil:
		return err
	case !(c.ReadData >= 0 && c.ReadData <= 100): // NaN, too
		return usagef("--read-data is %v; it must be 0 to 100 percent", c.ReadData)
	case c.Grace < 0:
		return usagef("--grace is %s; it must be 0 or more", c.Grace)
	case c.TakeOver && (c.Repair || c.ReadData > 0):
		return usagef("--take-over goes with neither --repair nor --read-data; run fsck again afterwards")
	case c.TakeOver:
		return c.takeOver(ctx, s, cfg)
	}
	f, err := app.OpenFsck(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := f.Check(ctx, fsck.Options{ReadData: c.ReadData})
	if err != nil {
		return fmt.Errorf("compare the database with the image area: %w", err)
	}
	var refused error
	if c.Repair {
		refused = c.repair(ctx, s, f, &report)
	}
	doc := fsckDoc{f.Installation, f.Area, report, report.Open()}
	if doc.Findings == nil {
		doc.Findings = []fsck.Finding{}
	}
	if err := s.result(doc, doc.text); err != nil {
		return err
	}
	if refused == nil && report.Open() > 0 {
		return &exitError{StatusFailed}
	}
	return refused
}

// fsckDoc is the result of a check.
type fsckDoc struct {
	Installation string `json:"installation"`
	Area         string `json:"area"`
	fsck.Report
	Open int `json:"open"`
}

func (d fsckDoc) text(w io.Writer) {
	for _, f := range d.Findings {
		what := strings.Trim(f.ImageID+" "+oneLine(f.Key), " ")
		if f.UploadID != "" {
			what += " upload " + f.UploadID
		}
		done := ""
		if f.Repaired {
			done = "repaired"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Kind, what, f.Detail, done)
	}
	fmt.Fprintf(w, "%d images, %d objects of %d bytes in the image area %s: %d findings, %d repaired\n",
		d.Images, d.Objects, d.Bytes, d.Area, len(d.Findings), len(d.Findings)-d.Open)
}

// oneLine is a key as a terminal may show it.
func oneLine(key string) string {
	if strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(key)
	}
	return key
}

// repair asks if need be, and repairs.
func (c *FsckCmd) repair(ctx context.Context, s *session, f *app.Fsck, r *fsck.Report) error {
	now := s.now()
	x := r.Removable(now, c.Grace)
	if r.Much(x) && !c.Yes && !s.confirm(fmt.Sprintf("%d of %d objects in the image area %s, %d of %d bytes, are unknown and older than %s, and would be removed. That is more than a tenth.",
		x.Objects, r.Objects, f.Area, x.Bytes, r.Bytes, c.Grace)) {
		return errors.New("repair: not confirmed; nothing was changed. Check that the database is the right one, then add --yes")
	}
	return f.Repair(ctx, r, now, c.Grace)
}

func (c *FsckCmd) takeOver(ctx context.Context, s *session, cfg app.Config) error {
	if !c.Yes && !s.confirm("The image area, seal.key and credentials.env will belong to this database, whatever they belonged to. Images that it does not know become unknown.") {
		return errors.New("take over the image area: not confirmed; nothing was changed")
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
