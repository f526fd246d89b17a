package s3face

import "github.com/versity/versitygw/auth"

// WithoutXattr returns the configuration for a file system without extended
// attributes.
func WithoutXattr(c Config) Config {
	c.noXattr = true
	return c
}

// CarriesObject is what the front takes for an upload.
var CarriesObject = carriesObject

// AccountOf is the account that the library sees for a key.
func AccountOf(a Accounts, key string) (auth.Account, error) { return accounts{a}.GetUserAccount(key) }
