package api

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/quickims/quickims/internal/ims"
)

// fields reads an object of a body key by key. Keys that nobody asks for are
// ignored; null counts as absent. The first key of a wrong type is the fault, in the
// order in which they are asked for: ask for all, then look at failed.
type fields struct {
	at     string // "" or "image_tags[0].", what the keys are named by in an error
	values map[string]any
	fault  *error // shared with the objects inside
}

// objectBody reads a body that must be an object.
func objectBody(body []byte) (*fields, error) {
	v, err := jsonBody(body)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, ims.Faultf(ims.CodeBadFormat, "the body must be an object, it is %s", typeName(v))
	}
	return &fields{values: m, fault: new(error)}, nil
}

// jsonBody reads a body that must be there.
func jsonBody(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, ims.Faultf(ims.CodeBodyEmpty, "the body must be JSON")
	}
	return parseJSON(body)
}

// failed is the first fault, nil when every key asked for had its type.
func (f *fields) failed() error { return *f.fault }

func (f *fields) wrong(key, want string, v any) {
	f.refuse(ims.Faultf(ims.CodeBadFormat, "%s%s must be %s, it is %s", f.at, key, want, typeName(v)))
}

func (f *fields) refuse(err error) {
	if *f.fault == nil {
		*f.fault = err
	}
}

// has reports whether the key is there and not null.
func (f *fields) has(key string) bool { return f.values[key] != nil }

// text reads a string; nil when it is absent.
func (f *fields) text(key string) *string {
	switch v := f.values[key].(type) {
	case nil:
	case string:
		return &v
	default:
		f.wrong(key, "a string", v)
	}
	return nil
}

// textOr reads a string that has a default.
func (f *fields) textOr(key, absent string) string {
	if v := f.text(key); v != nil {
		return *v
	}
	return absent
}

// required reads a string that must be there; code is the fault of its absence.
func (f *fields) required(key string, code ims.Code) string {
	v := f.text(key)
	if v == nil {
		f.refuse(ims.Faultf(code, "%s%s is required", f.at, key))
		return ""
	}
	return *v
}

// integer reads a number without a fraction; nil when it is absent. A number that no
// int64 holds becomes the nearest.
func (f *fields) integer(key string) *int64 {
	switch v := f.values[key].(type) {
	case nil:
	case json.Number:
		if n, whole := wholeNumber(v); whole {
			return &n
		}
		f.refuse(ims.Faultf(ims.CodeBadFormat, "%s%s must be an integer, it is %s", f.at, key, ims.Clip(string(v))))
	default:
		f.wrong(key, "an integer", v)
	}
	return nil
}

// boolean reads true or false; nil when it is absent.
func (f *fields) boolean(key string) *bool {
	switch v := f.values[key].(type) {
	case nil:
	case bool:
		return &v
	default:
		f.wrong(key, "a boolean", v)
	}
	return nil
}

// texts reads an array of strings.
func (f *fields) texts(key string) []string {
	var out []string
	for i, v := range f.list(key, "an array of strings") {
		s, ok := v.(string)
		if !ok {
			f.wrong(index(key, i), "a string", v)
			return nil
		}
		out = append(out, s)
	}
	return out
}

// objects reads an array of objects.
func (f *fields) objects(key string) []*fields {
	var out []*fields
	for i, v := range f.list(key, "an array of objects") {
		out = append(out, f.inside(index(key, i), v))
	}
	return out
}

// object reads an object that must be there; code is the fault of its absence.
func (f *fields) object(key string, code ims.Code) *fields {
	v := f.values[key]
	if v == nil {
		f.refuse(ims.Faultf(code, "%s%s is required", f.at, key))
		v = map[string]any{}
	}
	return f.inside(key, v)
}

func (f *fields) inside(key string, v any) *fields {
	m, ok := v.(map[string]any)
	if !ok {
		f.wrong(key, "an object", v)
	}
	return &fields{at: f.at + key + ".", values: m, fault: f.fault}
}

func (f *fields) list(key, want string) []any {
	switch v := f.values[key].(type) {
	case nil:
	case []any:
		return v
	default:
		f.wrong(key, want, v)
	}
	return nil
}

func index(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }
