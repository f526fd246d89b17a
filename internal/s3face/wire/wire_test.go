package wire_test

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// TestUnmarshal: what is no plain document of the kind is refused.
func TestUnmarshal(t *testing.T) {
	t.Parallel()
	for body, code := range map[string]string{
		`<Delete><Object><Key>a</Key></Object></Delete>`:                                                            "",
		`<?xml version="1.0"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet></Delete>`: "",
		`<Delete>`: "MalformedXML", ``: "MalformedXML", `Delete`: "MalformedXML", `<Other/>`: "MalformedXML", `<Delete/><Delete/>`: "MalformedXML",
		`<Delete/>x`: "MalformedXML", `<!DOCTYPE d [<!ENTITY a "b">]><Delete>&a;</Delete>`: "MalformedXML", `<Delete>&unknown;</Delete>`: "MalformedXML",
		strings.Repeat("<Delete>", 100) + strings.Repeat("</Delete>", 100): "MalformedXML",
		"<Delete>" + strings.Repeat(" ", wire.MaxDocument) + "</Delete>":   "MaxMessageLengthExceeded",
		`<Delete><Object><Key>a</Key><Size>x</Size></Object></Delete>`:     "MalformedXML",
	} {
		var doc wire.Delete
		err := wire.Unmarshal([]byte(body), &doc)
		if err == nil && code != "" || err != nil && err.Code != code {
			t.Errorf("%.80s: %v, want %q", body, err, code)
		}
	}
}

// TestErrorDocument: whatever an error names, its document can be read.
func TestErrorDocument(t *testing.T) {
	t.Parallel()
	e := wire.Errorf("NoSuchKey", "a < b & %q", "\x00\xff").With("Key", "<&>")
	var doc struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		Key       string
		RequestID string `xml:"RequestId"`
	}
	if err := xml.Unmarshal(e.Document("/b/k", "ID"), &doc); err != nil || doc.Code != "NoSuchKey" || doc.Key != "<&>" || doc.RequestID != "ID" {
		t.Errorf("%s: %+v, %v", e.Document("/b/k", "ID"), doc, err)
	}
	if e.Status() != 404 || wire.Errorf("Unheard", "").Status() != 500 {
		t.Error("the status")
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`<Delete><Object><Key>a</Key></Object></Delete>`))
	f.Add([]byte(`<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>`))
	f.Add([]byte(`<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, doc := range []any{new(wire.Delete), new(wire.CompleteMultipartUpload), new(wire.CreateBucketConfiguration)} {
			if err := wire.Unmarshal(body, doc); err != nil && wire.Err(err.Code).Message == "" {
				t.Errorf("unknown code %s", err.Code)
			}
		}
	})
}

func FuzzEscape(f *testing.F) {
	f.Add("a b/ü+%", true)
	f.Fuzz(func(t *testing.T, s string, keepSlash bool) {
		if got, ok := wire.Unescape(wire.Escape(s, keepSlash), true); !ok || got != s {
			t.Errorf("%q became %q", s, got)
		}
		if plain, ok := wire.Unescape(s, false); ok && len(plain) > len(s) {
			t.Errorf("%q became longer", s)
		}
	})
}
