package ims

import (
	"regexp"
	"time"
)

// MemberStatus is what a project answered to the offer of an image.
type MemberStatus string

// The states of a member. It may change between them as often as it likes.
const (
	MemberPending  MemberStatus = "pending"
	MemberAccepted MemberStatus = "accepted"
	MemberRejected MemberStatus = "rejected"
)

// MemberStatuses are all of them.
var MemberStatuses = []MemberStatus{MemberPending, MemberAccepted, MemberRejected}

// MaxMembers is how many projects an image can be shared with.
const MaxMembers = 256

// Member is a project that an image is shared with.
type Member struct {
	ImageID   string
	ProjectID string
	Status    MemberStatus
	CreatedAt time.Time
	UpdatedAt time.Time
}

// MaxMemberPairs is how many pairs of an image and a project one request may be about.
const MaxMemberPairs = 1000

// MemberJob is a request about every pair of some images and projects. It is carried out
// whole before it is answered: who reads it finds it ended.
type MemberJob struct {
	ID        string // 32 lower-case hex digits
	ProjectID string // who sent it
	Type      JobType
	Pairs     []MemberPair
	EndedAt   time.Time
}

// MemberPair is one image and one project, with the id of its part of the job.
type MemberPair struct {
	JobID, ImageID, ProjectID string
}

var projectForm = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)

// ValidProjectID reports whether s has the form of a project's id. Whether there is such
// a project is nobody's to know but its own.
func ValidProjectID(s string) bool { return projectForm.MatchString(s) }
