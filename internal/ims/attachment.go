package ims

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"time"
)

// Attachment is the right to read an image's disk as a block device for some time.
// Who holds its token may; the token itself is kept nowhere.
type Attachment struct {
	ID        string // UUID
	ProjectID string // of who attached
	ImageID   string
	ImageName string // as it is now
	UserID    string // who attached
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Limits of an attachment's time.
const (
	MinAttachTime     = time.Minute
	MaxAttachTime     = 30 * 24 * time.Hour
	DefaultAttachTime = 24 * time.Hour
)

// DefaultAttachments is how many attachments a project may have at once where nobody
// says otherwise.
const DefaultAttachments = 1000

// AttachTime gives the time that an attachment lasts from the seconds that were asked
// for; nil asks for the default. What is out of range is an *Error that names
// ttl_seconds.
func AttachTime(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return DefaultAttachTime, nil
	}
	// Compared as seconds: as nanoseconds the number may not fit.
	n, least, most := *seconds, int64(MinAttachTime/time.Second), int64(MaxAttachTime/time.Second)
	if n < least || n > most {
		return 0, Faultf(CodeBadFormat, "ttl_seconds is %d, it must be %d to %d", n, least, most)
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
