package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/ims"
)

// What a body may hold. No request of the API comes near any of them; they bound
// what a stranger's megabyte turns into.
const (
	// MaxBody is the longest request body, in bytes.
	MaxBody = 1 << 20
	// maxDepth is how deep objects and arrays may nest.
	maxDepth = 32
	// maxValues is how many values and keys a body may hold.
	maxValues = 20_000
)

// parseJSON reads one JSON text. It is stricter than encoding/json: keys are
// matched as they are spelt and must not repeat, text must be valid UTF-8 without
// lone surrogates, nothing may follow the value. The result is made of nil, bool,
// json.Number, string, []any and map[string]any.
func parseJSON(body []byte) (any, error) {
	if !utf8.Valid(body) {
		return nil, badJSON("the body is not valid UTF-8")
	}
	// Depth first: the scanners below recurse or keep a stack.
	if deepest(body) > maxDepth {
		return nil, badJSON("objects and arrays nest deeper than %d levels", maxDepth)
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, syntaxFault(err)
	}
	if at := loneSurrogate(body); at >= 0 {
		return nil, badJSON("a \\u escape at byte %d is half of a surrogate pair", at)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	p := jsonReader{tokens: d}
	return p.value()
}

func badJSON(format string, args ...any) error {
	return ims.Faultf(ims.CodeBadFormat, format, args...)
}

func syntaxFault(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return badJSON("the body is not JSON: %s, near byte %d", e.Error(), e.Offset)
	}
	return badJSON("the body is not JSON")
}

// deepest is how deep brackets nest outside of strings. It needs no valid JSON.
func deepest(body []byte) int {
	depth, most, inString := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			most = max(most, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return most
}

// loneSurrogate finds the first \u escape of valid JSON that is half of a surrogate
// pair, which encoding/json would silently replace. -1: there is none.
func loneSurrogate(body []byte) int {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		if body[i+1] != 'u' {
			i++
			continue
		}
		r := hexRune(body[i+2:])
		if !utf16.IsSurrogate(r) {
			i += 5
			continue
		}
		next := body[i+6:]
		if len(next) < 6 || next[0] != '\\' || next[1] != 'u' || utf16.DecodeRune(r, hexRune(next[2:])) == utf8.RuneError {
			return i
		}
		i += 11
	}
	return -1
}

// hexRune reads the four digits of an escape that is known to be valid.
func hexRune(digits []byte) rune {
	n, _ := strconv.ParseUint(string(digits[:4]), 16, 16)
	return rune(n)
}

// jsonReader builds the tree out of tokens whose syntax is known to be right.
type jsonReader struct {
	tokens *json.Decoder
	values int
}

func (p *jsonReader) count() error {
	if p.values++; p.values > maxValues {
		return badJSON("the body holds more than %d values", maxValues)
	}
	return nil
}

func (p *jsonReader) value() (any, error) {
	if err := p.count(); err != nil {
		return nil, err
	}
	token, err := p.tokens.Token()
	if err != nil {
		return nil, syntaxFault(err)
	}
	switch token {
	case json.Delim('{'):
		return p.object()
	case json.Delim('['):
		return p.array()
	}
	return token, nil
}

func (p *jsonReader) object() (any, error) {
	m := map[string]any{}
	for p.tokens.More() {
		if err := p.count(); err != nil {
			return nil, err
		}
		token, err := p.tokens.Token()
		if err != nil {
			return nil, syntaxFault(err)
		}
		key, ok := token.(string)
		if !ok {
			return nil, badJSON("the body is not JSON: a key is no string")
		}
		if _, twice := m[key]; twice {
			return nil, badJSON("the key %q occurs twice in an object", ims.Clip(key))
		}
		if m[key], err = p.value(); err != nil {
			return nil, err
		}
	}
	return m, p.end()
}

func (p *jsonReader) array() (any, error) {
	list := []any{}
	for p.tokens.More() {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, p.end()
}

// end takes the closing bracket.
func (p *jsonReader) end() error {
	if _, err := p.tokens.Token(); err != nil {
		return syntaxFault(err)
	}
	return nil
}

// wholeNumber reads a JSON number that has no fraction, however it is written: 40,
// 40.0, 4e1. What no int64 holds becomes the nearest one, so that a check of the
// range refuses it.
func wholeNumber(n json.Number) (value int64, whole bool) {
	text, negative := strings.CutPrefix(string(n), "-")
	mantissa, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		var err error
		if exponent, err = strconv.Atoi(text[i+1:]); err != nil || exponent > MaxBody || exponent < -2*MaxBody {
			// Further than the digits of any body reach.
			exponent = 2 * MaxBody
			if strings.HasPrefix(text[i+1:], "-") {
				exponent = -exponent
			}
		}
	}
	before, after, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimRight(before+after, "0")
	point := len(before) + exponent
	lead := len(digits) - len(strings.TrimLeft(digits, "0"))
	digits, point = digits[lead:], point-lead
	const most = 19 // digits of the largest int64
	switch {
	case digits == "":
		return 0, true
	case point < len(digits):
		return 0, false
	case point <= most:
		if v, err := strconv.ParseInt(digits+strings.Repeat("0", point-len(digits)), 10, 64); err == nil {
			if negative {
				v = -v
			}
			return v, true
		}
	}
	if negative {
		return math.MinInt64, true
	}
	return math.MaxInt64, true
}

// typeName is what a value of the tree is called in an error.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	default:
		return fmt.Sprintf("a %T", v)
	}
}
