package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/ims"
)

func TestParseJSONRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ body, want string }{
		"no JSON":                  {`name=web`, "not JSON"},
		"cut off":                  {`{"name":"web"`, "not JSON"},
		"trailing bytes":           {`{} x`, "not JSON"},
		"a second value":           {`{}{}`, "not JSON"},
		"trailing comma":           {`{"a":1,}`, "not JSON"},
		"comment":                  {`{} // no`, "not JSON"},
		"NaN":                      {`{"a":NaN}`, "not JSON"},
		"leading zero":             {`{"a":01}`, "not JSON"},
		"byte order mark":          {"\uFEFF{}", "not JSON"},
		"raw control character":    {"{\"a\":\"\n\"}", "not JSON"},
		"duplicate key":            {`{"name":"a","name":"b"}`, `"name" occurs twice`},
		"duplicate key, escaped":   {`{"name":"a","n\u0061me":"b"}`, `"name" occurs twice`},
		"duplicate key, deep":      {`{"a":[{"b":{"c":1,"c":1}}]}`, `"c" occurs twice`},
		"duplicate key, unknown":   {`{"x":1,"x":null}`, `"x" occurs twice`},
		"invalid UTF-8":            {"{\"a\":\"\xff\"}", "UTF-8"},
		"invalid UTF-8 in a key":   {"{\"\xc3(\":1}", "UTF-8"},
		"overlong UTF-8":           {"{\"a\":\"\xc0\xaf\"}", "UTF-8"},
		"lone high surrogate":      {`{"a":"\ud800"}`, "surrogate"},
		"lone low surrogate":       {`{"a":"\udc00x"}`, "surrogate"},
		"two high surrogates":      {`{"a":"\ud800\ud800"}`, "surrogate"},
		"too deep":                 {strings.Repeat("[", 33) + strings.Repeat("]", 33), "deeper than 32"},
		"far too deep, never shut": {strings.Repeat(`{"a":`, 100_000), "deeper than 32"},
		"too many values":          {"[" + strings.Repeat("0,", maxValues) + "0]", "more than 20000 values"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseJSON([]byte(tc.body))
			fault, ok := errors.AsType[*ims.Error](err)
			if !ok || fault.Code != ims.CodeBadFormat || !strings.Contains(fault.Detail, tc.want) {
				t.Errorf("got %v, want IMG.0001 about %q", err, tc.want)
			}
		})
	}
}

func TestParseJSONAccepts(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]any{
		` {} `:                          map[string]any{},
		`[]`:                            []any{},
		`null`:                          nil,
		`{"a":null,"A":true}`:           map[string]any{"a": nil, "A": true},
		`{"a":[1.50,"x",{"b":[]}]}`:     map[string]any{"a": []any{json.Number("1.50"), "x", map[string]any{"b": []any{}}}},
		`"\ud83d\ude00 \u00e9 \\ud800"`: "😀 é \\ud800",
		`"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[["`:        `[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["[[`,
		strings.Repeat("[", 32) + strings.Repeat("]", 32): nested(32),
	} {
		got, err := parseJSON([]byte(body))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v", body, got, err)
		}
	}
}

func nested(depth int) any {
	v := []any{}
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

func TestWholeNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "0.000": 0, "0e99": 0, "40": 40, "40.0": 40, "4e1": 40, "4E+1": 40, "400e-1": 40, "0.4e2": 40, "0.04e3": 40,
		"-12": -12, "-1.2e1": -12, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
		"9223372036854775808": math.MaxInt64, "-9223372036854775809": math.MinInt64,
		"1e18": 1e18, "1e19": math.MaxInt64, "1e400": math.MaxInt64, "-1e400": math.MinInt64,
		"1e999999999999999999999": math.MaxInt64, "0e999999999999999999999": 0,
		"1" + strings.Repeat("0", 400):           math.MaxInt64,
		"1" + strings.Repeat("0", 400) + "e-400": 1,
	} {
		if got, whole := wholeNumber(json.Number(text)); !whole || got != want {
			t.Errorf("%s: got %d, %v, want %d", ims.Clip(text), got, whole, want)
		}
	}
	for _, text := range []string{"0.5", "40.5", "1e-1", "123e-2", "1e-400", "1e-999999999999999999999", "1.00000000000000000000000000001", "-0.1"} {
		if got, whole := wholeNumber(json.Number(text)); whole {
			t.Errorf("%s: got %d, want a fraction", text, got)
		}
	}
}

