package objectstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"
)

// s3Codes gives the error codes of S3 stores their meaning where their HTTP
// status does not give it. The codes are those of the Amazon S3 API reference
// ("Error responses"), of MinIO and of versitygw.
var s3Codes = map[string]error{
	"NoSuchBucket":                   ErrNoBucket,
	"InvalidBucketName":              ErrNoBucket,
	"NoSuchKey":                      ErrNotFound,
	"NoSuchVersion":                  ErrNotFound,
	"PreconditionFailed":             ErrChanged,
	"ConditionalRequestConflict":     ErrUnavailable,
	"OperationAborted":               ErrUnavailable,
	"RequestTimeout":                 ErrUnavailable,
	"SlowDown":                       ErrUnavailable,
	"XMinioStorageFull":              ErrNoSpace,
	"XMinioAdminBucketQuotaExceeded": ErrNoSpace,
	"QuotaExceeded":                  ErrNoSpace,
	"InsufficientStorage":            ErrNoSpace,
	"InsufficientStorageSpace":       ErrNoSpace,
	"InvalidRange":                   io.ErrUnexpectedEOF,
	"NotImplemented":                 errNotImplemented,
}

// errNotImplemented is what a store says of a part of S3 that it lacks.
var errNotImplemented = errors.New("not implemented by the store")

// s3Statuses gives HTTP statuses their meaning.
var s3Statuses = map[int]error{
	http.StatusUnauthorized:                 ErrDenied,
	http.StatusForbidden:                    ErrDenied,
	http.StatusNotFound:                     ErrNotFound,
	http.StatusRequestTimeout:               ErrUnavailable,
	http.StatusPreconditionFailed:           ErrChanged,
	http.StatusRequestedRangeNotSatisfiable: io.ErrUnexpectedEOF,
	http.StatusTooManyRequests:              ErrUnavailable,
	http.StatusInternalServerError:          ErrUnavailable,
	http.StatusNotImplemented:               errNotImplemented,
	http.StatusBadGateway:                   ErrUnavailable,
	http.StatusServiceUnavailable:           ErrUnavailable,
	http.StatusGatewayTimeout:               ErrUnavailable,
	http.StatusInsufficientStorage:          ErrNoSpace,
}

// classifyS3 gives an error of the client library its meaning.
func classifyS3(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	for _, known := range []error{ErrNoBucket, ErrInvalid, ErrUnavailable} {
		if errors.Is(err, known) {
			return err
		}
	}
	var resp minio.ErrorResponse
	if errors.As(err, &resp) {
		meaning := s3Codes[resp.Code]
		if meaning == nil {
			meaning = s3Statuses[resp.StatusCode]
		}
		said := fmt.Errorf("the store says %d %s: %.200s", resp.StatusCode, resp.Code, resp.Error())
		if meaning == nil {
			return said
		}
		return fmt.Errorf("%w: %w", meaning, said)
	}
	var untrusted *tls.CertificateVerificationError
	var badRecord tls.RecordHeaderError
	if errors.As(err, &untrusted) || errors.As(err, &badRecord) {
		return err // stays so until somebody changes a certificate or a URL
	}
	var netErr net.Error
	var urlErr *url.Error
	if errors.As(err, &netErr) || errors.As(err, &urlErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
