package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/app"
	"github.com/quickims/quickims/internal/ims"
)

// AccountCmd groups the commands on projects, users and keys. They work on the
// service's data folder, on the machine where it runs.
type AccountCmd struct {
	Add    AccountAddCmd    `cmd:"" help:"Give a user a role in a project and an access key; make both if need be."`
	List   AccountListCmd   `cmd:"" help:"List who has which role in which project."`
	Bucket AccountBucketCmd `cmd:"" help:"Give a bucket of the directory store to a project, or list the buckets."`
	Revoke AccountRevokeCmd `cmd:"" help:"Delete an access key."`
	Remove AccountRemoveCmd `cmd:"" help:"Remove a user, a user from a project, or a project; end what they opened."`
	Reseal AccountResealCmd `cmd:"" help:"Make a new seal.key in place of a lost one; all access keys end."`
}

// Help shows the commands' use.
func (AccountCmd) Help() string {
	return `Examples:

    quickims account add --data /var/lib/quickims --project lab --user alice --role member --out alice.env
    quickims account list --data /var/lib/quickims
`
}

type accountFlags struct {
	Data     string `required:"" placeholder:"DIR" help:"The service's data folder."`
	Database string `placeholder:"URL" help:"The service's postgres:// URL, where it has one." env:"QUICKIMS_DATABASE"`
}

// domainFlag chooses the domain of a command.
type domainFlag struct {
	Domain string `help:"Name or id of the domain. Default: the domain that the first start made."`
}

// in opens the accounts of a domain, which is made if create is set.
func (f accountFlags) in(ctx context.Context, d domainFlag, create bool) (*app.Accounts, error) {
	accounts, err := f.open(ctx)
	if err != nil || d.Domain == "" {
		return accounts, err
	}
	if err := accounts.In(ctx, d.Domain, create); err != nil {
		return nil, errors.Join(err, accounts.Close())
	}
	return accounts, nil
}

func (f accountFlags) open(ctx context.Context) (*app.Accounts, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, err
	}
	return app.OpenAccounts(ctx, cfg)
}

func (f accountFlags) config() (app.Config, error) {
	cfg := app.DefaultConfig()
	cfg.Data, cfg.Database = f.Data, app.Secret(f.Database)
	if err := cfg.Validate(); err != nil {
		return cfg, &usageError{err.Error()}
	}
	return cfg, nil
}

// AccountAddCmd adds a user to a project.
type AccountAddCmd struct {
	accountFlags
	domainFlag
	Project string `required:"" help:"Name or id of the project."`
	User    string `required:"" help:"Name of the user."`
	Role    string `enum:"admin,member,reader" default:"member" help:"admin, member (all but enterprise projects) or reader (looks only)."`
	Out     string `placeholder:"FILE" help:"Write the credentials to FILE, which only you can read (mode 0600), instead of printing them. A file that is there is not replaced."`
}

// Help shows the command's use.
func (AccountAddCmd) Help() string {
	return `Prints what the user needs, in the form of credentials.env. A user who was there keeps the password;
the role takes the place of the one that the user had in the project. Domain, project and user are created if
there are none. Projects of one domain share its enterprise projects; without --domain, each project has its own.

Examples:

    quickims account add --data /var/lib/quickims --project lab --user alice --role member > alice.env
    quickims account add --data /var/lib/quickims --domain acme --project web --user bob --role admin > bob.env
`
}

// Run adds the account.
func (c *AccountAddCmd) Run(ctx context.Context, s *session) error {
	var out *output
	if c.Out != "" { // first: keys that cannot be written down are of no use
		var err error
		if out, err = newOutput(c.Out, false); err != nil {
			return err
		}
		defer out.cancel()
		if err := out.Chmod(0o600); err != nil {
			return fmt.Errorf("write %s: %w", c.Out, plain(err))
		}
	}
	accounts, err := c.in(ctx, c.domainFlag, true)
	if err != nil {
		return err
	}
	defer accounts.Close()
	seed, err := accounts.Add(ctx, c.Project, c.User, ims.Role(c.Role))
	if err != nil {
		return err
	}
	endpoints, err := accounts.Endpoints()
	if err != nil {
		return err
	}
	variables := slices.DeleteFunc(append(seed.Variables(), endpoints...), func(v app.Variable) bool { return *v.Value == "" })
	doc := map[string]string{}
	for _, v := range variables {
		doc[v.Name] = *v.Value
	}
	text := func(w io.Writer) {
		for _, v := range variables {
			fmt.Fprintf(w, "%s='%s'\n", v.Name, *v.Value)
		}
	}
	if out == nil {
		return s.result(doc, text)
	}
	text(out)
	if err := out.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", c.Out, plain(err))
	}
	if err := out.commit(); err != nil {
		return err
	}
	return s.result(struct {
		Path string `json:"path"`
		User string `json:"user"`
	}{c.Out, c.User}, func(w io.Writer) {
		fmt.Fprintf(w, "wrote the credentials of %s to %s; export QUICKIMS_CREDENTIALS=%s uses them\n", c.User, c.Out, absolute(c.Out))
	})
}

