package s3suite

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"time"
)

const (
	algorithm      = "AWS4-HMAC-SHA256"
	emptyHash      = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	longDate       = "20060102T150405Z"
	unsigned       = "UNSIGNED-PAYLOAD"
	signedChunks   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	signedTrailer  = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	unsignedChunks = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// signing says how a request is signed where it differs from the usual: version 4, in
// the header Authorization, with the body's hash.
type signing struct {
	none      bool
	accessKey string // another than the client's
	secret    string
	region    string
	payload   string        // x-amz-content-sha256, instead of the body's hash
	skew      time.Duration // added to the time
	// expires, if presign is set, goes into X-Amz-Expires as it is.
	presign bool
	expires string
	// dateHeader sends the date as Date and not as X-Amz-Date.
	dateHeader bool
	// mangle changes the Authorization header or the query after signing.
	mangle func(string) string
	// seed, if it is set, gets what signs chunks.
	seed *chunkSigner
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

// signed returns the target and the header lines of a request, signed at a time.
func (c *client) signed(r request, now time.Time) (target string, headers []string) {
	s, path := r.sign, r.path()
	headers = append([]string{}, r.header...)
	if s.none {
		return join(path, r.query), headers
	}
	accessKey, secret, region := or(s.accessKey, c.accessKey), or(s.secret, c.secret), or(s.region, c.region)
	at := now.Add(s.skew).UTC()
	date := at.Format(longDate)
	scope := date[:8] + "/" + region + "/s3/aws4_request"
	key := []byte("AWS4" + secret)
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	payload := s.payload
	switch {
	case payload != "":
	case s.presign:
		payload = unsigned
	default:
		payload = hash(r.body)
	}
	query := r.query
	if s.presign {
		names := signedNames(append([]string{"Host: " + or(c.host, c.addr)}, headers...))
		query = strings.TrimPrefix(query+"&X-Amz-Algorithm="+algorithm+"&X-Amz-Credential="+escape(accessKey+"/"+scope, false)+"&X-Amz-Date="+date+
			"&X-Amz-Expires="+s.expires+"&X-Amz-SignedHeaders="+escape(names, false), "&")
	} else {
		headers = append(headers, "X-Amz-Content-Sha256: "+payload)
		if s.dateHeader {
			headers = append(headers, "Date: "+at.Format("Mon, 02 Jan 2006 15:04:05 GMT"))
		} else {
			headers = append(headers, "X-Amz-Date: "+date)
		}
	}
	all := append([]string{"Host: " + or(c.host, c.addr)}, headers...)
	names := signedNames(all)
	canonical := strings.Join([]string{or(r.method, "GET"), path, canonicalQuery(query), canonicalHeaders(all), names, payload}, "\n")
	signature := hex.EncodeToString(mac(key, strings.Join([]string{algorithm, date, scope, hash(canonical)}, "\n")))
	if s.seed != nil {
		*s.seed = chunkSigner{key: key, date: date, scope: scope, previous: signature}
	}
	if s.presign {
		query += "&X-Amz-Signature=" + signature
		if s.mangle != nil {
			query = s.mangle(query)
		}
		return join(path, query), headers
	}
	authorization := fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s", algorithm, accessKey, scope, names, signature)
	if s.mangle != nil {
		authorization = s.mangle(authorization)
	}
	return join(path, r.query), append(headers, "Authorization: "+authorization)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func join(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// canonicalQuery sorts the parameters; each gets a "=".
func canonicalQuery(query string) string {
	if query == "" {
		return ""
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		if !strings.Contains(part, "=") {
			parts[i] += "="
		}
	}
	sort.Strings(parts)
	return strings.Join(parts, "&")
}

// headerValues maps each lower-case name to its values, joined by commas.
func headerValues(lines []string) (names []string, values map[string]string) {
	values = map[string]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.ToLower(name), strings.Join(strings.Fields(value), " ")
		if old, ok := values[name]; ok {
			value = old + "," + value
		} else {
			names = append(names, name)
		}
		values[name] = value
	}
	sort.Strings(names)
	return names, values
}

func signedNames(lines []string) string {
	names, _ := headerValues(lines)
	return strings.Join(names, ";")
}

func canonicalHeaders(lines []string) string {
	names, values := headerValues(lines)
	var out strings.Builder
	for _, name := range names {
		out.WriteString(name + ":" + values[name] + "\n")
	}
	return out.String()
}

// chunkSigner signs the chunks of a body one after the other.
type chunkSigner struct {
	key                   []byte
	date, scope, previous string
}

func (s *chunkSigner) chunk(data string) string {
	s.previous = hex.EncodeToString(mac(s.key, strings.Join([]string{algorithm + "-PAYLOAD", s.date, s.scope, s.previous, emptyHash, hash(data)}, "\n")))
	return s.previous
}

func (s *chunkSigner) trailer(lines string) string {
	s.previous = hex.EncodeToString(mac(s.key, strings.Join([]string{algorithm + "-TRAILER", s.date, s.scope, s.previous, hash(lines)}, "\n")))
	return s.previous
}
