package diskformat

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// How much is read to tell the formats apart: one piece from the front, which
// reaches past the ISO descriptor at 32 KiB and past the partition entries of
// a usual GPT, and one from the end, which holds the footers.
const (
	headSize = 64 << 10
	tailSize = 4 << 10
)

// Detect names the format of the file r of size bytes. It goes by content
// alone, never by a name, and says [Raw] only when nothing else matches.
//
// It reads at most twice: the first 64 KiB and the last 4 KiB, or a small file
// whole. Errors: ErrAmbiguous when two formats match; ErrIncomplete, together
// with the format, for a ZVHD2 file that lacks its footer; ErrCorrupt,
// together with the format, for one that has only the footer; else what the
// source said.
func Detect(r io.ReaderAt, size int64) (Format, error) {
	e, err := readEnds(r, size)
	if err != nil {
		return "", err
	}
	return e.format()
}

// ends are the front and the end of a file. In a small file they overlap.
type ends struct {
	size int64
	head []byte
	tail []byte

	text     Format // what textFormat says, once it was asked
	textSeen bool
}

func readEnds(r io.ReaderAt, size int64) (*ends, error) {
	if size < 0 {
		return nil, fmt.Errorf("telling the disk format: the size %d is negative", size)
	}
	e := &ends{size: size}
	if size <= headSize+tailSize {
		all := make([]byte, size)
		if err := ReadFull(r, all, 0); err != nil {
			return nil, fmt.Errorf("telling the disk format: %w", err)
		}
		e.head = all[:min(size, headSize)]
		e.tail = all[max(0, size-tailSize):]
		return e, nil
	}
	e.head, e.tail = make([]byte, headSize), make([]byte, tailSize)
	if err := ReadFull(r, e.head, 0); err != nil {
		return nil, fmt.Errorf("telling the disk format: %w", err)
	}
	if err := ReadFull(r, e.tail, size-tailSize); err != nil {
		return nil, fmt.Errorf("telling the disk format: %w", err)
	}
	return e, nil
}

// signature is one mark of a format. All marks are looked for in every file.
type signature struct {
	format Format
	match  func(*ends) bool
}

// head matches magic at off from the front.
func head(off int, magic string) func(*ends) bool {
	return func(e *ends) bool {
		return len(e.head) >= off+len(magic) && string(e.head[off:off+len(magic)]) == magic
	}
}

// foot matches magic at off before the end.
func foot(off int, magic string) func(*ends) bool {
	return func(e *ends) bool {
		at := len(e.tail) - off
		return at >= 0 && len(e.tail) >= at+len(magic) && string(e.tail[at:at+len(magic)]) == magic
	}
}

// vmdkDescriptor matches the text file that only names other files. Its first
// line is a comment; comments and blank lines before it are allowed.
func vmdkDescriptor(e *ends) bool {
	text := bytes.TrimPrefix(e.head[:min(len(e.head), 4096)], []byte("\xef\xbb\xbf")) // an editor's
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		line = bytes.ToLower(bytes.TrimSpace(line))
		switch {
		case bytes.HasPrefix(line, []byte("# disk descriptorfile")):
			return true
		case len(line) > 0 && line[0] != '#':
			return false
		}
		text = rest
	}
	return false
}

// The cookie that opens a ZVHD2 header and footer; readers compare these six
// bytes of the eight.
const zvhd2Cookie = "z2strm"

func (e *ends) format() (Format, error) {
	var found []Format
	add := func(f Format) {
		for _, g := range found {
			if g == f {
				return
			}
		}
		found = append(found, f)
	}
	front, back := head(0, zvhd2Cookie)(e), foot(4096, zvhd2Cookie)(e)
	if front || back {
		add(ZVHD2)
	}
	for _, s := range signatures {
		if s.match(e) {
			add(s.format)
		}
	}
	switch {
	case len(found) > 1:
		names := make([]string, len(found))
		for i, f := range found {
			names[i] = string(f)
		}
		return "", Errorf("", ErrAmbiguous, "",
			"the file carries the marks of %s; a disk image must be of one format alone", strings.Join(names, " and "))
	case len(found) == 0:
		for _, s := range weakSignatures {
			if s.match(e) {
				return s.format, nil
			}
		}
		return Raw, nil
	case found[0] == ZVHD2 && !back:
		return ZVHD2, Errorf(ZVHD2, ErrIncomplete, "footer",
			"the file begins as ZVHD2 but its last 4096 bytes are no footer: it was cut off; upload it whole")
	case found[0] == ZVHD2 && !front:
		return ZVHD2, Errorf(ZVHD2, ErrCorrupt, "header.cookie",
			"the file ends with a ZVHD2 footer but does not begin with %q", zvhd2Cookie)
	}
	return found[0], nil
}
