package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/ims"
)

// serverFlags are those of every command that calls a service.
type serverFlags struct {
	Credentials string `placeholder:"FILE" help:"Read endpoint and keys from FILE, such as the server's DIR/credentials.env. Default: the file that QUICKIMS_CREDENTIALS names, else QUICKIMS_ENDPOINT, QUICKIMS_S3_ENDPOINT, QUICKIMS_ACCESS_KEY, QUICKIMS_SECRET_KEY, QUICKIMS_PROJECT_ID, QUICKIMS_REGION (or QUICKIMS_TOKEN) of the environment."`
	CAFile      string `name:"ca-file" placeholder:"FILE" help:"Trust the certificate authorities in FILE (PEM) besides the system's. Default: the file that QUICKIMS_CA_FILE names."`
}

// envCAFile names the file for all commands.
const envCAFile = "QUICKIMS_CA_FILE"

// authorities are those to trust; nil: the system's alone.
func (f serverFlags) authorities(s *session) (*x509.CertPool, error) {
	path := cmp.Or(f.CAFile, s.Getenv(envCAFile))
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("read the certificates of %s: %v", path, plain(err))
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without any
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, usagef("read the certificates of %s: there is none in PEM form (-----BEGIN CERTIFICATE-----)", path)
	}
	return pool, nil
}

// distrusted reports whether err is a certificate that was not accepted.
func distrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.HostnameError](err)
	return ok
}

// certificateHint says what to do about a certificate that was not accepted.
const certificateHint = "the certificate of the service is not trusted: name the certificate of its authority with --ca-file FILE or " + envCAFile +
	", and call the service by a name that its certificate has"

// envCredentials names a credentials file for all commands.
const envCredentials = "QUICKIMS_CREDENTIALS"

// config is the service to call. A file that was named counts, not the environment.
func (f serverFlags) config(s *session) (client.Config, error) {
	authorities, err := f.authorities(s)
	if err != nil {
		return client.Config{}, err
	}
	config := client.FromEnv(s.Getenv)
	if path := cmp.Or(f.Credentials, s.Getenv(envCredentials)); path != "" {
		if config, err = client.ReadCredentials(path); err != nil {
			return config, err
		}
	}
	config.Authorities = authorities
	return config, nil
}

// connect makes the client of the API.
func (f serverFlags) connect(s *session) (*client.Client, error) {
	config, err := f.config(s)
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{UserAgent: "quickims/" + s.version().Version})
}

// connectTo makes the client of the API and finds the image that ref means.
func (f serverFlags) connectTo(ctx context.Context, s *session, ref string) (service *client.Client, id string, err error) {
	if service, err = f.connect(s); err == nil {
		id, err = s.imageID(ctx, service, ref)
	}
	return service, id, err
}

// store makes the client of the object store.
func (f serverFlags) store(s *session) (*client.Store, error) {
	config, err := f.config(s)
	if err != nil {
		return nil, err
	}
	return client.NewStore(config)
}

// imageID finds the image that ref means: its id, or its name if no other image of
// the project has the same.
func (s *session) imageID(ctx context.Context, service *client.Client, ref string) (string, error) {
	if ims.ValidUUID(ref) {
		return ref, nil
	}
	images, err := service.Images(ctx, url.Values{"name": {ref}}, 0)
	if err != nil {
		return "", fmt.Errorf("find image %q: %w", ref, interrupted(ctx, err))
	}
	switch len(images) {
	case 0:
		if id, err := s.idThatBegins(ctx, service, ref); err != nil || id != "" {
			return id, err
		}
		return "", &kindError{fs.ErrNotExist, fmt.Sprintf("no image has the id or name %q; \"quickims image list\" shows them", ref)}
	case 1:
		return images[0].ID, nil
	}
	ids := make([]string, len(images))
	for i, img := range images {
		ids[i] = img.ID
	}
	return "", fmt.Errorf("%d images have the name %q, say which by its id: %s", len(images), ref, strings.Join(ids, " "))
}

// beginsID reports whether text may be the beginning of an id that a table shows.
func beginsID(text string) bool {
	return len(text) >= idLetters && strings.Trim(text, "0123456789abcdef-") == ""
}

// idThatBegins finds the image whose id begins with ref, as lists show ids on a terminal;
// "": ref is no such beginning, or none has it.
func (s *session) idThatBegins(ctx context.Context, service *client.Client, ref string) (string, error) {
	if !beginsID(ref) {
		return "", nil
	}
	images, err := service.Images(ctx, nil, 0)
	if err != nil {
		return "", fmt.Errorf("find image %q: %w", ref, interrupted(ctx, err))
	}
	var ids []string
	for _, img := range images {
		if strings.HasPrefix(img.ID, ref) {
			ids = append(ids, img.ID)
		}
	}
	switch len(ids) {
	case 0:
		return "", nil
	case 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("the ids of %d images begin with %s, say which: %s", len(ids), ref, strings.Join(ids, " "))
}

// objectName is bucket:key.
type objectName struct{ bucket, key string }

func (o objectName) String() string { return o.bucket + ":" + o.key }

// parseObject reads bucket:key by the service's rules.
func parseObject(text string) (objectName, error) {
	bucket, key, err := ims.ParseImageURL(text)
	if err != nil {
		detail := err.Error()
		if e, ok := errors.AsType[*ims.Error](err); ok {
			detail = strings.ReplaceAll(e.Detail, "image_url", "the name") // as the service's field is called
		}
		return objectName{}, usagef("%s is no name of an object: %s", text, detail)
	}
	return objectName{bucket, key}, nil
}
