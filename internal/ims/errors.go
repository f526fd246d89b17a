package ims

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
)

// Code is an error code of the service, such as "IMG.0057". The empty code
// stands for an error that nobody classified.
type Code string

// The codes that the service itself gives. Their texts and statuses are in
// errorcodes.csv, the table published with the API reference (release 20251110).
const (
	CodeBadFormat          Code = "IMG.0001"
	CodeNameTooLong        Code = "IMG.0002"
	CodeNameFormat         Code = "IMG.0003"
	CodeDescriptionTooLong Code = "IMG.0004"
	CodeBodyEmpty          Code = "IMG.0007"
	CodeNameMissing        Code = "IMG.0013"
	CodeQuota              Code = "IMG.0015"
	CodeURLFormat          Code = "IMG.0017"
	CodeJobUnknown         Code = "IMG.0023"
	CodeTypeUnknown        Code = "IMG.0024"
	CodeForbidden          Code = "IMG.0026"
	CodeImageUnknown       Code = "IMG.0027"
	CodeImageProtected     Code = "IMG.0028"
	CodeProjectMismatch    Code = "IMG.0030"
	CodeConflict           Code = "IMG.0035"
	CodeImageNotActive     Code = "IMG.0046"
	CodeOwnerOnly          Code = "IMG.0047"
	CodeDescriptionFormat  Code = "IMG.0054"
	CodeDiskSize           Code = "IMG.0055"
	CodeOSVersion          Code = "IMG.0056"
	CodeFile               Code = "IMG.0057"
	CodeRegion             Code = "IMG.0058"
	CodeFileTooBig         Code = "IMG.0059"
	CodeTooManyJobs        Code = "IMG.0060"
	CodeInternal           Code = "IMG.0061"
	CodeProjectID          Code = "IMG.0067"
	CodeBucketEmpty        Code = "IMG.0068"
	CodeBucketAccess       Code = "IMG.0069"
	CodeFileExists         Code = "IMG.0070"
	CodeExportFormat       Code = "IMG.0072"
	CodeExportNameEmpty    Code = "IMG.0073"
	CodeExportNameTooLong  Code = "IMG.0074"
	CodeExportNameFormat   Code = "IMG.0075"
	CodeShareWithSelf      Code = "IMG.0076"
	CodeExportPublic       Code = "IMG.0077"
	CodeToken              Code = "IMG.0087"
	CodeMemberQuota        Code = "IMG.0088"
	CodeSharePublic        Code = "IMG.0089"
	CodeImageBeingMade     Code = "IMG.0090"
	CodeProjectName        Code = "IMG.0104"
	CodeUnsupported        Code = "IMG.0105"
	CodeExportTooLarge     Code = "IMG.0160"
	CodeBucketName         Code = "IMG.0109"
	CodeTag                Code = "IMG.0115"
	CodeTagQuota           Code = "IMG.0116"
	CodeObjectUnknown      Code = "IMG.0121"
	CodeOSType             Code = "IMG.0122"
	CodeFirmware           Code = "IMG.0141"
	CodeExporting          Code = "IMG.0148"
	CodeEnterpriseProject  Code = "IMG.0155"
	CodeNotAllowed         Code = "IMG.0161"
	CodeSpaces             Code = "IMG.0175"
	CodeCopyNotAccepted    Code = "IMG.0196"
	CodeFlavor             Code = "IMG.0192"
	CodeArchitecture       Code = "IMG.0212"
)

//go:embed errorcodes.csv
var errorCodesCSV []byte

// Kind says what sort of fault an Error is. The edges of the service turn it into a
// status of their protocol; no other package knows one.
type Kind uint8

// The kinds. KindOfCode, the zero Kind, stands for the kind in the code's row of the
// published table.
const (
	KindOfCode          Kind = iota
	KindInvalid              // the request is wrong and stays wrong
	KindUnauthenticated      // the credentials are missing or wrong
	KindForbidden            // the caller has no right to the operation
	KindNotFound             // the thing that the request names by its id does not exist for the caller
	KindConflict             // the state of the thing does not allow the operation
	KindThrottled            // the caller has asked too often; a later request may succeed
	KindUnavailable          // the service cannot work now; the same request may succeed later
	KindInternal             // the service is at fault
	KindWrongFormat          // the bytes are in a format that the operation does not take
	KindTooLarge             // what is to be stored is more than the caller may store
	KindNoSpace              // the service has no space for what is to be stored
)

type codeEntry struct {
	kind    Kind
	message string
}

// publishedKinds are the statuses that occur in the published table.
var publishedKinds = map[string]Kind{"400": KindInvalid, "403": KindForbidden}

var codes = mustReadCodes(errorCodesCSV)

func mustReadCodes(data []byte) map[Code]codeEntry {
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		panic(fmt.Sprintf("ims: errorcodes.csv: %v", err)) // embedded: a broken build, not a broken input
	}
	table := make(map[Code]codeEntry, len(rows))
	for _, row := range rows[1:] {
		kind, ok := publishedKinds[row[1]]
		if !ok {
			panic(fmt.Sprintf("ims: errorcodes.csv: %s: no kind stands for status %q", row[0], row[1]))
		}
		table[Code(row[0])] = codeEntry{kind: kind, message: row[2]}
	}
	return table
}

// Message is the published text of the code.
func (c Code) Message() string {
	if e, ok := codes[c]; ok {
		return e.message
	}
	return codes[CodeInternal].message
}

// Kind is the kind that the code has unless an Error has another.
func (c Code) Kind() Kind {
	if e, ok := codes[c]; ok {
		return e.kind
	}
	return KindInternal
}

// Known reports whether the published table has the code.
func (c Code) Known() bool { _, ok := codes[c]; return ok }

// Error is a fault that a client is told of.
type Error struct {
	Code Code
	// kind replaces the kind of the code's row unless it is KindOfCode.
	kind Kind
	// Detail names the field, file or limit at fault and what would be right.
	// It goes to the client: no secret, no path of this machine.
	Detail string
	// Err is the cause, for the log alone.
	Err error
}

// Error is the code, its published text and the detail.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Reason()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Reason is the published text followed by the detail: what a failed job says.
func (e *Error) Reason() string {
	if e.Detail == "" {
		return e.Code.Message()
	}
	return e.Code.Message() + " (" + e.Detail + ")"
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Kind is the error's own kind, or else its code's; never KindOfCode.
func (e *Error) Kind() Kind {
	if e.kind != KindOfCode {
		return e.kind
	}
	return e.Code.Kind()
}

// WithKind returns a copy of e that has this kind: the same code is KindNotFound where
// a thing is looked up by its id.
func (e *Error) WithKind(kind Kind) *Error {
	c := *e
	c.kind = kind
	return &c
}

// Faultf makes an Error whose detail is formatted. A %w operand becomes its cause
// and is left in the detail; use Cause for a cause that the client must not read.
func Faultf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// NotFoundf makes an Error of KindNotFound.
func NotFoundf(code Code, format string, args ...any) *Error {
	return Faultf(code, format, args...).WithKind(KindNotFound)
}

// Cause returns a copy of e that carries err for the log.
func (e *Error) Cause(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// CodeOf is the code of the first Error in err's chain, or "".
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}
