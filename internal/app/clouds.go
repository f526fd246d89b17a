package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Files for OpenStack's clients, beside credentials.env.
const (
	cloudsFile = "clouds.yaml"
	openrcFile = "openrc"
	// cloudName is what OS_CLOUD names.
	cloudName = "quickims"
)

// writeClouds writes the first user's credentials as OpenStack's clients read them,
// readable by the owner alone. Without a password there is nothing to write. The values
// hold no quotes (see makeUp).
func (s Seed) writeClouds(dir, endpoint string) error {
	if s.Password == "" {
		return nil
	}
	endpoint = reachable(endpoint)
	// By id: a user may name the domain, and the project is named after the region.
	yaml := fmt.Sprintf(`# Written by quickims serve. Keep it secret.
clouds:
  %s:
    auth:
      auth_url: '%s/v3'
      username: '%s'
      password: '%s'
      user_domain_id: '%s'
      project_id: '%s'
    region_name: '%s'
    identity_api_version: 3
`, cloudName, endpoint, s.User, string(s.Password), s.DomainID, s.ProjectID, s.Region)
	if err := writeSecret(filepath.Join(dir, cloudsFile), []byte(yaml)); err != nil {
		return err
	}
	var rc strings.Builder
	rc.WriteString("# Written by quickims serve. Keep it secret.\n")
	for _, v := range [][2]string{
		{"OS_AUTH_URL", endpoint + "/v3"}, {"OS_IDENTITY_API_VERSION", "3"}, {"OS_USERNAME", s.User}, {"OS_PASSWORD", string(s.Password)},
		{"OS_USER_DOMAIN_ID", s.DomainID}, {"OS_PROJECT_ID", s.ProjectID}, {"OS_REGION_NAME", s.Region},
	} {
		fmt.Fprintf(&rc, "export %s='%s'\n", v[0], v[1])
	}
	return writeSecret(filepath.Join(dir, openrcFile), []byte(rc.String()))
}

// removeClouds removes what writeClouds wrote: nobody can log in with it.
func removeClouds(dir string) error {
	for _, name := range []string{cloudsFile, openrcFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// reachable is an address with a host that a client of this machine reaches where it is
// one for all addresses.
func reachable(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	}
	return u.String()
}
