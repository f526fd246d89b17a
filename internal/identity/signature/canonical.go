package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// canonicalRequests gives the canonical requests that a signer of the claim's form
// may have made of this request, the plain one first. There are 1 to 6.
func canonicalRequests(r *http.Request, body []byte, a authorization) ([]string, error) {
	credentialForm := a.scope != ""
	paths, err := canonicalPaths(r.URL, credentialForm)
	if err != nil {
		return nil, err
	}
	if len(r.URL.RawQuery) > maxQuery {
		return nil, faultf("the query is longer than %d bytes", maxQuery)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, faultf("the query is not well-formed: each '%%' must begin two hex digits, and pairs are joined by '&'")
	}
	headers, err := canonicalHeaders(r, a.headers, credentialForm)
	if err != nil {
		return nil, err
	}
	type tail struct{ query, payload string }
	payload, matches, err := payloadHash(r.Header, body)
	if err != nil {
		return nil, err
	}
	var tails []tail
	if matches {
		tails = append(tails, tail{canonicalQuery(query, strings.Compare), payload})
	}
	if credentialForm {
		if matches && len(query) > 1 {
			if other := canonicalQuery(query, compareFold); other != tails[0].query {
				tails = append(tails, tail{other, payload})
			}
		}
		if r.Method == http.MethodPost && len(body) == 0 {
			// The signer that has no body at all hashes the query as Go's own
			// form encoding spells it, and leaves the query's line empty.
			hash := hexSHA256([]byte(query.Encode()))
			if p := strings.TrimSpace(r.Header.Get(PayloadHeader)); p == "" || p == hash {
				tails = append(tails, tail{"", hash})
			}
		}
	}
	if len(tails) == 0 {
		return nil, faultf("the body's SHA-256 differs from %s", PayloadHeader)
	}
	names := strings.Join(a.headers, ";")
	texts := make([]string, 0, len(paths)*len(tails))
	for _, path := range paths {
		for _, t := range tails {
			texts = append(texts, r.Method+"\n"+path+"\n"+t.query+"\n"+headers+"\n"+names+"\n"+t.payload)
		}
	}
	return texts, nil
}

// payloadHash is the last line of the canonical request, and whether it is true of
// the body.
func payloadHash(h http.Header, body []byte) (string, bool, error) {
	hash := hexSHA256(body)
	values := h.Values(PayloadHeader)
	switch {
	case len(values) == 0:
		return hash, true, nil
	case len(values) > 1:
		return "", false, faultf("the request has %d %s headers, it may have one", len(values), PayloadHeader)
	}
	given := strings.TrimSpace(values[0])
	return given, given == UnsignedPayload || strings.EqualFold(given, hash), nil
}

// canonicalPaths encodes each decoded segment of the path. Clients of the credential
// form sign an encoded slash as a plain one, so that is a second reading there.
func canonicalPaths(u *url.URL, credentialForm bool) ([]string, error) {
	raw := u.EscapedPath()
	if len(raw) > maxPath {
		return nil, faultf("the path is longer than %d bytes", maxPath)
	}
	var b strings.Builder
	for i, segment := range strings.Split(raw, "/") {
		decoded, err := url.PathUnescape(segment)
		if err != nil {
			return nil, faultf("the path is not well-formed: each '%%' must begin two hex digits")
		}
		if i > 0 {
			b.WriteByte('/')
		}
		encode(&b, decoded)
	}
	paths := []string{closeWithSlash(b.String())}
	if credentialForm && strings.Contains(paths[0], "%2F") {
		paths = append(paths, closeWithSlash(strings.ReplaceAll(b.String(), "%2F", "/")))
	}
	return paths, nil
}

func closeWithSlash(path string) string {
	if strings.HasSuffix(path, "/") {
		return path
	}
	return path + "/"
}

// canonicalQuery joins all pairs, keys in the order given, the values of a key sorted.
func canonicalQuery(query url.Values, order func(a, b string) int) string {
	keys := make([]string, 0, len(query))
	for k := range query {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, order)
	var b strings.Builder
	for _, k := range keys {
		for _, v := range slices.Sorted(slices.Values(query[k])) {
			if b.Len() > 0 {
				b.WriteByte('&')
			}
			encode(&b, k)
			b.WriteByte('=')
			encode(&b, v)
		}
	}
	return b.String()
}

// compareFold orders keys as the credential form's signer does: encoded, and without
// regard to case; keys that are then equal, by their bytes.
func compareFold(a, b string) int {
	var ea, eb strings.Builder
	encode(&ea, a)
	encode(&eb, b)
	if c := strings.Compare(strings.ToLower(ea.String()), strings.ToLower(eb.String())); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// canonicalHeaders gives a line for each signed header, in the order signed. A
// header that the request lacks is a fault: its absence would be signed by nothing.
func canonicalHeaders(r *http.Request, names []string, credentialForm bool) (string, error) {
	var b strings.Builder
	for _, name := range names {
		values := r.Header.Values(name)
		if name == "host" {
			values = []string{r.Host}
			if r.Host == "" && r.URL.Host != "" { // a client's request
				values[0] = r.URL.Host
			}
		}
		if len(values) == 0 {
			return "", faultf("the signed header %s is not in the request", name)
		}
		if credentialForm && len(values) > 1 {
			// Its signer reads the first value alone; the others would be unsigned.
			return "", faultf("the signed header %s occurs %d times, it may occur once", name, len(values))
		}
		for _, v := range slices.Sorted(slices.Values(values)) {
			if credentialForm {
				v = foldSpace(v)
			} else {
				v = strings.TrimSpace(v)
			}
			b.WriteString(name)
			b.WriteByte(':')
			b.WriteString(v)
			b.WriteByte('\n')
			if b.Len() > maxHeaderBytes {
				return "", faultf("the signed headers are longer than %d bytes", maxHeaderBytes)
			}
		}
	}
	return b.String(), nil
}

// foldSpace makes one space of each run of ASCII white space and drops those at
// the ends.
func foldSpace(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool {
		return c == ' ' || '\t' <= c && c <= '\r' && c != '\v'
	}), " ")
}

// encode writes s with every byte but letters, digits and "-_.~" as %XX (RFC 3986,
// 2.1 and 2.3).
func encode(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if isAlphanumeric(c) || c == '-' || c == '_' || c == '.' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
