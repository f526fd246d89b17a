package ims

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"time"
)

// JobStatus is a job's state as clients read it.
type JobStatus string

// A job goes INIT → RUNNING → SUCCESS or FAIL and never leaves the last two.
const (
	JobInit    JobStatus = "INIT"
	JobRunning JobStatus = "RUNNING"
	JobSuccess JobStatus = "SUCCESS"
	JobFail    JobStatus = "FAIL"
)

// Final reports whether the job has ended.
func (s JobStatus) Final() bool { return s == JobSuccess || s == JobFail }

// JobType names what a job does, in the wire's spelling.
type JobType string

// The job types.
const (
	JobImportSystem JobType = "imsImportImageJob"
	JobImportData   JobType = "imsImportDataImageJob"
	// JobRegister imports a file into a queued image.
	JobRegister JobType = "imsNativeImportImageJob"
	// JobCopy makes an image of another's data. Its source lies in the image area.
	JobCopy JobType = "imsCopyImageInRegionJob"
	// JobExport writes an image's data to a bucket. Its source is where it goes.
	JobExport JobType = "imsNativeExportImageJob"
	// JobUpload is an upload of the Image API. It has no source.
	JobUpload JobType = "imsUploadImageJob"
	// The requests about many images and members at once.
	JobAddMembers    JobType = "imsAddImageMembersJob"
	JobDeleteMembers JobType = "imsDelImageMembersJob"
	JobUpdateMembers JobType = "imsUpdateImageMembersJob"
)

// Step is where an import stands; also the job's current_task.
type Step string

// The steps of an import, in order. docs/states.md has the picture.
const (
	StepAccepted Step = "accepted"
	StepPin      Step = "pin"
	StepInspect  Step = "inspect"
	StepAdopt    Step = "adopt"
	StepPublish  Step = "publish"
	StepExport   Step = "export" // in place of all others
	StepClean    Step = "clean"
)

// Source is the object that an import starts from, or an export makes. ETag and Version are empty
// until it is pinned.
type Source struct {
	Bucket, Key string
	Size        int64 // bytes
	ETag        string
	Version     string
	// BitmapKey is the key of the bitmap (.mf) in the same bucket, "" for none.
	BitmapKey  string
	BitmapSize int64
	BitmapETag string
	// Format is what the inspection found: "raw", "zvhd2", or "" before it.
	Format string
	// VirtualSize is the disk's size in bytes that a machine sees, 0 before inspection.
	VirtualSize int64
	// Before is the number of the last attempt at the image before the job.
	Before int64
	// Upload is the multipart upload that an export began, "" for none.
	Upload string
	// NoBitmap: a RAW file needs no bitmap beside it. Config: the request asked for the
	// system to be adapted, which nothing here does. Nested: the job is shown as its own
	// sub-job, too.
	// Converted: the export writes the disk in Format, and not the stored data.
	NoBitmap, Config, Nested, Converted bool
	// Warnings are what the inspection noticed that the owner should know. They do not
	// keep the import from going on.
	Warnings []Warning
}

// Warning is something about a disk that its owner should know.
type Warning struct {
	ID   string // stable, such as "no_content"
	Text string // a sentence without its full stop
}

// Job is the asynchronous work of one request.
type Job struct {
	ID        string // 32 lower-case hex digits
	ProjectID string
	Type      JobType
	Status    JobStatus
	Step      Step
	// Percent is the work done, 0 to 100.
	Percent int
	// Attempt is the fence: each worker that takes the job raises it, and writes of
	// an older attempt find no row.
	Attempt int64
	// Faults counts attempts that ended in a passing fault.
	Faults     int
	ImageID    string
	ImageName  string
	Source     Source
	ErrorCode  Code
	FailReason string
	BeginTime  time.Time
	EndTime    time.Time // zero until it ended
}

// Tries is how many attempts at the job there were.
func (j Job) Tries() int64 { return j.Attempt - j.Source.Before }

var jobID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// NewJobID makes a random job id.
func NewJobID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// NewGeneration draws the name of an image's bytes: 128 bits in hex, which nothing else
// will ever have.
func NewGeneration() string { return NewJobID() }

// ValidJobID reports whether s has the form of a job id.
func ValidJobID(s string) bool { return jobID.MatchString(s) }
