package ims

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed osversions.csv
var osVersionsCSV []byte

// OSVersion is an operating system that a system disk image may hold.
type OSVersion struct {
	Version  string // the value of os_version, such as "Ubuntu 22.04 server 64bit"
	Platform string
	Type     string // Linux or Windows; Other, if nothing is known
	Bit      int    // 32 or 64
	// Tags say where it runs: any of x86, arm, uefi, bms.
	Tags []string
}

// UnknownSystem is the published name of a system of which its type alone is known: Linux,
// Windows or Other.
func UnknownSystem(kind string) OSVersion {
	if kind == "Other" {
		return OSVersion{Platform: "Other", Type: kind}
	}
	return OSVersion{Version: "Other_" + kind + " (64_bit)", Platform: "Other", Type: kind, Bit: 64}
}

// OSVersions is the table of known operating systems, in file order. It does not
// change after it was made.
type OSVersions struct {
	list  []OSVersion
	index map[string]int
}

var osVersionColumns = []string{"os_version", "platform", "os_type", "os_bit", "source", "tags"}

// osVersionTags are the values of the query parameter tag.
var osVersionTags = []string{"x86", "arm", "uefi", "bms"}

// maxOSVersions bounds the rows of one file.
const maxOSVersions = 10_000

// DefaultOSVersions is the table that the service comes with.
func DefaultOSVersions() *OSVersions { return defaultOSVersions() }

var defaultOSVersions = sync.OnceValue(func() *OSVersions {
	t := &OSVersions{index: map[string]int{}}
	if err := t.add(bytes.NewReader(osVersionsCSV)); err != nil {
		panic("ims: osversions.csv: " + err.Error()) // embedded: a broken build
	}
	return t
})

// Extend returns the table with the rows of a CSV file of the same columns added;
// a row of a known os_version replaces it.
func (t *OSVersions) Extend(r io.Reader) (*OSVersions, error) {
	n := &OSVersions{list: slices.Clone(t.list), index: make(map[string]int, len(t.index))}
	for k, v := range t.index {
		n.index[k] = v
	}
	return n, n.add(r)
}

func (t *OSVersions) add(r io.Reader) error {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = len(osVersionColumns)
	head, err := rows.Read()
	if err != nil {
		return fmt.Errorf("read the head line: %w", err)
	}
	if !slices.Equal(head, osVersionColumns) {
		return fmt.Errorf("the head line is %q, it must be %q", strings.Join(head, ","), strings.Join(osVersionColumns, ","))
	}
	for n := 0; ; n++ {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _ := rows.FieldPos(0)
		if n == maxOSVersions {
			return fmt.Errorf("line %d: more than %d rows", line, maxOSVersions)
		}
		v := OSVersion{Version: row[0], Platform: row[1], Type: row[2], Tags: strings.Fields(row[5])}
		v.Bit, err = strconv.Atoi(row[3])
		switch {
		case v.Version == "" || v.Platform == "":
			return fmt.Errorf("line %d: os_version and platform must not be empty", line)
		case v.Type != "Linux" && v.Type != "Windows":
			return fmt.Errorf("line %d: os_type is %q, it must be Linux or Windows", line, v.Type)
		case err != nil || v.Bit != 32 && v.Bit != 64:
			return fmt.Errorf("line %d: os_bit is %q, it must be 32 or 64", line, row[3])
		}
		for _, tag := range v.Tags {
			if !slices.Contains(osVersionTags, tag) {
				return fmt.Errorf("line %d: tag %q is none of %s", line, tag, strings.Join(osVersionTags, ", "))
			}
		}
		if i, ok := t.index[v.Version]; ok {
			t.list[i] = v
			continue
		}
		t.index[v.Version] = len(t.list)
		t.list = append(t.list, v)
	}
}

// Lookup finds an operating system by the value of os_version.
func (t *OSVersions) Lookup(version string) (OSVersion, bool) {
	i, ok := t.index[version]
	if !ok {
		return OSVersion{}, false
	}
	return t.list[i], true
}

// With gives those that carry all the tags, in file order; all of them for no tag.
func (t *OSVersions) With(tags ...string) []OSVersion {
	var out []OSVersion
	for _, v := range t.list {
		if !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(v.Tags, tag) }) {
			out = append(out, v)
		}
	}
	return out
}
