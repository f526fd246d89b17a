// Package conformance asks a service of the IMS API, ours or a public cloud's, whether it
// keeps the API's promises: each is a Check with a sentence and a reference. What the
// checks make has names that begin with Prefix and is removed at the end, also after an
// interruption.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/client"
)

// Prefix begins the names of all that a run makes.
const Prefix = "quickims-conformance-"

// cleanUpTime bounds the removal of what a run made.
const cleanUpTime = 2 * time.Minute

// Check is one promise.
type Check struct {
	// Name is area/what, such as "job/unknown".
	Name string `json:"name"`
	// Promise is what is asserted, in a sentence.
	Promise string `json:"promise"`
	// Reference says where it is written.
	Reference string `json:"reference"`
	// Writes marks a check that makes or changes something.
	Writes bool `json:"writes"`

	needs need
	run   func(ctx context.Context, r *run) error
}

// need is what a check cannot do without.
type need int

const (
	needNothing need = iota
	needLogin        // a user with a password
	needSource       // an object to import
	needImage        // the image that was imported
	needDisk         // that image, and the bytes of its disk
	needMember       // that image, and another project
	needUpload       // the image that was uploaded
)

// Source is an object that a quick import takes.
type Source struct {
	URL       string // bucket:key
	OSVersion string
	MinDisk   int64  // GiB
	Disk      []byte // nil: not known, or too large to be compared
}

// Config says what is asked, and with what.
type Config struct {
	// API is the service as the user calls it; Identity is where tokens are issued.
	API, Identity *client.Client
	ProjectID     string
	Login         client.Login // User is "" if there is none
	ReadOnly      bool
	// Prepare makes the object to import, whose name begins with name, and says how it is
	// removed; remove may be given beside an error. nil: there is none.
	Prepare func(ctx context.Context, name string) (s Source, remove func(context.Context) error, err error)
	// Member is the id of another project to share with; "": none.
	Member string
	// Only are beginnings of the names of the checks to run, besides those that make what
	// they need. None: all.
	Only []string
	// Timeout bounds one job.
	Timeout time.Duration
}

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Result is a check that ended.
type Result struct {
	Check
	Outcome Outcome `json:"outcome"`
	// Detail is why it failed or was skipped.
	Detail  string  `json:"detail,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Report is a whole run.
type Report struct {
	Results []Result `json:"checks"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	// Left is what could not be removed.
	Left []string `json:"left"`
}

// run is what the checks of one run share.
type run struct {
	Config
	name   string // begins the names of all that it makes
	source Source
	image  string // the id of the imported image, "" for none
	job    string // its job
	upload string // the id of the uploaded image
	made   []made
}

// made is something to be removed.
type made struct {
	what   string
	remove func(context.Context) error
}

// skip is the error of a check that says nothing about the service.
type skip struct{ why string }

func (s skip) Error() string { return s.why }

// notOffered is the skip of a check of what a service need not have.
func notOffered(a client.Answer) error {
	switch code := errorCode(a); {
	case a.Status == 404 && code == "IMG.0027":
		return nil // it has the call, and not the image
	case a.Status == 404, a.Status == 405, a.Status == 501, code == "IMG.0105":
		return skip{fmt.Sprintf("the service does not offer it (status %d %s)", a.Status, code)}
	}
	return nil
}

// Checks are all checks of the API, in the order in which they run.
func Checks() []Check {
	return slices.Concat(discoveryChecks, tokenChecks, errorChecks, listChecks, importChecks(), jobChecks, imageChecks, downloadChecks,
		patchChecks, tagChecks, memberChecks, quotaChecks, faceChecks, deletionChecks)
}

// Run runs the checks, and tells of each when it has ended. When ctx ends, the rest is
// skipped; what was made is removed all the same.
func Run(ctx context.Context, c Config, tell func(Result)) Report {
	r := &run{Config: c, name: Prefix + suffix()}
	var report Report
	for _, check := range c.wanted() {
		began := time.Now()
		result := Result{Check: check, Outcome: Passed}
		if err := r.one(ctx, check); err != nil {
			result.Outcome, result.Detail = Failed, err.Error()
			if _, ok := errors.AsType[skip](err); ok || ctx.Err() != nil {
				result.Outcome = Skipped
			}
			if ctx.Err() != nil {
				result.Detail = "interrupted"
			}
		}
		result.Seconds = time.Since(began).Seconds()
		switch result.Outcome {
		case Passed:
			report.Passed++
		case Failed:
			report.Failed++
		case Skipped:
			report.Skipped++
		}
		report.Results = append(report.Results, result)
		tell(result)
	}
	report.Left = r.cleanUp(ctx)
	return report
}

// makers are the checks that make what others need.
var makers = map[need]string{needImage: importCheck, needDisk: importCheck, needMember: importCheck, needUpload: uploadCheck}

// wanted are the checks that are asked for, and those that make what they need.
func (c Config) wanted() []Check {
	all := Checks()
	if len(c.Only) == 0 {
		return all
	}
	names := map[string]bool{}
	for _, check := range all {
		if slices.ContainsFunc(c.Only, func(p string) bool { return strings.HasPrefix(check.Name, p) }) {
			names[check.Name], names[makers[check.needs]] = true, true
		}
	}
	return slices.DeleteFunc(all, func(check Check) bool { return !names[check.Name] })
}

func (r *run) one(ctx context.Context, c Check) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Writes && r.ReadOnly {
		return skip{"it writes, and --read-only is set"}
	}
	switch {
	case c.needs == needLogin && r.Login.User == "":
		return skip{"no user and password are given: set " + client.EnvUser + " and " + client.EnvPassword}
	case c.needs == needSource && r.Prepare == nil:
		return skip{"no object to import is given: name one with --image-url, or a store with " + client.EnvS3Endpoint}
	case (c.needs == needImage || c.needs == needDisk || c.needs == needMember) && r.image == "":
		return skip{"no image was imported"}
	case c.needs == needDisk && r.source.Disk == nil:
		return skip{"the bytes of the imported disk are not known"}
	case c.needs == needMember && r.Member == "":
		return skip{"no other project is given: name one with --member"}
	case c.needs == needUpload && r.upload == "":
		return skip{"no image was uploaded"}
	}
	return c.run(ctx, r)
}

// remember notes something to be removed at the end.
func (r *run) remember(what string, remove func(context.Context) error) {
	r.made = append(r.made, made{what, remove})
}

// forget: it is removed already.
func (r *run) forget(what string) {
	r.made = slices.DeleteFunc(r.made, func(m made) bool { return m.what == what })
}

// cleanUp removes what was made, the last first, and says what is left.
func (r *run) cleanUp(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	left := []string{}
	for _, m := range slices.Backward(r.made) {
		if err := m.remove(ctx); err != nil {
			left = append(left, fmt.Sprintf("%s: %v", m.what, err))
		}
	}
	return left
}
