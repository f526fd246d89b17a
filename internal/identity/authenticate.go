package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/internal/ims"
)

// The headers of a request that say who calls and for what.
const (
	headerToken   = "X-Auth-Token"
	headerProject = "X-Project-Id"
	headerDomain  = "X-Domain-Id"

	maxIDHeader = 256 // bytes of the headers with an id
)

// Authenticate tells who sent a request: by the token in X-Auth-Token or, without
// one, by a signature with an access key over the request and its whole body. Body
// reads that body (nil: there is none); Authenticate calls it for a signature alone, once
// the headers are in order, and returns its error. The request must be as it arrived.
// Every other refusal is an *ims.Error with code ims.CodeToken; any other error means that
// nobody can be authenticated just now.
//
// A token has its scope from when it was issued. A signed request acts in the access
// key's own project. Another one, in which the key's user has a role, must be named by an
// X-Project-Id that is among the signed headers: whoever relays a request could put any
// into one that is not. Unsigned, as some SDKs send it, the header may name the key's own
// project alone.
func (s *Service) Authenticate(ctx context.Context, r *http.Request, body func() ([]byte, error)) (ims.Principal, error) {
	token, err := oneHeader(r, headerToken, maxTokenLength)
	if err != nil {
		return ims.Principal{}, err
	}
	if token != "" {
		t, err := s.token(ctx, admit.Network(admit.Caller(r)), token)
		if err != nil {
			return ims.Principal{}, fmt.Errorf("authenticate by token: %w", err)
		}
		return t.Principal, nil
	}
	if len(r.Header.Values("Authorization")) == 0 {
		return ims.Principal{}, unauthorized("the request has no credential: send %s, or sign it with %s", headerToken, signature.Algorithm)
	}
	p, err := s.authenticateSigned(ctx, r, body)
	if err != nil {
		return ims.Principal{}, fmt.Errorf("authenticate by signature: %w", err)
	}
	return p, nil
}

func (s *Service) authenticateSigned(ctx context.Context, r *http.Request, body func() ([]byte, error)) (ims.Principal, error) {
	now := s.opts.Clock()
	if _, err := signature.Check(r, now); err != nil {
		return ims.Principal{}, unauthorized("%s", err.Error())
	}
	var content []byte
	if body != nil {
		var err error
		if content, err = body(); err != nil {
			return ims.Principal{}, fmt.Errorf("read the body: %w", err)
		}
	}
	claim, err := signature.Read(r, content, now)
	if err != nil {
		return ims.Principal{}, unauthorized("%s", err.Error())
	}
	// Nothing is looked up for a request that is refused anyway.
	wantProject, err := oneHeader(r, headerProject, maxIDHeader)
	if err != nil {
		return ims.Principal{}, err
	}
	wantDomain, err := oneHeader(r, headerDomain, maxIDHeader)
	if err != nil {
		return ims.Principal{}, err
	}
	key, err := s.accessKey(ctx, claim.AccessKey())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return ims.Principal{}, fmt.Errorf("look up an access key: %w", err)
	}
	// An unknown key is tried with a secret that nobody has, so that neither the
	// answer nor its time tells an unknown key from a wrong signature.
	secret := s.nobody(claim.AccessKey())
	if known := err == nil; known {
		if secret, err = s.seal.open(claim.AccessKey(), key.sealed); err != nil {
			return ims.Principal{}, err
		}
	} else {
		key.user.enabled = 0
	}
	if !claim.Proves(secret) || !key.user.isEnabled() {
		return ims.Principal{}, unauthorized("the access key or the signature is wrong: check the secret key, " +
			"and that method, path, query, signed headers and body arrive as they were signed")
	}
	if wantDomain != "" && wantDomain != key.user.domainID {
		return ims.Principal{}, unauthorized("%s names no domain that the access key may use", headerDomain)
	}
	project, name := key.project, "the access key's own project"
	if wantProject != "" {
		project, name = wantProject, headerProject
	}
	if project != key.project && !claim.Signs(strings.ToLower(headerProject)) {
		return ims.Principal{}, unauthorized("%s names another project than the access key's own and is not among the signed headers; "+
			"sign it, or use an access key of that project", headerProject)
	}
	at, err := s.projectScope(ctx, s.db, key.user.id, project)
	if ims.CodeOf(err) == ims.CodeToken {
		return ims.Principal{}, unauthorized("%s is no project in which the access key's user has a role", name)
	}
	if err != nil {
		return ims.Principal{}, fmt.Errorf("look up a project: %w", err)
	}
	p, err := s.principal(ctx, s.db, key.user, at)
	if err != nil {
		return ims.Principal{}, fmt.Errorf("look up a domain: %w", err)
	}
	p.Credential.AccessKey = claim.AccessKey()
	return p, nil
}

// nobody makes a secret from an access key that exists nowhere. It costs about what
// opening a sealed one does.
func (s *Service) nobody(accessKey string) string {
	sum := sha256.Sum256([]byte(s.hasher.dummy + accessKey))
	return hex.EncodeToString(sum[:])
}

// oneHeader gives a header that may occur at most once, with at most limit bytes.
func oneHeader(r *http.Request, name string, limit int) (string, error) {
	values := r.Header.Values(name)
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		if len(values[0]) > limit {
			return "", unauthorized("%s is longer than %d bytes", name, limit)
		}
		return values[0], nil
	}
	return "", unauthorized("the request has %d %s headers, it may have one", len(values), name)
}
