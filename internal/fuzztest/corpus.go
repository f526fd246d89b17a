package fuzztest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// corpusHeader is the first line of a corpus file (go.dev/doc/security/fuzz).
const corpusHeader = "go test fuzz v1"

// readCorpus reads the corpus files of a folder as arguments of target, which takes a
// *testing.T before them.
func readCorpus(f *testing.F, dir string, target reflect.Type) [][]any {
	f.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("%s is %s, where no corpus is (%v)", corpusVar, dir, err)
	}
	var out [][]any
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if lines[0] != corpusHeader || len(lines) != target.NumIn() {
			f.Fatalf("%s is no corpus file of this target", path)
		}
		var entry []any
		for i, line := range lines[1:] {
			v, err := decode(line, target.In(i+1))
			if err != nil {
				f.Fatalf("%s: %v", path, err)
			}
			entry = append(entry, v)
		}
		out = append(out, entry)
	}
	return out
}

// decode reads one line of a corpus file, such as int64(-3) or []byte("a").
func decode(line string, t reflect.Type) (any, error) {
	text, ok := strings.CutPrefix(line, t.String()+"(")
	if t == reflect.TypeFor[[]byte]() {
		text, ok = strings.CutPrefix(line, "[]byte(")
	}
	if !ok || !strings.HasSuffix(text, ")") {
		return nil, fmt.Errorf("%.40q is no %s", line, t)
	}
	text = text[:len(text)-1]
	switch t.Kind() {
	case reflect.Slice:
		s, err := strconv.Unquote(text)
		return []byte(s), err
	case reflect.String:
		return strconv.Unquote(text)
	case reflect.Bool:
		return strconv.ParseBool(text)
	case reflect.Int64:
		return strconv.ParseInt(text, 0, 64)
	}
	return nil, fmt.Errorf("a target with a %s can't be mutated", t)
}

// encode writes a corpus file.
func encode(args []reflect.Value) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, corpusHeader)
	for _, a := range args {
		switch v := a.Interface().(type) {
		case []byte:
			fmt.Fprintf(&b, "[]byte(%q)\n", v)
		default:
			fmt.Fprintf(&b, "%T(%#v)\n", v, v)
		}
	}
	return b.Bytes()
}
