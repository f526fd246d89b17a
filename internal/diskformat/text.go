package diskformat

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// maxText is up to which size, in bytes, a file that is text but neither HTML, XML nor
// JSON counts as [Text]: messages of errors and lists, not what may be a disk all the
// same.
const maxText = 1 << 20

// maxPadding is how many zeros may follow such a text: more make it a disk into which
// somebody wrote a word. 4 KiB is a sector of the largest size.
const maxPadding = 4 << 10

// is matches a file whose text is of a format.
func is(format Format) func(*ends) bool {
	return func(e *ends) bool {
		if !e.textSeen {
			e.text, e.textSeen = textFormat(e), true
		}
		return e.text == format
	}
}

// textFormat tells what kind of text a file is that is nothing but text, maybe with
// zeros behind it, as in a page that was padded to whole sectors. "": it is no text.
func textFormat(e *ends) Format {
	b := bytes.TrimRight(e.head, "\x00")
	padded := len(b) < len(e.head)
	if len(b) == 0 {
		return ""
	}
	tail := e.tail
	if e.size <= headSize {
		tail = nil
	}
	if padded && len(bytes.Trim(tail, "\x00")) > 0 {
		return "" // text at the front alone
	}
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		b = b[3:]
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		b, tail = fromUTF16(e.head[2:], binary.LittleEndian), nil
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		b, tail = fromUTF16(e.head[2:], binary.BigEndian), nil
	}
	if !printable(b) || !printable(bytes.TrimRight(tail, "\x00")) {
		return ""
	}
	f := pageFormat(b, e.size)
	if f == Text && (e.size > maxText || padded && len(e.head)-len(bytes.TrimRight(e.head, "\x00")) >= maxPadding || !validText(b)) {
		return ""
	}
	return f
}

// fromUTF16 is a text in UTF-8.
func fromUTF16(b []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return bytes.TrimRight([]byte(string(utf16.Decode(units))), "\x00")
}

// printable reports whether b has none of the bytes that no text has. Bytes of 128 and
// more may be letters of an older encoding.
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != '\v' && c != '\b' && c != 0x1b || c == 0x7f {
			return false
		}
	}
	return true
}

// htmlElements are those that a page of HTML may begin with, in lower case. What of
// them is not required by the standard is often left out.
var htmlElements = []string{"html", "head", "body", "title", "meta", "script", "style", "link", "center", "div", "p", "h1", "h2", "h3", "pre", "table", "br", "a", "font", "b", "i"}

// pageFormat tells the kinds of text apart. size is the file's.
func pageFormat(b []byte, size int64) Format {
	for {
		b = bytes.TrimLeft(b, " \t\r\n\f\v")
		if !bytes.HasPrefix(b, []byte("<!--")) {
			break
		}
		_, rest, ended := bytes.Cut(b, []byte("-->"))
		if !ended {
			return HTML // a comment of 64 KiB
		}
		b = rest
	}
	low := bytes.ToLower(b[:min(len(b), 4096)])
	switch {
	case bytes.HasPrefix(low, []byte("<!doctype html")):
		return HTML
	case bytes.HasPrefix(low, []byte("<?xml")), bytes.HasPrefix(low, []byte("<!doctype")):
		if bytes.Contains(low, []byte("<html")) {
			return HTML
		}
		return XML
	case bytes.HasPrefix(low, []byte("<")):
		name := low[1:]
		end := bytes.IndexFunc(name, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == ':' || r == '-' || r == '_')
		})
		if end <= 0 || name[0] < 'a' || name[0] > 'z' || !bytes.ContainsRune([]byte(" \t\r\n/>"), rune(name[end])) {
			break
		}
		if slices.Contains(htmlElements, string(name[:end])) {
			return HTML
		}
		return XML
	case bytes.HasPrefix(low, []byte("{")), bytes.HasPrefix(low, []byte("[")):
		if json.Valid(b) || size > headSize && beginsJSON(low) {
			return JSON
		}
	}
	return Text
}

// beginsJSON looks at what follows the first bracket of a document that is longer than
// what was read.
func beginsJSON(b []byte) bool {
	rest := bytes.TrimLeft(b[1:], " \t\r\n")
	return len(rest) > 0 && bytes.IndexByte([]byte(`"{[`), rest[0]) >= 0
}

// validText reports whether b has more than one word and is UTF-8, but for a letter that the end of what was read
// cut in two.
func validText(b []byte) bool {
	if !bytes.ContainsAny(b, " \n") {
		return false // one word, or a pattern that a test wrote
	}
	if len(b) >= headSize-utf8.UTFMax { // but for a mark of the byte order
		for range utf8.UTFMax - 1 {
			if r, n := utf8.DecodeLastRune(b); r != utf8.RuneError || n > 1 {
				break
			}
			b = b[:len(b)-1]
		}
	}
	return utf8.Valid(b)
}
