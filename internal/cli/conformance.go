package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/conformance"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
)

// ConformanceCmd asks a service whether it keeps the API's promises.
type ConformanceCmd struct {
	serverFlags
	Endpoint  string        `placeholder:"URL" help:"Address of the service's API. Default: QUICKIMS_ENDPOINT."`
	Identity  string        `name:"identity-endpoint" placeholder:"URL" help:"Address of the identity service, where tokens are issued. Default: that of the API."`
	ProjectID string        `name:"project-id" placeholder:"ID" help:"Project to work in. Default: QUICKIMS_PROJECT_ID."`
	Auth      string        `enum:",keys,password" default:"" placeholder:"HOW" help:"Sign with QUICKIMS_ACCESS_KEY and QUICKIMS_SECRET_KEY (keys), or get a token with QUICKIMS_USER, QUICKIMS_PASSWORD and QUICKIMS_DOMAIN_ID or QUICKIMS_DOMAIN_NAME (password). Default: QUICKIMS_TOKEN, else keys, else password."`
	ImageURL  string        `name:"image-url" placeholder:"BUCKET:KEY" help:"Object to import: a RAW disk with its bitmap, or ZVHD2. Default: one that is made in a bucket of its own, in the store that QUICKIMS_S3_ENDPOINT names."`
	OSVersion string        `name:"os-version" default:"Ubuntu 22.04 server 64bit" placeholder:"NAME" help:"Operating system to say the object holds."`
	MinDisk   int64         `name:"min-disk" default:"40" placeholder:"GiB" help:"min_disk of the import, 1 to 1024 GiB. Default: 40."`
	Member    string        `placeholder:"PROJECT" help:"Id of another project, to share the image with for a moment. Without it these checks are skipped."`
	ReadOnly  bool          `name:"read-only" help:"Run only the checks that change nothing."`
	Only      []string      `placeholder:"NAME" help:"Run only the checks whose names begin with NAME, and what makes the image for them."`
	Timeout   time.Duration `default:"10m" placeholder:"DURATION" help:"Give up on the import's job after this time. Default: 10m."`
	List      bool          `help:"List the checks with their references, and ask nothing."`
}

// Help shows the command's use.
func (ConformanceCmd) Help() string {
	return `Asks any service of the IMS API, a quickims or a public cloud's, whether it keeps the API's promises, one line a promise.
What it makes has names that begin with ` + conformance.Prefix + ` and is removed at the end, after Ctrl-C too.
What a service does not offer is skipped. Exit status 1: a promise is broken, or something could not be removed.

Examples:

    quickims conformance --credentials /var/lib/quickims/credentials.env
    quickims conformance --read-only --json > report.json
    quickims conformance --endpoint https://ims.eu-de.otc.t-systems.com --identity-endpoint https://iam.eu-de.otc.t-systems.com \
        --auth password --image-url mybucket:debian.zvhd2 --os-version "Debian GNU/Linux 12.0.0 64bit"
    quickims conformance --list
`
}

// Run asks.
func (c *ConformanceCmd) Run(ctx context.Context, s *session) error {
	if c.List {
		return c.list(s)
	}
	run, err := c.config(ctx, s)
	if err != nil {
		return err
	}
	report := conformance.Run(ctx, run, func(r conformance.Result) { s.checked(r) })
	if s.json {
		err = s.result(report, nil)
	} else {
		_, err = fmt.Fprintf(s.Stdout, "\n%d passed, %d failed, %d skipped\n", report.Passed, report.Failed, report.Skipped)
		for _, left := range report.Left {
			s.note("could not be removed: %s", left)
		}
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return errInterrupted
	case len(report.Left) > 0:
		return fmt.Errorf("%d things that were made could not be removed", len(report.Left))
	case report.Failed > 0:
		return fmt.Errorf("%d of %d checks failed", report.Failed, len(report.Results))
	case report.Passed == 0:
		return errors.New("no check ran")
	}
	return nil
}

// checked tells of a check that has ended.
func (s *session) checked(r conformance.Result) {
	if s.json {
		if !s.quiet {
			s.jsonLine(struct {
				Event   string              `json:"event"`
				Name    string              `json:"name"`
				Outcome conformance.Outcome `json:"outcome"`
			}{"check", r.Name, r.Outcome})
		}
		return
	}
	outcome := fmt.Sprintf("%-7s", r.Outcome)
	if r.Outcome == conformance.Failed {
		outcome = s.coloured(s.Stdout, red, outcome)
	}
	text := r.Promise
	if r.Outcome == conformance.Skipped {
		text = r.Detail
	}
	fmt.Fprintf(s.Stdout, "%s  %-38s  %s\n", outcome, r.Name, text)
	if r.Outcome == conformance.Failed {
		fmt.Fprintf(s.Stdout, "%-49s%s\n", "", r.Detail)
	}
}

