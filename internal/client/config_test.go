package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadCredentials(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "credentials.env")
	text := "# Written by the server\n" +
		"QUICKIMS_ENDPOINT='http://127.0.0.1:9292'\n" +
		"export QUICKIMS_S3_ENDPOINT=http://127.0.0.1:9000   # the buckets\n\n" +
		"QUICKIMS_ACCESS_KEY=\"AK\"\r\n" +
		`QUICKIMS_SECRET_KEY='a b'"c\"d\e"\ f` + "\n" +
		"QUICKIMS_OTHER=unused\nQUICKIMS_USER=u\nQUICKIMS_PASSWORD=secret\nQUICKIMS_DOMAIN_ID=d\nQUICKIMS_PROJECT_ID=p\nQUICKIMS_REGION=r"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadCredentials(path)
	want := Config{Endpoint: "http://127.0.0.1:9292", S3Endpoint: "http://127.0.0.1:9000", AccessKey: "AK", SecretKey: `a bc"d\e f`, ProjectID: "p", Region: "r",
		Login: Login{User: "u", Password: "secret", DomainID: "d"}}
	if err != nil || got != want {
		t.Errorf("got  %#v %q, %v\nwant %#v", got, string(got.SecretKey), err, want)
	}
}

func TestReadCredentialsSaysWhichLineIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"A=1\njust words\n":                  "line 2",
		"A='open\n":                          "quote",
		"A=two words\n":                      "space outside",
		"A=x\\":                              "backslash",
		"=x\n":                               "line 1",
		"A=" + strings.Repeat("x", 1e4):      "longer than",
		strings.Repeat("# a comment\n", 1e4): "longer than",
	} {
		path := filepath.Join(t.TempDir(), "c.env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCredentials(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.20q: got %v", text, err)
		}
	}
	if _, err := ReadCredentials(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// The shell is the judge of how quoting reads.
func TestUnquoteReadsAsAShellDoes(t *testing.T) {
	t.Parallel()
	words := []string{
		`plain`, `'single $x'`, `"double"`, `"a\"b\\c"`, `"a\nb"`, `'a'"b"c`, `a\ b`, `'it'\''s'`, `""`, `a=b`, `x#y`, `"x # y"`, `x # y`, `"\` + "`" + `"`, `"\$x"`,
	}
	vars := map[string]string{}
	script := ""
	for i, word := range words {
		key := fmt.Sprintf("V%d", i)
		script += key + "=" + word + "\n"
		out, err := exec.Command("sh", "-c", key+"="+word+"\nprintf %s \"$"+key+"\"").Output()
		if err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		vars[key] = string(out)
	}
	got, err := parseVars(strings.NewReader(script))
	if err != nil || !maps.Equal(got, vars) {
		t.Errorf("got  %q, %v\nwant %q", got, err, vars)
	}
}

func TestSecretsPrintMasked(t *testing.T) {
	t.Parallel()
	c := Config{AccessKey: "AK", SecretKey: "hush-1", Token: "hush-2"}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %q", c, c, c.SecretKey), string(asJSON)} {
		if strings.Contains(text, "hush") || !strings.Contains(text, masked) {
			t.Errorf("printed %s", text)
		}
	}
}
