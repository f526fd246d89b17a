package ims

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of tags, in characters and in tags an image.
const (
	MaxTagKey   = 36
	MaxTagValue = 43
	MaxTags     = 10
	// MaxTagKeyDelete and MaxTagValueDelete are what a deletion accepts.
	MaxTagKeyDelete   = 127
	MaxTagValueDelete = 255
)

// Tag is a key and a value that an image carries. Keys are unique in an image.
type Tag struct{ Key, Value string }

// String is the form in which an image lists the tag: key=value, or the bare key
// when there is no value.
func (t Tag) String() string {
	if t.Value == "" {
		return t.Key
	}
	return t.Key + "=" + t.Value
}

// Trimmed drops leading and trailing spaces of key and value.
func (t Tag) Trimmed() Tag {
	return Tag{Key: strings.TrimSpace(t.Key), Value: strings.TrimSpace(t.Value)}
}

// Validate checks lengths and characters; field names the tag in the error.
func (t Tag) Validate(field string) error {
	switch n := utf8.RuneCountInString(t.Key); {
	case n == 0:
		return Faultf(CodeTag, "%s: the key is empty, it has 1 to %d characters", field, MaxTagKey)
	case n > MaxTagKey:
		return Faultf(CodeTag, "%s: the key has %d characters, at most %d are allowed", field, n, MaxTagKey)
	}
	if n := utf8.RuneCountInString(t.Value); n > MaxTagValue {
		return Faultf(CodeTag, "%s: the value has %d characters, at most %d are allowed", field, n, MaxTagValue)
	}
	if !tagText(t.Key, "_-.:@+ ") {
		return Faultf(CodeTag, "%s: the key may hold letters, digits, space and _ - . : @ +", field)
	}
	if !tagText(t.Value, "_-.:@+/= ") {
		return Faultf(CodeTag, "%s: the value may hold letters, digits, space and _ - . : @ + / =", field)
	}
	return nil
}

// ValidateDelete checks the lengths alone, which is all that a deletion asks.
func (t Tag) ValidateDelete(field string) error {
	if n := utf8.RuneCountInString(t.Key); n == 0 || n > MaxTagKeyDelete {
		return Faultf(CodeTag, "%s: the key has %d characters, 1 to %d are allowed", field, n, MaxTagKeyDelete)
	}
	if n := utf8.RuneCountInString(t.Value); n > MaxTagValueDelete {
		return Faultf(CodeTag, "%s: the value has %d characters, at most %d are allowed", field, n, MaxTagValueDelete)
	}
	return nil
}

func tagText(s, punctuation string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(punctuation, r) {
			return false
		}
	}
	return true
}

// ParseDotTag reads the "key.value" form of the request parameter tags, in which
// key and value hold digits, letters, _ and - only.
func ParseDotTag(s, field string) (Tag, error) {
	key, value, ok := strings.Cut(s, ".")
	if !ok {
		return Tag{}, Faultf(CodeTag, "%s: %q is not of the form key.value", field, Clip(s))
	}
	for _, part := range []string{key, value} {
		for _, r := range part {
			if !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == '-') {
				return Tag{}, Faultf(CodeTag, "%s: %q may hold digits, letters, _ and - around one dot", field, Clip(s))
			}
		}
	}
	t := Tag{Key: key, Value: value}
	return t, t.Validate(field)
}

var nativeTag = regexp.MustCompile(`^[0-9A-Za-z_-]{1,255}$`)

// ValidNativeTag reports whether a text can be a tag of IMS without a value, as a path
// names it.
func ValidNativeTag(text string) bool { return nativeTag.MatchString(text) }

// CheckTags checks that the keys differ and that there are no more than MaxTags.
func CheckTags(tags []Tag, field string) error {
	seen := make(map[string]bool, len(tags))
	for _, t := range tags {
		if seen[t.Key] {
			return Faultf(CodeTag, "%s: the key %q occurs twice", field, t.Key)
		}
		seen[t.Key] = true
	}
	if len(tags) > MaxTags {
		return Faultf(CodeTagQuota, "%s: %d tags, an image carries at most %d", field, len(tags), MaxTags)
	}
	return nil
}
