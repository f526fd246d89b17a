package client

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// Secret is a credential's secret part. It prints as asterisks; convert it to a
// string where it is used.
type Secret string

const masked = "******"

// String hides the secret.
func (s Secret) String() string { return masked }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return masked }

// MarshalText hides the secret from JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// Config says where the service is and as whom to call it.
type Config struct {
	Endpoint   string // of the API, such as http://127.0.0.1:9292
	S3Endpoint string // of the object store, "" when there is none
	AccessKey  string
	SecretKey  Secret
	ProjectID  string
	Region     string
	// Token, when set, goes with API requests instead of a signature. S3 knows no
	// tokens: uploads take the keys.
	Token Secret
	// Login is a user who may log in; without keys and token of no use to New.
	Login Login
	// Authorities are the certificate authorities to trust; nil: the system's.
	Authorities *x509.CertPool
}

// The variables that a Config is read from, in the environment and in a
// credentials file alike.
const (
	EnvEndpoint   = "QUICKIMS_ENDPOINT"
	EnvS3Endpoint = "QUICKIMS_S3_ENDPOINT"
	EnvAccessKey  = "QUICKIMS_ACCESS_KEY"
	EnvSecretKey  = "QUICKIMS_SECRET_KEY"
	EnvProjectID  = "QUICKIMS_PROJECT_ID"
	EnvRegion     = "QUICKIMS_REGION"
	EnvToken      = "QUICKIMS_TOKEN"
)

// FromEnv reads a Config from variables; get answers "" for an unset one.
func FromEnv(get func(string) string) Config {
	return Config{
		Endpoint:   get(EnvEndpoint),
		S3Endpoint: get(EnvS3Endpoint),
		AccessKey:  get(EnvAccessKey),
		SecretKey:  Secret(get(EnvSecretKey)),
		ProjectID:  get(EnvProjectID),
		Region:     get(EnvRegion),
		Token:      Secret(get(EnvToken)),
		Login: Login{
			User: get(EnvUser), Password: Secret(get(EnvPassword)), DomainID: get(EnvDomainID), DomainName: get(EnvDomainName),
		},
	}
}

// Limits of a credentials file: what the server writes has a dozen short lines.
const (
	maxCredentialsFile = 64 << 10
	maxCredentialsLine = 8 << 10
)

// ReadCredentials reads a credentials file, as the server writes it into its data
// folder: KEY=VALUE lines, values quoted as a shell would where they need it. Keys
// that are not known are left alone.
func ReadCredentials(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the credentials: %w", err)
	}
	defer f.Close()
	vars, err := parseVars(io.LimitReader(f, maxCredentialsFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("read the credentials %s: %w", path, err)
	}
	return FromEnv(func(key string) string { return vars[key] }), nil
}

func parseVars(r io.Reader) (map[string]string, error) {
	vars := map[string]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxCredentialsLine)
	total := 0
	for n := 1; lines.Scan(); n++ {
		if total += len(lines.Bytes()) + 1; total > maxCredentialsFile {
			return nil, fmt.Errorf("the file is longer than %d bytes", maxCredentialsFile)
		}
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, quoted, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if key = strings.TrimSpace(key); !ok || !variable.MatchString(key) {
			return nil, fmt.Errorf("line %d is not of the form KEY=VALUE", n)
		}
		value, err := unquote(strings.TrimSpace(quoted))
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n, key, err)
		}
		vars[key] = value
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("a line is longer than %d bytes", maxCredentialsLine)
	}
	return vars, lines.Err()
}

// variable is a name that a shell takes, of any length that makes sense. What is no
// credentials file is not printed: it may be anything.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

// unquote takes a shell word apart: 'single', "double" and \ outside of quotes.
// Nothing is expanded.
func unquote(word string) (string, error) {
	var out strings.Builder
	quote := byte(0)
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case c == '\\' && quote != '\'':
			if i++; i == len(word) {
				return "", errors.New("the value ends in a backslash")
			}
			// Inside double quotes a backslash is itself before most characters.
			if quote == '"' && !strings.ContainsRune("\"\\$`", rune(word[i])) {
				out.WriteByte('\\')
			}
			out.WriteByte(word[i])
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == ' ' || c == '\t'):
			if rest := strings.TrimSpace(word[i:]); rest[0] != '#' {
				return "", errors.New("the value holds a space outside of quotes")
			}
			return out.String(), nil
		default:
			out.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", fmt.Errorf("a quote %c is not closed", quote)
	}
	return out.String(), nil
}

// parseEndpoint checks the form of a service's address; name is the variable that
// it came from.
func parseEndpoint(name, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s is %q, it must be of the form http://HOST:PORT or https://HOST:PORT", name, text)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%s is %q, it must name scheme, host and port alone", name, u.Redacted())
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}
