// Package wire is the S3 protocol as it stands on the wire: the error codes
// with their statuses, the XML documents, and the limits within which they are
// read. It does no I/O of its own and knows neither files nor keys.
package wire

import (
	"encoding/xml"
	"fmt"
	"net/http"
)

// Error is an error in S3's form. Its status follows from its code.
type Error struct {
	Code    string
	Message string
	// Details are further elements of the error document, such as the bucket's name.
	Details []Detail
}

// Detail is one further element of an error document.
type Detail struct{ Name, Value string }

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// With returns the error with one more element.
func (e *Error) With(name, value string) *Error {
	c := *e
	c.Details = append(append([]Detail(nil), e.Details...), Detail{name, value})
	return &c
}

// Status is the HTTP status of the error's code.
func (e *Error) Status() int {
	if c, ok := codes[e.Code]; ok {
		return c.status
	}
	return http.StatusInternalServerError
}

// Errorf returns an error with a sentence of its own.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Err returns an error with the sentence that its code has in the table.
func Err(code string) *Error { return &Error{Code: code, Message: codes[code].message} }

type codeInfo struct {
	status  int
	message string
}

// codes is every error code that the S3 face gives, with its status and the
// sentence that says it when nothing more precise is known.
var codes = map[string]codeInfo{
	"AccessControlListNotSupported":                  {400, "ACLs are not offered: a bucket and its objects belong to one project."},
	"InvalidStorageClass":                            {400, "The storage class is not offered; it must be STANDARD."},
	"AccessDenied":                                   {403, "Access denied."},
	"AuthorizationHeaderMalformed":                   {400, "The Authorization header is malformed."},
	"AuthorizationQueryParametersError":              {400, "The signature's query parameters are malformed."},
	"BadDigest":                                      {400, "The checksum that was sent does not match the body that arrived."},
	"BucketAlreadyExists":                            {409, "The bucket name is taken. Choose another name."},
	"BucketAlreadyOwnedByYou":                        {409, "The bucket exists already and belongs to your project."},
	"BucketNotEmpty":                                 {409, "The bucket is not empty. Delete its objects first."},
	"EntityTooLarge":                                 {400, "The body is larger than this request may carry."},
	"EntityTooSmall":                                 {400, "Every part but the last must have at least 5 MiB."},
	"IllegalLocationConstraintException":             {400, "The location constraint is not this service's region."},
	"IncompleteBody":                                 {400, "The body ended before the number of bytes that was announced."},
	"InternalError":                                  {500, "The service failed. Try again; the request id is in its log."},
	"InvalidAccessKeyId":                             {403, "The access key does not exist or was revoked."},
	"InvalidArgument":                                {400, "An argument is not valid."},
	"InvalidBucketName":                              {400, "A bucket name has 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends."},
	"InvalidDigest":                                  {400, "Content-MD5 is not the base64 form of 16 bytes."},
	"InvalidPart":                                    {400, "A part was not uploaded, or its ETag is not the one that was given."},
	"InvalidPartOrder":                               {400, "The parts must be listed by ascending part number, each once."},
	"InvalidPolicyDocument":                          {400, "The form's policy is not a valid policy document."},
	"InvalidRange":                                   {416, "The range begins behind the object's end."},
	"InvalidRequest":                                 {400, "The request is not valid."},
	"InvalidTag":                                     {400, "The tag is not valid."},
	"InvalidURI":                                     {400, "The request's URI is not well formed."},
	"KeyTooLongError":                                {400, "The key has more than 1024 bytes."},
	"MalformedPOSTRequest":                           {400, "The body is not a well-formed multipart/form-data form."},
	"MalformedXML":                                   {400, "The XML document is not well formed or is not what this request takes."},
	"MaxMessageLengthExceeded":                       {400, "The document is larger than its kind may be."},
	"MetadataTooLarge":                               {400, "The names and values of the user metadata have more than 2048 bytes together."},
	"MethodNotAllowed":                               {405, "This method is not allowed for this resource."},
	"MissingContentLength":                           {411, "The request needs a Content-Length header."},
	"MissingRequestBodyError":                        {400, "The request needs a body."},
	"MissingSecurityHeader":                          {400, "A header that the signature needs is missing."},
	"NoSuchBucket":                                   {404, "The bucket does not exist."},
	"NoSuchBucketPolicy":                             {404, "The bucket has no policy: policies are not offered."},
	"NoSuchCORSConfiguration":                        {404, "The bucket has no CORS configuration: CORS is not offered."},
	"NoSuchKey":                                      {404, "The object does not exist."},
	"NoSuchLifecycleConfiguration":                   {404, "The bucket has no lifecycle configuration: lifecycle rules are not offered."},
	"NoSuchObjectLockConfiguration":                  {404, "The object has no lock: object lock is not offered."},
	"NoSuchPublicAccessBlockConfiguration":           {404, "The bucket has no public access block: buckets are never public."},
	"NoSuchTagSet":                                   {404, "There are no tags: tagging is not offered."},
	"NoSuchUpload":                                   {404, "The multipart upload does not exist. It may have been completed or aborted."},
	"NoSuchVersion":                                  {404, "The version does not exist: buckets have no versions."},
	"NoSuchWebsiteConfiguration":                     {404, "The bucket has no website configuration: websites are not offered."},
	"NotImplemented":                                 {501, "This operation is not offered."},
	"ObjectLockConfigurationNotFoundError":           {404, "The bucket has no object lock configuration: object lock is not offered."},
	"OperationAborted":                               {409, "Another request is changing the same resource. Try again."},
	"OwnershipControlsNotFoundError":                 {404, "The bucket has no ownership controls: there are no ACLs."},
	"PreconditionFailed":                             {412, "A condition of the request does not hold."},
	"QuotaExceeded":                                  {413, "The project's quota is used up."},
	"ReplicationConfigurationNotFoundError":          {404, "The bucket has no replication configuration: replication is not offered."},
	"RequestTimeTooSkewed":                           {403, "The request's time differs from the service's by more than 15 minutes."},
	"RequestTimeout":                                 {400, "The body did not arrive in time."},
	"ServerSideEncryptionConfigurationNotFoundError": {404, "The bucket has no encryption configuration: encryption by the service is not offered."},
	"ServiceUnavailable":                             {503, "The service cannot carry out the request now. Try again."},
	"SignatureDoesNotMatch":                          {403, "The signature does not match. Check the key pair, and that no proxy changes the request."},
	"SlowDown":                                       {503, "Too many requests are in progress. Try again."},
	"InsufficientStorage":                            {507, "The disk of the store is full."},
	"XAmzContentSHA256Mismatch":                      {400, "The body's SHA-256 is not the one in x-amz-content-sha256."},
}

// errorDocument is the body of an error response.
type errorDocument struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Details   []detailElement
	Resource  string `xml:",omitempty"`
	RequestID string `xml:"RequestId,omitempty"`
	HostID    string `xml:"HostId,omitempty"`
}

type detailElement struct {
	XMLName xml.Name
	Value   string `xml:",chardata"`
}

// Document returns the error's XML document.
func (e *Error) Document(resource, requestID string) []byte {
	doc := errorDocument{Code: e.Code, Message: e.Message, Resource: resource, RequestID: requestID, HostID: requestID}
	for _, d := range e.Details {
		doc.Details = append(doc.Details, detailElement{XMLName: xml.Name{Local: d.Name}, Value: d.Value})
	}
	return Marshal(doc)
}
