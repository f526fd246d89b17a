package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
)

// result prints what a command found out: doc as JSON, or what text writes.
func (s *session) result(doc any, text func(io.Writer)) error {
	if !s.json {
		w := tabwriter.NewWriter(s.Stdout, 0, 8, 2, ' ', 0)
		text(w)
		return w.Flush()
	}
	enc := json.NewEncoder(s.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// event prints something that happens on the way: a line of JSON, or text.
func (s *session) event(doc any, format string, args ...any) {
	if s.json {
		s.jsonLine(doc)
		return
	}
	fmt.Fprintf(s.Stderr, format+"\n", args...)
}

// note prints a sentence for the user on the way.
func (s *session) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.event(noteEvent{"note", text}, "%s", text)
}

type noteEvent struct {
	Event string `json:"event"`
	Text  string `json:"text"`
}

func (s *session) jsonLine(doc any) {
	enc := json.NewEncoder(s.Stderr)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(doc) // stderr gone: nobody left to tell
}

// errorDoc is an error as scripts read it.
type errorDoc struct {
	// Code is the service's (IMG.0057), the object store's (NoSuchBucket), or one of
	// ours: usage, interrupted, not_found, exists, permission, no_space, corrupt,
	// incomplete, unsupported, wrong_format, ambiguous, mismatch, certificate, failed.
	Code      string `json:"code"`
	Message   string `json:"message"`
	Details   string `json:"details,omitempty"`
	Status    int    `json:"status,omitempty"` // of HTTP
	RequestID string `json:"request_id,omitempty"`
	JobID     string `json:"job_id,omitempty"`
	Hint      string `json:"hint,omitempty"`
}

// errInterrupted ends a command that the user stopped.
var errInterrupted = errors.New("interrupted")

// kindError is an error that has a text of its own and is of a known kind.
type kindError struct {
	kind error
	text string
}

func (e *kindError) Error() string { return e.text }
func (e *kindError) Unwrap() error { return e.kind }

// interrupted puts a plain word in the place of whatever broke because ctx ended.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// localCodes are the codes of errors that arise here. The first that fits counts.
var localCodes = []struct {
	err  error
	code string
}{
	{errInterrupted, "interrupted"},
	{context.Canceled, "interrupted"},
	{client.ErrNotConfigured, "usage"},
	{diskformat.ErrIncomplete, "incomplete"},
	{diskformat.ErrCorrupt, "corrupt"},
	{diskformat.ErrUnsupported, "unsupported"},
	{diskformat.ErrWrongFormat, "wrong_format"},
	{diskformat.ErrAmbiguous, "ambiguous"},
	{diskformat.ErrMismatch, "mismatch"},
	{fs.ErrNotExist, "not_found"},
	{fs.ErrExist, "exists"},
	{fs.ErrPermission, "permission"},
	{syscall.ENOSPC, "no_space"},
}

// describe takes an error apart for scripts.
func describe(err error) errorDoc {
	doc := errorDoc{Code: "failed", Message: err.Error()}
	if distrusted(err) {
		doc.Code, doc.Hint = "certificate", certificateHint
		return doc
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		doc.Code = "usage"
		return doc
	}
	if e, ok := errors.AsType[*client.JobError](err); ok {
		doc.JobID, doc.Message = e.Job.ID, e.Job.FailReason
		if e.Job.ErrorCode != "" {
			doc.Code = e.Job.ErrorCode
		}
		return doc
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		doc.Message, doc.Details, doc.Status, doc.RequestID = e.Message, e.Details, e.Status, e.RequestID
		if e.Code != "" {
			doc.Code = e.Code
		}
		return doc
	}
	if e, ok := errors.AsType[*ims.Error](err); ok {
		doc.Code, doc.Message, doc.Details = string(e.Code), e.Code.Message(), e.Detail
		return doc
	}
	for _, known := range localCodes {
		if errors.Is(err, known.err) {
			doc.Code = known.code
			break
		}
	}
	return doc
}

// printError prints why the command failed.
func (s *session) printError(err error) {
	if s.json {
		s.jsonLine(struct {
			Error errorDoc `json:"error"`
		}{describe(err)})
		return
	}
	e, ok := errors.AsType[*client.Error](err)
	program := s.coloured(s.Stderr, red, "quickims:")
	if !ok {
		fmt.Fprintf(s.Stderr, "%s %v\n", program, err)
		if distrusted(err) {
			fmt.Fprintf(s.Stderr, "  %s\n", certificateHint)
		}
		return
	}
	// What was being done stands before the service's own words.
	what := strings.TrimSuffix(strings.TrimSuffix(err.Error(), e.Error()), ": ")
	if what == "" {
		what = e.Request
	}
	fmt.Fprintf(s.Stderr, "%s %s: %s\n", program, what, e.Message)
	w := tabwriter.NewWriter(s.Stderr, 0, 8, 2, ' ', 0)
	for _, row := range [][2]string{
		{"code", e.Code}, {"details", e.Details}, {"request", e.Request}, {"status", strconv.Itoa(e.Status)}, {"request id", e.RequestID},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "  %s\t%s\n", row[0], row[1])
		}
	}
	_ = w.Flush() // stderr gone: nobody left to tell
	if e.Status == 401 {
		fmt.Fprintf(s.Stderr, "  The service does not accept these credentials: check %s and %s, or name the server's credentials.env with --credentials.\n",
			client.EnvAccessKey, client.EnvSecretKey)
	}
}

// size prints bytes as people read them, in units of 1024.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	// 1023.95 and more would be printed as 1024.0 of the unit below.
	for f >= 1023.95 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%s %ciB", strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0"), units[unit])
}

// exactSize is size with the bytes beside it.
func exactSize(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%s (%d bytes)", size(n), n)
}

// seconds prints a duration as people read it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// code is the service's or the store's code of an error; "" if it has none.
func code(err error) string {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code
	}
	return ""
}
