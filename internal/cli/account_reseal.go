package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/quickims/quickims/internal/app"
)

// AccountResealCmd makes a new sealing key.
type AccountResealCmd struct {
	accountFlags
	Yes bool `short:"y" help:"Ask nothing."`
}

// Help shows the command's use.
func (AccountResealCmd) Help() string {
	return `The secret keys in the database are sealed with seal.key. If that file is lost for good, nobody can read them any
more, and the service does not start. This command makes a new seal.key and deletes all access keys; what was opened
with them ends. Users, passwords, roles, images and buckets stay. Make new access keys with "account add". The
service, and all that share its database, must be stopped; copy the new seal.key to the others. A seal.key that opens
the secret keys is left alone; any other is kept as seal.key.replaced-TIME.

Example:

    quickims account reseal --data /var/lib/quickims
`
}

// Run makes the key.
func (c *AccountResealCmd) Run(ctx context.Context, s *session) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if !c.Yes && !s.confirm("All access keys of all users will be deleted, and seal.key made anew.") {
		return errors.New("make a new seal.key: not confirmed; nothing was changed")
	}
	keys, err := app.Reseal(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return s.result(struct {
		AccessKeysDeleted int `json:"access_keys_deleted"`
	}{keys}, func(w io.Writer) {
		fmt.Fprintf(w, "seal.key is new; %d access keys were deleted, make new ones with \"quickims account add\"\n", keys)
	})
}