func (c *ConformanceCmd) list(s *session) error {
	doc := struct {
		Checks []conformance.Check `json:"checks"`
	}{conformance.Checks()}
	var rows [][]string
	for _, check := range doc.Checks {
		rows = append(rows, []string{check.Name, check.Promise, check.Reference})
	}
	return s.table(doc, false, "no checks", []column{{"CHECK", whole, false}, {"PROMISE", soft, false}, {"REFERENCE", soft, false}}, rows)
}

// config is what flags, files and environment say.
func (c *ConformanceCmd) config(ctx context.Context, s *session) (run conformance.Config, err error) {
	config, err := c.serverFlags.config(s)
	if err != nil {
		return run, err
	}
	config.Endpoint, config.ProjectID = cmp.Or(c.Endpoint, config.Endpoint), cmp.Or(c.ProjectID, config.ProjectID)
	if config.ProjectID == "" {
		return run, usagef("no project is named: set %s or --project-id", client.EnvProjectID)
	}
	opts := client.Options{UserAgent: "quickims/" + s.version().Version}
	identity := config
	identity.Endpoint = cmp.Or(c.Identity, config.Endpoint)
	if c.Auth == "password" || c.Auth == "" && config.Token == "" && config.AccessKey == "" {
		if config.Login.User == "" || config.Login.Password == "" {
			return run, usagef("no credentials: set %s and %s, or %s and %s", client.EnvAccessKey, client.EnvSecretKey, client.EnvUser, client.EnvPassword)
		}
		if config.Token, err = client.GetToken(ctx, identity, opts); err != nil {
			return run, fmt.Errorf("get a token: %w", interrupted(ctx, err))
		}
	} else if c.Auth == "keys" {
		config.Token = ""
	}
	identity.Token = "none of its own: each call says which"
	run = conformance.Config{
		ProjectID: config.ProjectID, Login: config.Login, ReadOnly: c.ReadOnly, Member: c.Member, Only: c.Only, Timeout: c.Timeout,
	}
	if run.API, err = client.New(config, opts); err != nil {
		return run, err
	}
	if run.Identity, err = client.New(identity, opts); err != nil {
		return run, err
	}
	source := conformance.Source{URL: c.ImageURL, OSVersion: c.OSVersion, MinDisk: c.MinDisk}
	switch {
	case c.ImageURL != "":
		if _, err := parseObject(c.ImageURL); err != nil {
			return run, err
		}
		run.Prepare = func(context.Context, string) (conformance.Source, func(context.Context) error, error) {
			return source, nil, nil
		}
	case config.S3Endpoint != "" && config.AccessKey != "":
		store, err := client.NewStore(config)
		if err != nil {
			return run, err
		}
		run.Prepare = func(ctx context.Context, name string) (conformance.Source, func(context.Context) error, error) {
			remove, err := makeSource(ctx, store, name, &source)
			return source, remove, err
		}
	}
	return run, nil
}

// sourceBytes is the length of the disk that is made: data and holes of several blocks.
const sourceBytes = 6 << 20

// makeSource makes a RAW disk with its bitmap in a bucket of its own, all called name, and
// says how they are removed.
func makeSource(ctx context.Context, store *client.Store, name string, source *conformance.Source) (remove func(context.Context) error, err error) {
	disk := make([]byte, sourceBytes)
	rand.Read(disk[4096 : sourceBytes/3]) // never fails; no front that looks like a format's
	rand.Read(disk[sourceBytes-4096:])
	m, err := bitmap.Build(ctx, bytes.NewReader(disk), int64(len(disk)), bitmap.Options{})
	if err != nil {
		return nil, err
	}
	bucket, key, mf := name, name+".raw", name+".mf"
	made, err := store.EnsureBucket(ctx, bucket)
	if err == nil && !made {
		return nil, fmt.Errorf("there is a bucket %s already", bucket)
	}
	// A bucket whose making was interrupted may be there.
	remove = func(ctx context.Context) error {
		err := errors.Join(store.Remove(ctx, bucket, key), store.Remove(ctx, bucket, mf))
		if err == nil {
			err = store.RemoveBucket(ctx, bucket)
		}
		if code(err) == "NoSuchBucket" {
			return nil
		}
		return err
	}
	if err != nil {
		return remove, err
	}
	for object, data := range map[string]io.ReaderAt{key: bytes.NewReader(disk), mf: m} {
		length := int64(len(disk))
		if object == mf {
			length = m.Size()
		}
		if _, err := store.Put(ctx, bucket, object, data, length, nil); err != nil {
			return remove, err
		}
	}
	source.URL, source.Disk = bucket+":"+key, disk
	return remove, nil
}
