package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/ims"
)

// PasswordCost is what it takes to try a password with argon2id. It is stored with
// each hash, so that it can be raised without making old hashes worthless.
type PasswordCost struct {
	MemoryKiB uint32 // 8 to 262144
	Passes    uint32 // 1 to 16
	Lanes     uint8  // 1 to 16
}

// DefaultPasswordCost is the setting with the least memory of those, equal in
// strength, that OWASP's password storage cheat sheet recommends for argon2id: 7 MiB,
// 5 passes, 1 lane. The whole service is to do with little memory.
var DefaultPasswordCost = PasswordCost{MemoryKiB: 7 << 10, Passes: 5, Lanes: 1}

// valid bounds what an operator, or a stored hash, may ask for.
func (c PasswordCost) valid() bool {
	return 8 <= c.MemoryKiB && c.MemoryKiB <= 256<<10 && 1 <= c.Passes && c.Passes <= 16 && 1 <= c.Lanes && c.Lanes <= 16
}

const (
	saltSize = 16 // bytes, RFC 9106, 4
	hashSize = 32 // bytes
	// maxWaitingHashes is how many logins of one address may wait for their turn.
	maxWaitingHashes = 64
)

// hasher hashes passwords, a bounded number at once.
type hasher struct {
	turns  *admit.Shares // of addresses
	random io.Reader
	cost   PasswordCost
	// dummy is what the password of an unknown user is compared with: the answer
	// takes as long as for a known one.
	dummy string
}

func newHasher(atOnce int, cost PasswordCost, random io.Reader) (*hasher, error) {
	if atOnce < 1 || atOnce > 64 {
		return nil, fmt.Errorf("%d password hashes at once: it must be 1 to 64", atOnce)
	}
	if !cost.valid() {
		return nil, fmt.Errorf("password cost of %d KiB, %d passes, %d lanes: it must be within 8 to 262144, 1 to 16, 1 to 16",
			cost.MemoryKiB, cost.Passes, cost.Lanes)
	}
	h := &hasher{turns: admit.NewShares(int64(atOnce), maxWaitingHashes), cost: cost, random: random}
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, fmt.Errorf("make a salt: %w", err)
	}
	h.dummy = encodeHash(cost, salt, make([]byte, hashSize))
	return h, nil
}

// enter waits for the turn of an address: addresses that wait are served one after the
// other, however many logins each has waiting. leave must be called if there is no error.
func (h *hasher) enter(ctx context.Context, source string) (leave func(), err error) {
	err = h.turns.Take(ctx, source, 1)
	if errors.Is(err, admit.ErrBusy) {
		return nil, ims.Faultf(ims.CodeTooManyJobs, "too many logins from this address at once, try again").WithKind(ims.KindUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("wait to check a password: %w", context.Cause(ctx))
	}
	return func() { h.turns.Give(source, 1) }, nil
}

// hash makes the stored form of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(h.random, salt); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	leave, err := h.enter(ctx, "")
	if err != nil {
		return "", err
	}
	defer leave()
	return encodeHash(h.cost, salt, h.cost.key(password, salt, hashSize)), nil
}

// matches compares a password with its stored form. An empty form matches nothing,
// and takes as long. The caller has entered.
func (h *hasher) matches(stored, password string) (bool, error) {
	known := stored != ""
	if !known {
		stored = h.dummy
	}
	cost, salt, want, err := decodeHash(stored)
	if err != nil {
		return false, err
	}
	got := cost.key(password, salt, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

func (c PasswordCost) key(password string, salt []byte, size uint32) []byte {
	return argon2.IDKey([]byte(password), salt, c.Passes, c.MemoryKiB, c.Lanes, size)
}

// encodeHash writes the form that argon2's reference implementation prints.
func encodeHash(c PasswordCost, salt, key []byte) string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.MemoryKiB, c.Passes, c.Lanes, b64(salt), b64(key))
}

func decodeHash(s string) (c PasswordCost, salt, key []byte, err error) {
	fail := func(what string) (PasswordCost, []byte, []byte, error) {
		return PasswordCost{}, nil, nil, fmt.Errorf("a stored password hash has %s", what)
	}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return fail("no known form")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.MemoryKiB, &c.Passes, &c.Lanes); err != nil {
		return fail("no known parameters")
	}
	if !c.valid() {
		return fail("parameters out of bounds")
	}
	if salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(salt) < 8 || len(salt) > 64 {
		return fail("a malformed salt")
	}
	if key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(key) < 16 || len(key) > 64 {
		return fail("a malformed key")
	}
	return c, salt, key, nil
}

func checkPassword(password string) error {
	if len(password) < minPassword || len(password) > maxPassword {
		return fmt.Errorf("%w: a password must have %d to %d bytes", ErrInvalid, minPassword, maxPassword)
	}
	return nil
}
