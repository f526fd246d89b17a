// Package signature is the SDK-HMAC-SHA256 request signature of Huawei Cloud and
// Open Telekom Cloud: reading one from a request, proving it with a secret key,
// and making one. It does no I/O and knows no users.
//
// Terms:
//
//   - A claim is what a request's headers say: this access key signed me, at this
//     time, over these headers. It is nothing until the access key's secret proves it.
//   - The canonical request is the text whose hash is signed.
//   - The access-key form names `Access=`; its key is the secret itself.
//   - The credential form names `Credential=` with a scope (date, region, service);
//     its key is derived from the secret along the scope.
//
// Both forms are in use by public clients and differ in small things: the order of
// query keys, white space in header values, and a POST without a body, whose query
// the credential form signs in the place of the body.
package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Names and forms that the signature's published description fixes.
const (
	// Algorithm begins the Authorization header.
	Algorithm = "SDK-HMAC-SHA256"
	// DateHeader carries the time of signing in DateLayout, UTC.
	DateHeader = "X-Sdk-Date"
	// DateLayout is the form of DateHeader.
	DateLayout = "20060102T150405Z"
	// PayloadHeader carries the hash that stands for the body when it is sent.
	PayloadHeader = "X-Sdk-Content-Sha256"
	// UnsignedPayload in PayloadHeader leaves the body out of the signature.
	UnsignedPayload = "UNSIGNED-PAYLOAD"

	scopeLayout = "20060102"
	terminator  = "sdk_request"
)

// MaxSkew is how far X-Sdk-Date may lie from the server's time, in either direction.
const MaxSkew = 15 * time.Minute

// What a stranger's headers may claim at most. Clients sign up to a dozen headers.
const (
	maxAuthorization = 8 << 10  // bytes of the Authorization header
	maxSignedHeaders = 64       // names in SignedHeaders
	maxHeaderBytes   = 64 << 10 // bytes of the signed headers' values together
	maxQuery         = 64 << 10 // bytes of the query
	maxPath          = 16 << 10 // bytes of the path
	maxAccessKey     = 128      // bytes of an access key
)

// Fault says what is wrong with a claim. Its text holds no secret and may be shown
// to whoever sent the request.
type Fault struct{ text string }

func (f *Fault) Error() string { return f.text }

func faultf(format string, args ...any) error { return &Fault{fmt.Sprintf(format, args...)} }

// authorization is the parsed Authorization header.
type authorization struct {
	accessKey string
	scope     string   // of the credential form, "" in the access-key form
	headers   []string // lower case, in the order signed
	signature [sha256.Size]byte
}

// parseAuthorization reads the header's value in either form.
func parseAuthorization(value string) (authorization, error) {
	var a authorization
	if len(value) > maxAuthorization {
		return a, faultf("the Authorization header is longer than %d bytes", maxAuthorization)
	}
	algorithm, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
	if algorithm != Algorithm {
		return a, faultf("the Authorization header must begin with %s", Algorithm)
	}
	var access, credential, headers, signature string
	fields := map[string]*string{
		"Access": &access, "Credential": &credential, "SignedHeaders": &headers, "Signature": &signature,
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, v, ok := strings.Cut(strings.TrimSpace(part), "=")
		field := fields[name]
		if !ok || field == nil {
			return a, faultf("the Authorization header may hold Access or Credential, SignedHeaders and Signature only")
		}
		if *field != "" {
			return a, faultf("the Authorization header names %s twice", name)
		}
		if *field = v; v == "" {
			return a, faultf("%s in the Authorization header is empty", name)
		}
	}
	if (access == "") == (credential == "") || headers == "" || signature == "" {
		return a, faultf("the Authorization header needs Access or Credential, SignedHeaders and Signature")
	}
	if n, err := hex.Decode(a.signature[:], []byte(signature[:min(len(signature), 2*sha256.Size)])); err != nil ||
		n != sha256.Size || len(signature) != 2*sha256.Size {
		return a, faultf("Signature must be %d hex digits", 2*sha256.Size)
	}
	if credential != "" {
		var ok bool
		if access, a.scope, ok = strings.Cut(credential, "/"); !ok {
			return a, faultf("Credential must be <access key>/<yyyymmdd>/<region>/<service>/%s", terminator)
		}
		if parts := strings.Split(a.scope, "/"); len(parts) != 4 || parts[3] != terminator {
			return a, faultf("Credential must be <access key>/<yyyymmdd>/<region>/<service>/%s", terminator)
		}
	}
	if !ValidAccessKey(access) {
		return a, faultf("the access key must be 1 to %d letters, digits, '-', '_' or '.'", maxAccessKey)
	}
	a.accessKey = access
	if strings.Count(headers, ";") >= maxSignedHeaders {
		return a, faultf("SignedHeaders may name at most %d headers", maxSignedHeaders)
	}
	a.headers = strings.Split(headers, ";")
	seen := make(map[string]bool, len(a.headers))
	for _, name := range a.headers {
		if !validHeaderName(name) {
			return a, faultf("SignedHeaders must be header names in lower case with ';' between them")
		}
		if seen[name] {
			return a, faultf("SignedHeaders names %s twice", name)
		}
		seen[name] = true
	}
	if !seen[strings.ToLower(DateHeader)] {
		return a, faultf("SignedHeaders must name %s", strings.ToLower(DateHeader))
	}
	return a, nil
}

