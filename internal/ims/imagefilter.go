package ims

import (
	"strings"
	"time"
)

// ImageFilter selects images of a list: a project's own, those of others that are shared
// with it and that it accepted, and public ones. Empty fields do not filter.
type ImageFilter struct {
	Owner string // project
	// Visibility, if set: shared are a project's own that were made so or have members, and
	// those that others share with it; public are everybody's.
	Visibility Visibility
	// OwnAlone leaves out what others share and what is public, ForeignAlone what is the
	// project's own and what is public, SharedAlone what has no member.
	OwnAlone, ForeignAlone, SharedAlone bool
	// MemberStatus are what the project answered to what others share; empty: accepted.
	MemberStatus []MemberStatus

	IDs   []string
	Names []string
	// NameParts must all occur in the name.
	NameParts []string
	Status    []ImageStatus // empty: all but killed and deleted
	Env       EnvType
	// EnterpriseProjectID may be AllEnterpriseProjects, which does not filter. Any other
	// leaves out what is others', unless Visibility asks for public images.
	EnterpriseProjectID string
	// Tags must all match. Of the other lists: AnyTags at least one, NotAllTags not all
	// at once, NotAnyTags none.
	Tags, AnyTags, NotAllTags, NotAnyTags []TagCondition
	// Untagged selects images without any tag.
	Untagged bool

	OSType, OSBit, OSVersion string
	Platforms                []string
	Architecture, Firmware   string
	DiskFormat               string // of the stored data, which an active image alone has
	Protected                *bool
	// PublicProtected makes public images of others count as protected.
	PublicProtected       bool
	MinDiskGiB, MinRAMMiB *int // exactly
	Created, Updated      TimeFilter
	// What the Image API's filters ask for of what it shows. Each list matches by any of its
	// values, BareTags by all of them: each is the text that a tag is shown as.
	DiskFormats, ContainerFormats []string
	MD5s, SHA512s                 []string
	BareTags                      []string
	Hidden                        *bool
	SizeMin, SizeMax              *int64 // bytes of a download, both included
	VirtualSizes                  []int64
	// Properties must be set to exactly these values; see Image.Properties.
	Properties map[string]string
	// MinRAMAtMost is the memory of the machine that the images are for, in MiB.
	MinRAMAtMost *int
	// Attributes must be set to exactly these values, Unset to none; see Image.Attributes.
	Attributes map[string]string
	Unset      []string

	// None makes the list empty: a filter that no image here can match.
	None bool

	// Sort are the keys of the order; none: by created_at, the newest first. What they
	// leave equal is ordered by the id, in the last key's direction.
	Sort     []SortOrder
	Limit    int    // 1 to MaxListLimit
	Offset   int    // how many images to leave out before the first
	MarkerID string // the last image of the page before
}

// SortOrder is one key of a list's order.
type SortOrder struct {
	Key string // one of SortKeys, SortDeliveredFormat or SortDeliveredSize
	Asc bool
}

// TagCondition matches images that carry the key with one of the values, or with any
// value if there are none.
type TagCondition struct {
	Key    string
	Values []string
}

// ParseTagFilter reads key=value or key.
func ParseTagFilter(s string) TagCondition {
	k, v, ok := strings.Cut(s, "=")
	if !ok {
		return TagCondition{Key: k}
	}
	return TagCondition{Key: k, Values: []string{v}}
}

// MaxListLimit is the longest page of a list; DefaultListLimit the one that a
// request without a limit gets.
const (
	MaxListLimit     = 1000
	DefaultListLimit = 500
)

// SortKeys are what a list can be ordered by.
var SortKeys = []string{"created_at", "updated_at", "name", "container_format", "disk_format", "status", "id", "size"}

// SortDeliveredFormat and SortDeliveredSize order by what a download delivers, where SortKeys order by what is
// stored.
const (
	SortDeliveredFormat = "delivered_format"
	SortDeliveredSize   = "delivered_size"
)

// TimeFilter matches the times from From on and before Before, or with Except all
// others. A zero bound is open; the zero value matches every time.
type TimeFilter struct {
	From, Before time.Time
	Except       bool
}

// timeForms are the two forms in which a filter's time may be written, both in UTC.
var timeForms = []string{"2006-01-02T15:04:05Z", "2006-01-02 15:04:05"}

// ParseTimeFilter reads "op:time" with the operators gt, gte, lt, lte, eq and neq. The
// time stands for the whole second, because clients see seconds alone: what they were
// shown as 10:00:00 is equal to it, whatever its milliseconds are. field names the
// filter in the error.
func ParseTimeFilter(s, field string) (TimeFilter, error) {
	op, text, _ := strings.Cut(s, ":")
	for _, form := range timeForms {
		second, err := time.Parse(form, text)
		if err != nil || second.Nanosecond() != 0 { // Parse takes a fraction that the form has not
			continue
		}
		next := second.Add(time.Second)
		switch op {
		case "gt":
			return TimeFilter{From: next}, nil
		case "gte":
			return TimeFilter{From: second}, nil
		case "lt":
			return TimeFilter{Before: second}, nil
		case "lte":
			return TimeFilter{Before: next}, nil
		case "eq":
			return TimeFilter{From: second, Before: next}, nil
		case "neq":
			return TimeFilter{From: second, Before: next, Except: true}, nil
		}
	}
	return TimeFilter{}, Faultf(CodeBadFormat, "%s is %q, it must be gt:, gte:, lt:, lte:, eq: or neq: and a time such as 2026-01-31T08:00:00Z", field, Clip(s))
}
