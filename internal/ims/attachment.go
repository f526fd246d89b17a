package ims

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"time"
)

// Attachment is the right to read an image's disk as a block device. Who holds its token
// may; the token itself is kept nowhere. It ends when nobody was connected for its TTL,
// at its EndsAt, or when it is ended.
type Attachment struct {
	ID        string // UUID
	ProjectID string // of who attached
	ImageID   string
	ImageName string // as it is now
	UserID    string // who attached
	CreatedAt time.Time
	TTL       time.Duration // without a connection; 0: that ends it never
	// ExpiresAt is when it ends if nobody connects. While somebody is connected it moves
	// on. Zero: never.
	ExpiresAt time.Time
	EndsAt    time.Time // when it ends though somebody is connected; zero: never

	// Who is connected, in all processes, as of some seconds ago.
	Connections int
	Addresses   []string // of the connections, not of all when there are many

	BytesRead  int64
	LastReadAt time.Time // zero: never
}

// MaxAge is how old the attachment may become, 0 for any age.
func (a Attachment) MaxAge() time.Duration {
	if a.EndsAt.IsZero() {
		return 0
	}
	return a.EndsAt.Sub(a.CreatedAt)
}

// Limits of an attachment's time.
const (
	MinAttachTime     = time.Minute
	MaxAttachTime     = 30 * 24 * time.Hour
	DefaultAttachTime = 24 * time.Hour
	MaxAttachAge      = 3650 * 24 * time.Hour
)

// DefaultAttachments is how many attachments a project may have at once where nobody
// says otherwise.
const DefaultAttachments = 1000

// AttachTime gives the time that an attachment lasts without a connection from the
// seconds that were asked for; nil asks for the default, 0 for no end. What is out of
// range is an *Error that names ttl_seconds.
func AttachTime(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return DefaultAttachTime, nil
	}
	return attachSeconds("ttl_seconds", *seconds, MaxAttachTime, "which lasts until it is detached")
}

// AttachAge is AttachTime for the age at which an attachment ends though it is in use, in
// max_age_seconds; nil and 0 ask for none.
func AttachAge(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return 0, nil
	}
	return attachSeconds("max_age_seconds", *seconds, MaxAttachAge, "which is any age")
}

func attachSeconds(field string, n int64, longest time.Duration, zero string) (time.Duration, error) {
	// Compared as seconds: as nanoseconds the number may not fit.
	least, most := int64(MinAttachTime/time.Second), int64(longest/time.Second)
	if n != 0 && (n < least || n > most) {
		return 0, Faultf(CodeBadFormat, "%s is %d, it must be %d to %d, or 0, %s", field, n, least, most, zero)
	}
	return time.Duration(n) * time.Second, nil
}

// AttachTokenLength is the length of a token in characters.
const AttachTokenLength = 32

var tokenAlphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewAttachToken makes a token of 160 random bits: AttachTokenLength characters, small
// letters and digits, that need no escaping in a URI or a shell.
func NewAttachToken() string {
	var b [20]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return tokenAlphabet.EncodeToString(b[:])
}

// HashAttachToken is what is kept of a token and what it is found by: the hex SHA-256.
// A token is random and long enough that nobody can guess one from its hash.
func HashAttachToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// NewAttachmentID makes a random attachment id.
func NewAttachmentID() string { return NewImageID() }