// ValidAccessKey reports whether s can be an access key: 1 to 128 characters that
// stand for themselves in either form and in S3's own signature.
func ValidAccessKey(s string) bool {
	if s == "" || len(s) > maxAccessKey {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// validHeaderName reports whether s is an HTTP field name (RFC 9110, 5.6.2: token)
// without upper-case letters.
func validHeaderName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' || !isAlphanumeric(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}

// Claim is a signed request that awaits its proof.
type Claim struct {
	authorization
	date string
	// texts are the canonical requests that the signer may have meant. Each covers
	// the whole request; they differ in order and in spelling alone.
	texts []string
}

// Read reads the claim of a request whose whole body is given and checks all that
// needs no secret: form, limits, date, presence of the signed headers, and that the
// body has the hash that the request says. Errors are *Fault.
func Read(r *http.Request, body []byte, now time.Time) (*Claim, error) {
	c, err := Check(r, now)
	if err != nil {
		return nil, err
	}
	if c.texts, err = canonicalRequests(r, body, c.authorization); err != nil {
		return nil, err
	}
	return c, nil
}

// Check reads what the headers alone say of a signature, and refuses what no body can
// make right. What it gives proves nothing yet.
func Check(r *http.Request, now time.Time) (*Claim, error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return nil, faultf("the request must have one Authorization header, not %d", len(values))
	}
	a, err := parseAuthorization(values[0])
	if err != nil {
		return nil, err
	}
	date, err := readDate(r.Header.Values(DateHeader), now)
	if err != nil {
		return nil, err
	}
	if a.scope != "" && !strings.HasPrefix(a.scope, date[:len(scopeLayout)]+"/") {
		return nil, faultf("the date in Credential differs from %s", DateHeader)
	}
	return &Claim{authorization: a, date: date}, nil
}

// readDate checks the date header against the server's time.
func readDate(values []string, now time.Time) (string, error) {
	if len(values) != 1 {
		return "", faultf("the request must have one %s header, not %d", DateHeader, len(values))
	}
	date := strings.TrimSpace(values[0])
	at, err := time.Parse(DateLayout, date)
	if err != nil || len(date) != len(DateLayout) {
		return "", faultf("%s must have the form YYYYMMDDTHHMMSSZ", DateHeader)
	}
	if skew := now.Sub(at); skew > MaxSkew || skew < -MaxSkew {
		return "", faultf("%s is more than %d minutes from the server's time %s",
			DateHeader, int(MaxSkew.Minutes()), now.UTC().Format(DateLayout))
	}
	return date, nil
}

// AccessKey is the key that the request says it was signed with.
func (c *Claim) AccessKey() string { return c.accessKey }

// Signs reports whether a header, whose name is in lower case, is among those signed.
func (c *Claim) Signs(name string) bool { return slices.Contains(c.headers, name) }

// Proves reports whether the secret key made the claim's signature. It takes the
// same time whether it did or not.
func (c *Claim) Proves(secretKey string) bool {
	key := signingKey(secretKey, c.scope)
	proven := 0
	for _, text := range c.texts {
		mac := sign(key, stringToSign(c.date, c.scope, text))
		if hmac.Equal(mac, c.signature[:]) {
			proven = 1
		}
	}
	return proven == 1
}

// signingKey is the secret itself in the access-key form; in the credential form a
// chain of HMACs along the scope.
func signingKey(secretKey, scope string) []byte {
	if scope == "" {
		return []byte(secretKey)
	}
	key := []byte("SDK" + secretKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = sign(key, part)
	}
	return key
}

func stringToSign(date, scope, canonical string) string {
	hash := sha256.Sum256([]byte(canonical))
	s := Algorithm + "\n" + date + "\n"
	if scope != "" {
		s += scope + "\n"
	}
	return s + hex.EncodeToString(hash[:])
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// Sign signs a request that a client is about to send, in the access-key form: it
// sets X-Sdk-Date and Authorization and signs the host, the date and those of
// Content-Type, X-Project-Id and X-Domain-Id that are set. The body must be the
// bytes that will be sent.
func Sign(r *http.Request, body []byte, accessKey, secretKey string, now time.Time) error {
	if !ValidAccessKey(accessKey) || secretKey == "" {
		return fmt.Errorf("signing %s %s: the access key or the secret key is empty or malformed", r.Method, r.URL.Path)
	}
	date := now.UTC().Format(DateLayout)
	r.Header.Set(DateHeader, date)
	a := authorization{accessKey: accessKey}
	for _, name := range []string{"content-type", "host", "x-domain-id", "x-project-id", "x-sdk-date"} {
		if name == "host" || len(r.Header.Values(name)) > 0 {
			a.headers = append(a.headers, name)
		}
	}
	texts, err := canonicalRequests(r, body, a)
	if err != nil {
		return fmt.Errorf("signing %s %s: %w", r.Method, r.URL.Path, err)
	}
	mac := sign(signingKey(secretKey, ""), stringToSign(date, "", texts[0]))
	r.Header.Set("Authorization", fmt.Sprintf("%s Access=%s, SignedHeaders=%s, Signature=%s",
		Algorithm, accessKey, strings.Join(a.headers, ";"), hex.EncodeToString(mac)))
	return nil
}
