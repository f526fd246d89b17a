package s3face

import (
	"net/http"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// level is what a path names.
type level int

const (
	onService level = iota
	onBucket
	onObject
)

// operation is a row of the table of operations. A request is an operation when
// its method, its level and the row's selectors fit; of several, the one with
// the most selectors. Its other parameters and headers must be in the row.
type operation struct {
	name   string
	method string
	level  level
	// params select the operation by being in the query, header by being set.
	params []string
	header string
	// may are further parameters of the query, headers further headers named
	// x-amz-; a name that ends in '*' stands for all that begin with it.
	may, headers []string
	// writes: a key that only reads may not. adds: it puts something into the
	// bucket, which therefore must not be removed meanwhile.
	writes, adds bool
	do           func(*request) error
}

// Groups of headers that several operations take.
var (
	checksumHeaders = []string{"x-amz-checksum-crc32", "x-amz-checksum-crc32c", "x-amz-checksum-crc64nvme", "x-amz-checksum-sha1", "x-amz-checksum-sha256",
		"x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-trailer", "x-amz-decoded-content-length"}
	storeHeaders = []string{"x-amz-meta-*", "x-amz-storage-class", "x-amz-acl"}
	copyHeaders  = []string{"x-amz-copy-source", "x-amz-copy-source-if-match", "x-amz-copy-source-if-none-match",
		"x-amz-copy-source-if-modified-since", "x-amz-copy-source-if-unmodified-since", "x-amz-source-expected-bucket-owner"}
	responseParams = []string{"response-content-type", "response-content-language", "response-expires", "response-cache-control",
		"response-content-disposition", "response-content-encoding", "versionId", "partNumber"}
	// generalHeaders are taken with every operation.
	generalHeaders = []string{"x-amz-date", "x-amz-content-sha256", "x-amz-user-agent", "x-amz-expected-bucket-owner", "x-amz-request-payer", "x-amz-te"}
)

// operations is every operation there is. Whatever is not in it is answered
// with NotImplemented and changes nothing.
var operations = slices.Concat([]operation{
	{name: "ListBuckets", method: "GET", level: onService, may: []string{"prefix", "max-buckets", "continuation-token", "bucket-region"}, do: listBuckets},

	{name: "CreateBucket", method: "PUT", level: onBucket, writes: true, do: createBucket,
		headers: slices.Concat([]string{"x-amz-acl", "x-amz-bucket-object-lock-enabled", "x-amz-object-ownership", "x-amz-storage-class"}, checksumHeaders)},
	{name: "HeadBucket", method: "HEAD", level: onBucket, do: headBucket},
	{name: "DeleteBucket", method: "DELETE", level: onBucket, writes: true, do: deleteBucket},
	{name: "ListObjects", method: "GET", level: onBucket, do: listObjects, headers: []string{"x-amz-optional-object-attributes"},
		may: []string{"prefix", "delimiter", "marker", "max-keys", "encoding-type"}},
	{name: "ListObjectsV2", method: "GET", level: onBucket, params: []string{"list-type"}, do: listObjectsV2, headers: []string{"x-amz-optional-object-attributes"},
		may: []string{"prefix", "delimiter", "start-after", "continuation-token", "fetch-owner", "max-keys", "encoding-type"}},
	{name: "ListObjectVersions", method: "GET", level: onBucket, params: []string{"versions"}, do: listVersions, headers: []string{"x-amz-optional-object-attributes"},
		may: []string{"prefix", "delimiter", "key-marker", "version-id-marker", "max-keys", "encoding-type"}},
	{name: "ListMultipartUploads", method: "GET", level: onBucket, params: []string{"uploads"}, do: listUploads,
		may: []string{"prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"}},
	{name: "GetBucketLocation", method: "GET", level: onBucket, params: []string{"location"}, do: bucketLocation},
	{name: "DeleteObjects", method: "POST", level: onBucket, params: []string{"delete"}, writes: true, do: deleteObjects, headers: checksumHeaders},

	{name: "PutObject", method: "PUT", level: onObject, writes: true, adds: true, do: putObject, headers: slices.Concat(storeHeaders, checksumHeaders)},
	{name: "CopyObject", method: "PUT", level: onObject, header: "x-amz-copy-source", writes: true, adds: true, do: copyObject,
		headers: slices.Concat(storeHeaders, copyHeaders, []string{"x-amz-metadata-directive", "x-amz-tagging-directive", "x-amz-checksum-algorithm"})},
	{name: "GetObject", method: "GET", level: onObject, do: getObject, may: responseParams, headers: []string{"x-amz-checksum-mode"}},
	{name: "HeadObject", method: "HEAD", level: onObject, do: getObject, may: responseParams, headers: []string{"x-amz-checksum-mode"}},
	{name: "GetObjectAttributes", method: "GET", level: onObject, params: []string{"attributes"}, may: []string{"versionId"}, do: objectAttributes,
		headers: []string{"x-amz-object-attributes", "x-amz-max-parts", "x-amz-part-number-marker"}},
	{name: "DeleteObject", method: "DELETE", level: onObject, writes: true, may: []string{"versionId"}, do: deleteObject,
		headers: []string{"x-amz-if-match-last-modified-time", "x-amz-if-match-size"}},

	{name: "CreateMultipartUpload", method: "POST", level: onObject, params: []string{"uploads"}, writes: true, adds: true, do: createUpload,
		headers: slices.Concat(storeHeaders, []string{"x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-sdk-checksum-algorithm"})},
	{name: "UploadPart", method: "PUT", level: onObject, params: []string{"partNumber", "uploadId"}, writes: true, adds: true, do: uploadPart,
		headers: checksumHeaders},
	{name: "UploadPartCopy", method: "PUT", level: onObject, params: []string{"partNumber", "uploadId"}, header: "x-amz-copy-source", writes: true, adds: true, do: uploadPartCopy,
		headers: slices.Concat(copyHeaders, []string{"x-amz-copy-source-range"})},
	{name: "CompleteMultipartUpload", method: "POST", level: onObject, params: []string{"uploadId"}, writes: true, adds: true, do: completeUpload,
		headers: slices.Concat(checksumHeaders, []string{"x-amz-checksum-type", "x-amz-mp-object-size"})},
	{name: "AbortMultipartUpload", method: "DELETE", level: onObject, params: []string{"uploadId"}, writes: true, do: abortUpload,
		headers: []string{"x-amz-if-match-initiated-time"}},
	{name: "ListParts", method: "GET", level: onObject, params: []string{"uploadId"}, do: listParts,
		may: []string{"max-parts", "part-number-marker", "encoding-type"}},
}, notOffered)

// notOffered are operations that are known and not offered, for which S3 has an
// answer of its own.
var notOffered = slices.Concat(
	[]operation{
		{name: "GetBucketVersioning", method: "GET", level: onBucket, params: []string{"versioning"}, do: constant(wire.VersioningConfiguration{})},
		{name: "GetBucketAcl", method: "GET", level: onBucket, params: []string{"acl"}, do: ownersACL},
		{name: "GetObjectAcl", method: "GET", level: onObject, params: []string{"acl"}, may: []string{"versionId"}, do: ownersACL},
		{name: "GetBucketLogging", method: "GET", level: onBucket, params: []string{"logging"}, do: constant(wire.Empty("BucketLoggingStatus"))},
		{name: "GetBucketNotification", method: "GET", level: onBucket, params: []string{"notification"}, do: constant(wire.Empty("NotificationConfiguration"))},
		{name: "GetBucketAccelerate", method: "GET", level: onBucket, params: []string{"accelerate"}, do: constant(wire.Empty("AccelerateConfiguration"))},
		{name: "GetBucketRequestPayment", method: "GET", level: onBucket, params: []string{"requestPayment"}, do: constant(wire.RequestPayment{Payer: "BucketOwner"})},
		{name: "GetBucketOwnershipControls", method: "GET", level: onBucket, params: []string{"ownershipControls"}, do: constant(wire.OwnershipControls{ObjectOwnership: "BucketOwnerEnforced"})},
		{name: "GetObjectTagging", method: "GET", level: onObject, params: []string{"tagging"}, may: []string{"versionId"}, do: noTags},
		{name: "GetObjectRetention", method: "GET", level: onObject, params: []string{"retention"}, may: []string{"versionId"}, do: answer("NoSuchObjectLockConfiguration")},
		{name: "GetObjectLegalHold", method: "GET", level: onObject, params: []string{"legal-hold"}, may: []string{"versionId"}, do: answer("NoSuchObjectLockConfiguration")},
	},
	absent("policy", "NoSuchBucketPolicy"), absent("policyStatus", "NoSuchBucketPolicy"), absent("cors", "NoSuchCORSConfiguration"),
	absent("lifecycle", "NoSuchLifecycleConfiguration"), absent("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
	absent("object-lock", "ObjectLockConfigurationNotFoundError"), absent("replication", "ReplicationConfigurationNotFoundError"),
	absent("tagging", "NoSuchTagSet"), absent("website", "NoSuchWebsiteConfiguration"), absent("publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
)

// absent is the question for a configuration that buckets never have.
func absent(param, code string) []operation {
	return []operation{{name: "GetBucket " + param, method: "GET", level: onBucket, params: []string{param}, do: answer(code)}}
}

// answer is an operation that always fails the same way.
func answer(code string) func(*request) error {
	return func(q *request) error {
		if q.op.level == onObject && !q.op.writes {
			if _, err := q.b.Stat(q.key); err != nil {
				return err
			}
		}
		return wire.Err(code)
	}
}

// constant is an operation whose answer is always the same document.
func constant(doc any) func(*request) error {
	return func(q *request) error { return q.respond(doc) }
}

// route finds the request's operation and checks that it asks for nothing else.
func (q *request) route() error {
	at := onObject
	switch {
	case q.bucket == "":
		at = onService
	case q.key == "":
		at = onBucket
	}
	for i := range operations {
		op := &operations[i]
		if op.method == q.r.Method && op.level == at && q.selects(op) && (q.op == nil || op.selectors() > q.op.selectors()) {
			q.op = op
		}
	}
	if put := q.r.Method == http.MethodPut && at == onObject; put && q.query.Has("uploadId") != q.query.Has("partNumber") {
		return wire.Errorf("InvalidArgument", "An upload of a part must have both query parameters, partNumber and uploadId.")
	}
	if q.op == nil {
		return wire.Errorf("NotImplemented", "The method %.20s is not offered for this resource with this query.", q.r.Method)
	}
	for _, p := range q.query {
		switch {
		case slices.Contains(q.op.params, p.Name), slices.Contains(q.op.may, p.Name), p.Name == "x-id", q.sig.IsParam(p.Name):
		default:
			return wire.Errorf("NotImplemented", "The query parameter %.100q is not offered for %s %s.", p.Name, q.r.Method, q.op.name).With("Parameter", xmlText(p.Name))
		}
	}
	for name := range q.r.Header {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "x-amz-") || q.op.takes(lower) {
			continue
		}
		return wire.Errorf("NotImplemented", "The header %.100s is not offered for %s.", lower, q.op.name).With("Header", lower)
	}
	return nil
}

func (q *request) selects(op *operation) bool {
	for _, p := range op.params {
		if !q.query.Has(p) {
			return false
		}
	}
	return op.header == "" || len(q.r.Header.Values(op.header)) > 0
}

func (o *operation) selectors() int {
	n := len(o.params)
	if o.header != "" {
		n++
	}
	return n
}

// takes reports whether the operation takes a header, in lower case.
func (o *operation) takes(header string) bool {
	for _, list := range [][]string{generalHeaders, o.headers} {
		for _, h := range list {
			if start, any := strings.CutSuffix(h, "*"); h == header || any && strings.HasPrefix(header, start) {
				return true
			}
		}
	}
	return false
}

// ownersACL is the one ACL that there is: all to the bucket's project.
func ownersACL(q *request) error {
	if q.op.level == onObject {
		if _, err := q.b.Stat(q.key); err != nil {
			return err
		}
	}
	return q.respond(wire.NewACL(q.owner()))
}

// noTags answers for an object without tags.
func noTags(q *request) error {
	if _, err := q.b.Stat(q.key); err != nil {
		return err
	}
	return q.respond(wire.Tagging{})
}