// FuzzParseJSON holds the parser against encoding/json: it may refuse more, never
// accept more, and what it accepts must be what encoding/json reads.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[1,2.5,-3e2,"a",null,true,false]`, `{"name":"web","min_disk":40,"image_tags":[{"key":"a","value":"b"}]}`,
		`{"a":1,"a":2}`, `"\ud83d\ude00"`, `"\ud800"`, `"\\ud800"`, "{\"a\":\"\xff\"}", `{"a":{"b":{"c":[[[]]]}}}`, `{} {}`, `1e400`, ` `, ``, `"\u0000"`,
		`[{"op":"replace","path":"/name","value":"x"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseJSON(body)
		var want any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		wantErr := d.Decode(&want)
		if err != nil {
			fault, ok := errors.AsType[*ims.Error](err)
			if !ok || fault.Code != ims.CodeBadFormat || !utf8.ValidString(fault.Detail) || len(fault.Detail) > 400 {
				t.Fatalf("a refusal that no client should read: %v", err)
			}
			return
		}
		if !json.Valid(body) || wantErr != nil {
			t.Fatalf("accepted what is no JSON: %v", wantErr)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("read %#v, encoding/json reads %#v", got, want)
		}
		walkNumbers(got, func(n json.Number) { checkWhole(t, n) })
	})
}

func walkNumbers(v any, do func(json.Number)) {
	switch v := v.(type) {
	case json.Number:
		do(v)
	case []any:
		for _, e := range v {
			walkNumbers(e, do)
		}
	case map[string]any:
		for _, e := range v {
			walkNumbers(e, do)
		}
	}
}

// checkWhole compares with exact arithmetic, where that is affordable.
func checkWhole(t *testing.T, n json.Number) {
	got, whole := wholeNumber(n)
	if i := strings.IndexAny(string(n), "eE"); len(n) > 100 || i >= 0 && len(n)-i > 4 {
		return
	}
	exact, ok := new(big.Rat).SetString(string(n))
	if !ok {
		t.Fatalf("%s is no number", n)
	}
	if whole != exact.IsInt() {
		t.Fatalf("%s: whole is %v", n, whole)
	}
	if !whole {
		return
	}
	want := exact.Num()
	switch {
	case want.IsInt64():
		if got != want.Int64() {
			t.Fatalf("%s: got %d", n, got)
		}
	case want.Sign() > 0 && got != math.MaxInt64, want.Sign() < 0 && got != math.MinInt64:
		t.Fatalf("%s: got %d", n, got)
	}
}

// FuzzImportBody takes any body through the decoding of an import: it is refused with a
// code that is published, or becomes an import whose every value is within its bounds.
func FuzzImportBody(f *testing.F) {
	for _, seed := range []string{
		`{"name":"web","image_url":"disks:web.raw","os_version":"Ubuntu 22.04 server 64bit","min_disk":40}`,
		`{"name":"d","image_url":"b-1:a/b.raw","type":"DataImage","min_disk":1,"tags":["a.b"]}`,
		`{"name":"d","image_url":"b-1:a","type":"DataImage","min_disk":1.0e1,"image_tags":[{"key":" a ","value":"b"}]}`,
		`{"name":1,"min_disk":"40","tags":{},"image_tags":[1]}`, `{"name":null}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	known := ims.DefaultOSVersions()
	f.Fuzz(func(t *testing.T, body []byte) {
		fields, err := objectBody(body)
		if err == nil {
			request := readImport(fields, ims.ImportRequest{})
			if err = fields.failed(); err == nil {
				var spec ims.ImportSpec
				if spec, err = request.Validate(known); err == nil {
					if spec.Name == "" || spec.MinDiskGiB < 1 || spec.MinDiskGiB > ims.MaxDiskGiB || len(spec.Tags) > ims.MaxTags ||
						!ims.ValidBucketName(spec.Bucket) || !ims.ValidKey(spec.Key) {
						t.Fatalf("accepted %+v", spec)
					}
					return
				}
			}
		}
		fault, ok := errors.AsType[*ims.Error](err)
		if !ok || !fault.Code.Known() || fault.Kind() != ims.KindInvalid {
			t.Fatalf("refused with %v", err)
		}
	})
}
