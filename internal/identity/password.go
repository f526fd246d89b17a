package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"github.com/quickims/quickims/internal/ims"
)

// argonParams are argon2id's cost. They are stored with each hash, so that they can
// be raised without making old hashes worthless.
type argonParams struct {
	memory  uint32 // KiB
	time    uint32 // passes
	threads uint8
}

// defaultArgon is the first of OWASP's recommended settings for argon2id that needs
// less than 32 MiB: 19 MiB, 2 passes, 1 lane.
var defaultArgon = argonParams{memory: 19 << 10, time: 2, threads: 1}

// maxArgon bounds what a stored hash may ask for.
var maxArgon = argonParams{memory: 256 << 10, time: 16, threads: 16}

const (
	saltSize = 16 // bytes, RFC 9106, 4
	hashSize = 32 // bytes
	// maxWaitingHashes is how many logins may wait for their turn.
	maxWaitingHashes = 64
)

// hasher hashes passwords, a bounded number at once.
type hasher struct {
	slots   chan struct{}
	waiting atomic.Int64
	random  io.Reader
	// dummy is what the password of an unknown user is compared with: the answer
	// takes as long as for a known one.
	dummy string
}

func newHasher(atOnce int, random io.Reader) (*hasher, error) {
	if atOnce < 1 || atOnce > 64 {
		return nil, fmt.Errorf("%d password hashes at once: it must be 1 to 64", atOnce)
	}
	h := &hasher{slots: make(chan struct{}, atOnce), random: random}
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, fmt.Errorf("make a salt: %w", err)
	}
	h.dummy = encodeHash(defaultArgon, salt, make([]byte, hashSize))
	return h, nil
}

// enter waits for a turn. leave must be called if there is no error.
func (h *hasher) enter(ctx context.Context) (leave func(), err error) {
	if h.waiting.Add(1) > maxWaitingHashes {
		h.waiting.Add(-1)
		return nil, &ims.Error{Code: ims.CodeTooManyJobs, HTTPStatus: http.StatusServiceUnavailable,
			Detail: "too many logins at once, try again"}
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to check a password: %w", context.Cause(ctx))
	}
}

// hash makes the stored form of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(h.random, salt); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	return encodeHash(defaultArgon, salt, defaultArgon.key(password, salt, hashSize)), nil
}

// matches compares a password with its stored form. An empty form matches nothing,
// and takes as long.
func (h *hasher) matches(ctx context.Context, stored, password string) (bool, error) {
	known := stored != ""
	if !known {
		stored = h.dummy
	}
	params, salt, want, err := decodeHash(stored)
	if err != nil {
		return false, err
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	got := params.key(password, salt, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

func (p argonParams) key(password string, salt []byte, size uint32) []byte {
	return argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, size)
}

// encodeHash writes the form that argon2's reference implementation prints.
func encodeHash(p argonParams, salt, key []byte) string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.threads, b64(salt), b64(key))
}

func decodeHash(s string) (p argonParams, salt, key []byte, err error) {
	fail := func(what string) (argonParams, []byte, []byte, error) {
		return argonParams{}, nil, nil, fmt.Errorf("a stored password hash has %s", what)
	}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return fail("no known form")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return fail("no known parameters")
	}
	if p.memory < 8 || p.memory > maxArgon.memory || p.time < 1 || p.time > maxArgon.time || p.threads < 1 || p.threads > maxArgon.threads {
		return fail("parameters out of bounds")
	}
	if salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(salt) < 8 || len(salt) > 64 {
		return fail("a malformed salt")
	}
	if key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(key) < 16 || len(key) > 64 {
		return fail("a malformed key")
	}
	return p, salt, key, nil
}

func checkPassword(password string) error {
	if len(password) < minPassword || len(password) > maxPassword {
		return fmt.Errorf("%w: a password must have %d to %d bytes", ErrInvalid, minPassword, maxPassword)
	}
	return nil
}
