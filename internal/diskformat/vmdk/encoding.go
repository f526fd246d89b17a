package vmdk

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
)

// codePages are Windows' numbers of the encodings that have other names too.
var codePages = map[string]string{"932": "shift_jis", "936": "gbk", "949": "euc-kr", "950": "big5", "54936": "gb18030", "65001": "utf-8"}

// encodingOf finds the encoding that a descriptor names: as the Web names it, as IANA
// does, or by Windows' code page. Those in which bytes of ASCII may be something else
// are not among them, since lines and keys are ASCII.
func encodingOf(name string) encoding.Encoding {
	low := strings.ToLower(strings.TrimSpace(name))
	for _, prefix := range []string{"windows-", "cp", "ms"} {
		if page, ok := codePages[strings.TrimPrefix(low, prefix)]; ok {
			low = page
		}
	}
	if strings.HasPrefix(low, "utf-16") || strings.HasPrefix(low, "utf-32") || strings.HasPrefix(low, "iso-2022") || strings.HasPrefix(low, "hz") {
		return nil
	}
	if e, err := htmlindex.Get(low); err == nil && e != encoding.Replacement {
		return e
	}
	if e, err := ianaindex.IANA.Encoding(low); err == nil && e != nil {
		return e
	}
	return nil
}

// declared is the encoding that the descriptor says it is in, "" if it says none.
func declared(text []byte) string {
	for len(text) > 0 {
		var l []byte
		l, text, _ = bytes.Cut(text, []byte("\n"))
		k, v, ok := strings.Cut(string(l), "=")
		if ok && strings.EqualFold(strings.TrimSpace(k), "encoding") {
			return unquote(strings.TrimSpace(v))
		}
	}
	return ""
}

// decode gives a descriptor in UTF-8. name is the encoding that it was in when that
// was another one and mattered; else "". What can't be decoded becomes U+FFFD, which
// no name of a file may have.
func decode(text []byte) (plain []byte, name string, err error) {
	if ascii(text) {
		return text, "", nil
	}
	name = declared(text)
	if name == "" {
		return text, "", nil // whoever meets a name that is no UTF-8 says so
	}
	e := encodingOf(name)
	switch {
	case e == nil:
		return nil, "", unsupported("descriptor.encoding", "it is %s, which is not known, and there are letters beyond ASCII; "+
			"write the descriptor in UTF-8 and say so: encoding=\"UTF-8\"", shown(name))
	case e == unicode.UTF8:
		return text, "", nil
	}
	plain, err = e.NewDecoder().Bytes(text)
	if err != nil {
		return nil, "", corrupt("descriptor.encoding", "it is %s, in which the descriptor can't be read: %v", shown(name), err)
	}
	return plain, name, nil
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
