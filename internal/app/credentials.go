package app

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

const (
	credentialsFile    = "credentials.env"
	endpointVariable   = "QUICKIMS_ENDPOINT"
	s3EndpointVariable = "QUICKIMS_S3_ENDPOINT"
	// installationVariable ties credentials.env to a database. It is never taken from
	// the environment.
	installationVariable = "QUICKIMS_INSTALLATION_ID"
	sealFile             = "seal.key"
)

// The size of the sealing key, and of a seal.key that also names its installation.
const (
	sealSize  = 32
	boundSize = sealSize + 1 + 36 + 1
)

// Seed is what the first start makes its domain, project, user and key of. Empty
// fields are made up.
type Seed struct {
	DomainID, DomainName, ProjectID, User string
	Password                              Secret
	AccessKey                             string
	SecretKey                             Secret
	Region                                string
}

// Variable is an environment variable and the place of its value.
type Variable struct {
	Name  string
	Value *string
}

// Variables are those of credentials.env, in the order in which they are written.
func (s *Seed) Variables() []Variable {
	return []Variable{
		{"QUICKIMS_DOMAIN_ID", &s.DomainID}, {"QUICKIMS_DOMAIN_NAME", &s.DomainName}, {"QUICKIMS_PROJECT_ID", &s.ProjectID}, {"QUICKIMS_USER", &s.User},
		{"QUICKIMS_PASSWORD", (*string)(&s.Password)}, {"QUICKIMS_ACCESS_KEY", &s.AccessKey},
		{"QUICKIMS_SECRET_KEY", (*string)(&s.SecretKey)}, {"QUICKIMS_REGION", &s.Region},
	}
}

// SeedFrom reads the variables of the first start.
func SeedFrom(getenv func(string) string) Seed {
	var s Seed
	for _, v := range s.Variables() {
		*v.Value = getenv(v.Name)
	}
	return s
}

// makeUp fills in what is not set, for the first start. region is that of the store,
// "" if it has none.
func (s *Seed) makeUp(region string) error {
	for _, v := range s.Variables() {
		if strings.ContainsAny(*v.Value, "'\"\n\r\\$`") || strings.TrimSpace(*v.Value) != *v.Value {
			return fmt.Errorf("%s: quotes, backslashes, dollar signs, line breaks and outer spaces are not possible in credentials.env", v.Name)
		}
	}
	for _, id := range []*string{&s.DomainID, &s.ProjectID} {
		if *id == "" {
			*id = hex.EncodeToString(randomBytes(16))
		}
	}
	if s.User == "" {
		s.User = "admin"
	}
	if s.Password == "" {
		s.Password = Secret(randomText(24))
	}
	if s.AccessKey == "" {
		s.AccessKey = randomText(20)
	}
	if s.SecretKey == "" {
		s.SecretKey = Secret(randomText(40))
	}
	s.DomainName = cmp.Or(s.DomainName, "default")
	s.Region = cmp.Or(s.Region, region, "local")
	return nil
}

// resume makes the seed of a later start: domain, project and region as the database has them,
// user and secrets as the first start wrote them. lost says that they are not there
// any more, which the service can do without.
func resume(dir string, setup identity.Setup) (s Seed, lost bool, err error) {
	path := filepath.Join(dir, credentialsFile)
	earlier, err := readCredentials(path)
	if err != nil {
		return s, false, err
	}
	for _, v := range s.Variables() {
		*v.Value = earlier[v.Name]
	}
	for _, id := range []struct{ name, have, want string }{
		{"QUICKIMS_DOMAIN_ID", s.DomainID, setup.DomainID}, {"QUICKIMS_PROJECT_ID", s.ProjectID, setup.ProjectID},
	} {
		if id.have != "" && id.have != id.want {
			return s, false, fmt.Errorf("%s: %s is %s, the database was made with %s: the file is of another service; remove it, or restore the right one", path, id.name, id.have, id.want)
		}
	}
	s.DomainID, s.DomainName, s.ProjectID, s.Region = setup.DomainID, setup.DomainName, setup.ProjectID, setup.Region
	return s, s.AccessKey == "" || s.SecretKey == "", nil
}

