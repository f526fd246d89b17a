// Package wire has the documents of the API that the service writes and our own client
// reads: one form for both.
package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Job is a job. Times are UTC, in milliseconds; what a job does not have is null.
type Job struct {
	ID         string      `json:"job_id"`
	Type       string      `json:"job_type"`
	Status     string      `json:"status"`
	BeginTime  *string     `json:"begin_time"`
	EndTime    *string     `json:"end_time"`
	ErrorCode  *string     `json:"error_code"`
	FailReason *string     `json:"fail_reason"`
	Entities   JobEntities `json:"entities"`
}

// Jobs is a page of a project's jobs.
type Jobs struct {
	Jobs []Job `json:"jobs"`
}

// Accepted is the answer to a request that a job carries out.
type Accepted struct {
	JobID string `json:"job_id"`
}

// JobEntities say what the job makes and how far it is.
type JobEntities struct {
	ImageID   string `json:"image_id,omitempty"`
	ImageName string `json:"image_name,omitempty"`
	// SubJobs are the jobs that this one is made of, SubJobsResult what became of them.
	SubJobs       []string `json:"sub_jobs_list,omitempty"`
	SubJobsResult []Job    `json:"sub_jobs_result,omitempty"`

	// Results are of a request about members: what became of each pair. Of the removal of
	// members it is empty, and there.
	Results *[]JobResult `json:"results,omitempty"`

	Task     string       `json:"current_task,omitempty"`
	Percent  Percent      `json:"process_percent"`
	Warnings []JobWarning `json:"warnings,omitempty"`
}

// JobResult is what became of an image and a member.
type JobResult struct {
	ImageID   string `json:"image_id"`
	ProjectID string `json:"project_id"`
	Status    string `json:"status"`
}

// JobWarning is something about the disk that its owner should know.
type JobWarning struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// Percent is written as a number from 0 to 100. Other services of this API write it as
// a string, too, which is read.
type Percent int

// UnmarshalJSON implements json.Unmarshaler. null leaves the value alone.
func (p *Percent) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	f, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	if err != nil || f != f {
		return fmt.Errorf("process_percent is %.20s, it must be a number", data)
	}
	*p = Percent(max(0, min(100, f)))
	return nil
}

var _ json.Unmarshaler = (*Percent)(nil)
