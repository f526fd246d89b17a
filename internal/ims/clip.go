package ims

import (
	"strings"
	"unicode/utf8"
)

// maxEcho is how many characters of a client's text an error or a log line repeats.
const maxEcho = 64

// Clip shortens a client's text to 64 characters, for an error or a log line that
// repeats it. The result is valid UTF-8; it may hold control characters, so print it
// with %q.
func Clip(s string) string { return ClipTo(s, maxEcho) }

// ClipTo is Clip for at most n characters.
func ClipTo(s string, n int) string {
	cut := s
	for i := range s {
		if n--; n < 0 {
			cut = s[:i]
			break
		}
	}
	if !utf8.ValidString(cut) {
		cut = strings.ToValidUTF8(cut, "\ufffd")
	}
	if n < 0 {
		cut += "…"
	}
	return cut
}