func (s Seed) identity() identity.Seed {
	return identity.Seed{
		DomainID: s.DomainID, DomainName: s.DomainName, ProjectID: s.ProjectID, ProjectName: s.Region, Region: s.Region,
		User: s.User, Password: string(s.Password), AccessKey: s.AccessKey, SecretKey: string(s.SecretKey),
	}
}

// write stores the credentials, whose they are and where the service listens, readable
// by the owner alone, in one step.
func (s Seed) write(dir, installation, endpoint, s3 string) error {
	var b strings.Builder
	b.WriteString("# Written by quickims serve. Keep it secret.\n")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s='%s'\n", name, value)
		}
	}
	for _, v := range s.Variables() {
		line(v.Name, *v.Value)
	}
	line(installationVariable, installation)
	line(endpointVariable, endpoint)
	line(s3EndpointVariable, s3)
	return writeSecret(filepath.Join(dir, credentialsFile), []byte(b.String()))
}

func readCredentials(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the credentials: %w", err)
	}
	defer f.Close()
	out := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		out[strings.TrimPrefix(name, "export ")] = strings.Trim(value, `'"`)
	}
	return out, lines.Err()
}

// sealKey is the key that secret keys are sealed with in the database. It is made on
// the first start alone, for the installation: the stored keys depend on it.
func sealKey(dir, installation string, first bool) ([]byte, error) {
	key, _, err := readSeal(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if first {
			key = randomBytes(sealSize)
			return key, writeSeal(dir, key, installation)
		}
		return nil, fmt.Errorf("%s is missing: the secret keys in the database are sealed with it; restore it from your backup, or copy it from the first machine; if it is lost for good, run quickims account reseal", filepath.Join(dir, sealFile))
	}
	return key, err
}

// sealFault says what to do about a seal.key that is not the database's.
func sealFault(dir string, err error) error {
	if !errors.Is(err, identity.ErrSealKey) {
		return err
	}
	return fmt.Errorf("%s: %w; restore the right one from your backup; if it is lost for good, run quickims account reseal", filepath.Join(dir, sealFile), err)
}

// readSeal reads seal.key: the key and the installation that it was made for, which is
// empty in a file of an earlier version.
func readSeal(dir string) (key []byte, installation string, err error) {
	path := filepath.Join(dir, sealFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", fmt.Errorf("read the sealing key: %w", err)
	}
	switch {
	case len(data) == sealSize:
		return data, "", nil
	case len(data) == boundSize && data[sealSize] == '\n' && data[boundSize-1] == '\n' && ims.ValidUUID(string(data[sealSize+1:boundSize-1])):
		return data[:sealSize:sealSize], string(data[sealSize+1 : boundSize-1]), nil
	}
	return nil, "", fmt.Errorf("%s has %d bytes, it must have %d, or %d with the id of its installation; restore it from your backup, the stored secret keys depend on it; if it is lost for good, run quickims account reseal",
		path, len(data), sealSize, boundSize)
}

func writeSeal(dir string, key []byte, installation string) error {
	return writeSecret(filepath.Join(dir, sealFile), fmt.Appendf(nil, "%s\n%s\n", key, installation))
}

// bindSeal notes in a seal.key of an earlier version whose it is. The caller has checked
// that the database's keys are sealed with it.
func bindSeal(dir, installation string) error {
	key, bound, err := readSeal(dir)
	if err != nil || bound != "" {
		return err
	}
	return writeSeal(dir, key, installation)
}

// writeSecret writes a file of mode 0600 in one step, durably.
func writeSecret(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// randomText is n characters of base32, 5 random bits each.
func randomText(n int) string {
	return base32.StdEncoding.EncodeToString(randomBytes(n))[:n]
}