// AccountListCmd lists accounts.
type AccountListCmd struct {
	accountFlags
	wideFlag
}

// Help shows the command's use.
func (AccountListCmd) Help() string {
	return `Example:

    quickims account list --data /var/lib/quickims
`
}

// Run lists the accounts.
func (c *AccountListCmd) Run(ctx context.Context, s *session) error {
	accounts, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer accounts.Close()
	list, err := accounts.List(ctx)
	if err != nil {
		return err
	}
	type entry struct {
		Domain     string     `json:"domain"`
		DomainID   string     `json:"domain_id"`
		Project    string     `json:"project"`
		ProjectID  string     `json:"project_id"`
		User       string     `json:"user"`
		UserID     string     `json:"user_id"`
		Roles      []ims.Role `json:"roles"`
		AccessKeys []string   `json:"access_keys"`
	}
	doc := make([]entry, 0, len(list))
	for _, a := range list {
		doc = append(doc, entry(a))
	}
	var rows [][]string
	for _, a := range list {
		var roles []string
		for _, r := range a.Roles {
			roles = append(roles, string(r))
		}
		rows = append(rows, []string{a.Domain, a.Project, a.ProjectID, a.User, strings.Join(roles, ","), strings.Join(a.AccessKeys, ",")})
	}
	return s.table(doc, c.Wide, "no accounts", []column{{"DOMAIN", soft, true}, {"PROJECT", soft, false}, {"PROJECT ID", whole, false}, {"USER", soft, false}, {"ROLES", soft, false}, {"ACCESS KEYS", soft, false}}, rows)
}

// AccountRevokeCmd deletes an access key.
type AccountRevokeCmd struct {
	accountFlags
	AccessKey string `arg:"" help:"The access key."`
}

// Help shows the command's use.
func (AccountRevokeCmd) Help() string {
	return `What was opened with the key ends within 2 seconds: attachments, NBD connections, downloads.

Example:

    quickims account revoke --data /var/lib/quickims AKIAEXAMPLE
`
}

// Run deletes the key.
func (c *AccountRevokeCmd) Run(ctx context.Context, _ *session) error {
	accounts, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer accounts.Close()
	return accounts.Revoke(ctx, c.AccessKey)
}

// AccountRemoveCmd takes access away.
type AccountRemoveCmd struct {
	accountFlags
	domainFlag
	User    string `arg:"" optional:"" help:"Name or id of the user."`
	Project string `help:"Name or id of the project. Without a user: remove all users from it."`
}

// Help shows the command's use.
func (AccountRemoveCmd) Help() string {
	return `With a user alone, it takes everything from the user: password, tokens, access keys and roles. With --project
too, it takes the user out of that project. With --project alone, it takes the project from all its users, and
images that are shared with the project. What was opened with the access ends within 2 seconds: attachments, NBD
connections, downloads. Images, buckets and jobs stay with their projects. "account add" opens a project again, and
lets a user in again with a new password and the new role alone.

Examples:

    quickims account remove --data /var/lib/quickims alice
    quickims account remove --data /var/lib/quickims alice --project lab
    quickims account remove --data /var/lib/quickims --project lab
`
}

// Run takes the access away.
func (c *AccountRemoveCmd) Run(ctx context.Context, _ *session) error {
	if c.User == "" && c.Project == "" {
		return &usageError{"name a user, a --project, or both"}
	}
	accounts, err := c.in(ctx, c.domainFlag, false)
	if err != nil {
		return err
	}
	defer accounts.Close()
	return accounts.Remove(ctx, c.User, c.Project)
}
