package keystone

import (
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/identity"
)

// maxDepth is how deep objects and arrays may nest in a body.
const maxDepth = 32

// reader reads a JSON body token by token. It keeps only what it is asked for, so
// that a stranger's megabyte stays one. Keys are matched as they are spelt; those
// that nobody asked for are passed over.
type reader struct{ dec *json.Decoder }

// value reads a value that the caller wants; null counts as absent.
type value func(r reader, name string) error

// readBody reads a body that is one object.
func readBody(body []byte, fields map[string]value) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return badRequestf("The body is empty.")
	}
	if !utf8.Valid(body) {
		return badRequestf("The body is not valid UTF-8.")
	}
	r := reader{json.NewDecoder(bytes.NewReader(body))}
	r.dec.UseNumber()
	if err := object(fields)(r, ""); err != nil {
		return err
	}
	if _, err := r.dec.Token(); err != io.EOF {
		return badRequestf("Something follows the body's JSON.")
	}
	return nil
}

func (r reader) token() (json.Token, error) {
	t, err := r.dec.Token()
	if err != nil {
		return nil, badRequestf("The body is not JSON, near byte %d.", r.dec.InputOffset())
	}
	return t, nil
}

func mismatch(name, want string) error {
	if name == "" {
		name = "the body"
	}
	return badRequestf("%s must be %s.", name, want)
}

// object reads an object's known fields.
func object(fields map[string]value) value {
	return func(r reader, name string) error {
		t, err := r.token()
		if err != nil || t == nil && name != "" {
			return err
		}
		if t != json.Delim('{') {
			return mismatch(name, "an object")
		}
		return r.fields(fields, name)
	}
}

// fields reads what follows the opening brace.
func (r reader) fields(fields map[string]value, name string) error {
	seen := make(map[string]bool, len(fields))
	for r.dec.More() {
		t, err := r.token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		read, known := fields[key]
		if !known {
			if err := r.skip(); err != nil {
				return err
			}
			continue
		}
		path := key
		if name != "" {
			path = name + "." + key
		}
		if seen[key] {
			return badRequestf("%s occurs twice.", path)
		}
		seen[key] = true
		if err := read(r, path); err != nil {
			return err
		}
	}
	_, err := r.token()
	return err
}

// skip passes over one value.
func (r reader) skip() error {
	depth := 0
	for {
		t, err := r.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return badRequestf("The body nests deeper than %d levels.", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// text reads a string.
func text(into *string) value {
	return func(r reader, name string) error {
		t, err := r.token()
		if err != nil || t == nil {
			return err
		}
		s, ok := t.(string)
		if !ok {
			return mismatch(name, "a string")
		}
		*into = s
		return nil
	}
}

// boolean reads true or false.
func boolean(into *bool) value {
	return func(r reader, name string) error {
		t, err := r.token()
		if err != nil || t == nil {
			return err
		}
		b, ok := t.(bool)
		if !ok {
			return mismatch(name, "true or false")
		}
		*into = b
		return nil
	}
}

// texts reads a short array of strings.
func texts(into *[]string, limit int) value {
	return func(r reader, name string) error {
		t, err := r.token()
		if err != nil || t == nil {
			return err
		}
		if t != json.Delim('[') {
			return mismatch(name, "an array of strings")
		}
		for r.dec.More() {
			var s string
			if err := text(&s)(r, name); err != nil {
				return err
			}
			if *into = append(*into, s); len(*into) > limit {
				return badRequestf("%s holds more than %d.", name, limit)
			}
		}
		_, err = r.token()
		return err
	}
}

// login is the body of a request for a token.
type login struct {
	methods []string
	user    identity.PasswordLogin
	token   string
	app     identity.ApplicationLogin
	scope   identity.Scope
	system  bool // the scope is the system, which nobody has here
}

func readLogin(body []byte) (login, error) {
	var in login
	domain := func(id, name *string) value {
		return object(map[string]value{"id": text(id), "name": text(name)})
	}
	// A project's domain and a domain as the scope are read apart: both at once is a
	// mistake that one would otherwise hide.
	var project, alone identity.Scope
	scope := map[string]value{
		"project": object(map[string]value{
			"id": text(&project.ProjectID), "name": text(&project.ProjectName),
			"domain": domain(&project.DomainID, &project.DomainName),
		}),
		"domain": domain(&alone.DomainID, &alone.DomainName),
		"system": func(r reader, name string) error { in.system = true; return r.skip() },
	}
	err := readBody(body, map[string]value{"auth": object(map[string]value{
		"identity": object(map[string]value{
			"methods": texts(&in.methods, 8),
			"password": object(map[string]value{"user": object(map[string]value{
				"id": text(&in.user.UserID), "name": text(&in.user.UserName), "password": text(&in.user.Password),
				"domain": domain(&in.user.DomainID, &in.user.DomainName),
			})}),
			"token": object(map[string]value{"id": text(&in.token)}),
			"application_credential": object(map[string]value{
				"id": text(&in.app.ID), "name": text(&in.app.Name), "secret": text(&in.app.Secret),
				"user": object(map[string]value{
					"id": text(&in.app.UserID), "name": text(&in.app.UserName), "domain": domain(&in.app.DomainID, &in.app.DomainName),
				}),
			}),
		}),
		"scope": func(r reader, name string) error {
			t, err := r.token()
			switch {
			case err != nil || t == nil || t == "unscoped":
				return err
			case t != json.Delim('{'):
				return mismatch(name, `an object or "unscoped"`)
			}
			return r.fields(scope, name)
		},
	})})
	if err != nil {
		return in, err
	}
	if len(in.methods) == 0 {
		return in, badRequestf("auth.identity.methods must name a method: %s or %s.", identity.MethodPassword, identity.MethodToken)
	}
	none := identity.Scope{}
	switch {
	case project != none && alone != none:
		return in, badRequestf("auth.scope must be a project or a domain, not both.")
	case project != none && project.ProjectID == "" && project.ProjectName == "":
		return in, badRequestf("auth.scope.project must have an id, or a name with a domain.")
	case project.ProjectID != "":
		in.scope = identity.Scope{ProjectID: project.ProjectID} // an id needs no domain
	case project.ProjectName != "":
		in.scope = project
	default:
		in.scope = alone
	}
	return in, nil
}
