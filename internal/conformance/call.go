package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/client"
)

// suffix makes a name that nothing has yet.
func suffix() string {
	b := make([]byte, 4)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// unknownID is the id of no image; a version 4 UUID as all.
func unknownID() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// call sends a request with the caller's credentials. A body may be nil, a text or what
// JSON can hold.
func (r *run) call(ctx context.Context, method, path string, body any, header ...string) (client.Answer, error) {
	c := client.Call{Method: method, Path: path, Header: http.Header{}}
	switch b := body.(type) {
	case nil:
	case string:
		c.Body = []byte(b)
	case []byte:
		c.Body = b
	default:
		var err error
		if c.Body, err = json.Marshal(b); err != nil {
			return client.Answer{}, err
		}
	}
	for i := 0; i+1 < len(header); i += 2 {
		c.Header.Set(header[i], header[i+1])
	}
	return r.API.Call(ctx, c)
}

// expect sends a request that must be answered with the status, and reads the answer into
// doc, unless that is nil.
func (r *run) expect(ctx context.Context, status int, method, path string, body, doc any, header ...string) error {
	a, err := r.call(ctx, method, path, body, header...)
	if err != nil {
		return err
	}
	return readAs(a, status, method, path, doc)
}

func readAs(a client.Answer, status int, method, path string, doc any) error {
	if a.Status != status {
		return fmt.Errorf("%s %s answers %s; it must be %d", method, path, brief(a), status)
	}
	if doc == nil {
		return nil
	}
	if err := json.Unmarshal(a.Body, doc); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w: %.200s", method, path, err, a.Body)
	}
	return nil
}

// refused sends a request that must be refused with one of the codes, in the form of an
// error.
func (r *run) refused(ctx context.Context, method, path string, body any, codes ...string) error {
	a, err := r.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	return isRefusal(a, method, path, codes...)
}

// isRefusal checks that an answer is an error of the API's form, with one of the codes.
func isRefusal(a client.Answer, method, path string, codes ...string) error {
	if a.Status < 400 || a.Status >= 500 {
		return fmt.Errorf("%s %s answers %s; it must be refused", method, path, brief(a))
	}
	var e wire.Error
	if err := json.Unmarshal(a.Body, &e); err != nil || e.Error.Code == "" || e.Error.Message == "" {
		return fmt.Errorf(`%s %s answers %s, which is not of the form {"error":{"code":"...","message":"..."}}`, method, path, brief(a))
	}
	for _, code := range codes {
		if e.Error.Code == code {
			return nil
		}
	}
	if len(codes) == 0 {
		return nil
	}
	return fmt.Errorf("%s %s answers %s; the code must be %s", method, path, brief(a), strings.Join(codes, " or "))
}

// brief is an answer in a few words.
func brief(a client.Answer) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(a.Body), "?")), " ")
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.Status, text))
}

// errorCode is the code of an error answer, "" if there is none.
func errorCode(a client.Answer) string {
	var e wire.Error
	if json.Unmarshal(a.Body, &e) != nil {
		return ""
	}
	return e.Error.Code
}

// mustHave checks that a document has keys of a JSON type: string, number, boolean,
// array, object.
func mustHave(doc map[string]any, what string, types map[string]string) error {
	var wrong []string
	for key, want := range types {
		v, ok := doc[key]
		if !ok {
			wrong = append(wrong, key+" is not there")
			continue
		}
		if got := typeOf(v); got != want {
			wrong = append(wrong, fmt.Sprintf("%s is a %s, it must be a %s", key, got, want))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s: %s", what, strings.Join(wrong, "; "))
	}
	return nil
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "array"
	}
	return "object"
}
