package s3face

import (
	"errors"
	"strings"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3err"
)

// Roles of versitygw as used here: who may write may also make buckets.
const (
	roleWriter = auth.RoleUserPlus
	roleReader = auth.RoleUser
)

// accounts shows Accounts to versitygw. The principal is the project, whichever
// of its keys signed: buckets, owners and uploads carry the project's id.
type accounts struct{ Accounts }

var _ auth.IAMService = accounts{}

// GetUserAccount implements auth.IAMService.
func (a accounts) GetUserAccount(accessKey string) (auth.Account, error) {
	secret, project, readOnly, err := a.SecretFor(strings.Clone(accessKey))
	switch {
	case errors.Is(err, ErrUnknownKey):
		return auth.Account{}, auth.ErrNoSuchUser // compared by ==
	case err != nil:
		return auth.Account{}, err
	case secret == "" || project == "":
		return auth.Account{}, auth.ErrNoSuchUser // an empty secret is one that everybody knows
	}
	role := roleWriter
	if readOnly {
		role = roleReader
	}
	return auth.Account{Access: project, Secret: secret, Role: role}, nil
}

// ResolveAccounts returns those of the accounts that do not exist: as grants
// are not offered, all.
func (a accounts) ResolveAccounts(ids []string) ([]string, error) { return ids, nil }

// Shutdown implements auth.IAMService.
func (a accounts) Shutdown() error { return nil }

// The rest is administration, which is not offered here.

var errNoAdmin = s3err.GetAPIError(s3err.ErrAdminMethodNotSupported)

// CreateAccount implements auth.IAMService.
func (a accounts) CreateAccount(auth.Account) error { return errNoAdmin }

// UpdateUserAccount implements auth.IAMService.
func (a accounts) UpdateUserAccount(string, auth.MutableProps) error { return errNoAdmin }

// DeleteUserAccount implements auth.IAMService.
func (a accounts) DeleteUserAccount(string) error { return errNoAdmin }

// ListUserAccounts implements auth.IAMService.
func (a accounts) ListUserAccounts() ([]auth.Account, error) { return nil, errNoAdmin }
