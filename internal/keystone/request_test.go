package keystone

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/identity"
)

func FuzzReadLogin(f *testing.F) {
	for _, seed := range []string{
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"a","domain":{"id":"d"},"password":"p"}}},"scope":{"project":{"id":"x"}}}}`,
		`{"auth":{"identity":{"methods":["token"],"token":{"id":"t"}},"scope":"unscoped"}}`,
		`{"auth":{"identity":{"methods":null},"scope":{"domain":{"name":"d"},"x":[[{}]]}},"y":1e999}`,
		`{"auth":{"auth":{}}}`, `[]`, `null`, "{\"\\ud800\":1}", `{"auth":{"identity":{"methods":["a"]}}}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := readLogin(body)
		if err != nil {
			if status, text := classify(err); status != 400 || text == "" || strings.Contains(text, "\n") {
				t.Fatalf("%d %q", status, text)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("taken, but no JSON: %q", body)
		}
		if len(in.methods) == 0 || len(in.methods) > 8 {
			t.Fatalf("%d methods", len(in.methods))
		}
		if s := in.scope; s.ProjectID != "" && s != (identity.Scope{ProjectID: s.ProjectID}) {
			t.Fatalf("scope %+v", s)
		}
	})
}
