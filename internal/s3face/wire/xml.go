package wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"time"
)

// Namespace is S3's XML namespace.
const Namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// Limits of documents that clients send.
const (
	// MaxDocument is the size of the largest document, in bytes: the deletion
	// of 1000 keys of 1024 bytes, or the completion of 10,000 parts, has less.
	MaxDocument = 4 << 20
	// MaxDelete is the most keys that one request may delete.
	MaxDelete = 1000
	// MaxParts is the highest part number.
	MaxParts = 10000
	maxDepth = 16
)

// Header is what every document begins with.
const Header = xml.Header

// Marshal returns a document with its XML declaration. Its type must be one
// that encoding/xml can write.
func Marshal(doc any) []byte {
	body, err := xml.Marshal(doc)
	if err != nil {
		panic("S3 document: " + err.Error()) // a type of ours that cannot be written
	}
	return append([]byte(xml.Header), body...)
}

// Time is the form that times have in documents.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// ETag is the form that ETags have in documents and headers.
func ETag(etag string) string { return `"` + etag + `"` }

// Owner stands for the project that a bucket belongs to.
type Owner struct {
	ID          string
	DisplayName string
}

// ListAllMyBucketsResult is the response of ListBuckets.
type ListAllMyBucketsResult struct {
	XMLName           xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
	Owner             Owner
	Buckets           []Bucket `xml:"Buckets>Bucket"`
	ContinuationToken string   `xml:",omitempty"`
	Prefix            *string
}

// Bucket is a bucket in a listing.
type Bucket struct {
	Name         string
	CreationDate string
	BucketRegion string `xml:",omitempty"`
}

// LocationConstraint is the response of GetBucketLocation.
type LocationConstraint struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
	Region  string   `xml:",chardata"`
}

// Location is the response of GetBucketLocation in OBS's dialect.
type Location struct {
	XMLName xml.Name `xml:"Location"`
	Region  string   `xml:",chardata"`
}

// Object is an object in a listing.
type Object struct {
	Key               string
	LastModified      string
	ETag              string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              int64
	StorageClass      string
	Owner             *Owner
}

// CommonPrefix stands for all keys that begin with it.
type CommonPrefix struct{ Prefix string }

// ListBucketResult is the response of ListObjects and ListObjectsV2. Pointers
// are elements that are there although they are empty.
type ListBucketResult struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Marker                *string
	NextMarker            string `xml:",omitempty"`
	StartAfter            *string
	ContinuationToken     *string
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              *int
	MaxKeys               int
	Delimiter             string `xml:",omitempty"`
	IsTruncated           bool
	EncodingType          string `xml:",omitempty"`
	Contents              []Object
	CommonPrefixes        []CommonPrefix
}

// ObjectVersion is an object in a listing of versions.
type ObjectVersion struct {
	Key          string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
	LastModified string
	ETag         string
	Size         int64
	StorageClass string
	Owner        Owner
}

// ListVersionsResult is the response of ListObjectVersions.
type ListVersionsResult struct {
	XMLName             xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListVersionsResult"`
	Name                string
	Prefix              string
	KeyMarker           string
	VersionIDMarker     string `xml:"VersionIdMarker"`
	NextKeyMarker       string `xml:",omitempty"`
	NextVersionIDMarker string `xml:"NextVersionIdMarker,omitempty"`
	MaxKeys             int
	Delimiter           string `xml:",omitempty"`
	IsTruncated         bool
	EncodingType        string `xml:",omitempty"`
	Version             []ObjectVersion
	CommonPrefixes      []CommonPrefix
}

// InitiateMultipartUploadResult is the response of CreateMultipartUpload.
type InitiateMultipartUploadResult struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

// Checksums are the checksum elements of a part or an object; at most one is set.
type Checksums struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
}

// Field returns the element of an algorithm, nil for an unknown one.
func (c *Checksums) Field(algorithm string) *string {
	switch algorithm {
	case "CRC32":
		return &c.ChecksumCRC32
	case "CRC32C":
		return &c.ChecksumCRC32C
	case "CRC64NVME":
		return &c.ChecksumCRC64NVME
	case "SHA1":
		return &c.ChecksumSHA1
	case "SHA256":
		return &c.ChecksumSHA256
	}
	return nil
}

// Part is a part of a multipart upload in a listing.
type Part struct {
	PartNumber   int
	LastModified string
	ETag         string
	Size         int64
	Checksums
}

// ListPartsResult is the response of ListParts.
type ListPartsResult struct {
	XMLName              xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
	Bucket               string
	Key                  string
	UploadID             string `xml:"UploadId"`
	Initiator            Owner
	Owner                Owner
	StorageClass         string
	PartNumberMarker     int
	NextPartNumberMarker int
	MaxParts             int
	IsTruncated          bool
	EncodingType         string `xml:",omitempty"`
	ChecksumAlgorithm    string `xml:",omitempty"`
	ChecksumType         string `xml:",omitempty"`
	Part                 []Part
}

// Upload is a multipart upload in a listing.
type Upload struct {
	Key               string
	UploadID          string `xml:"UploadId"`
	Initiator         Owner
	Owner             Owner
	StorageClass      string
	Initiated         string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

// ListMultipartUploadsResult is the response of ListMultipartUploads.
type ListMultipartUploadsResult struct {
	XMLName            xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
	Bucket             string
	KeyMarker          string
	UploadIDMarker     string `xml:"UploadIdMarker"`
	NextKeyMarker      string
	NextUploadIDMarker string `xml:"NextUploadIdMarker"`
	Delimiter          string `xml:",omitempty"`
	Prefix             string
	MaxUploads         int
	IsTruncated        bool
	EncodingType       string `xml:",omitempty"`
	Upload             []Upload
	CommonPrefixes     []CommonPrefix
}

// CompleteMultipartUpload is the body of CompleteMultipartUpload.
type CompleteMultipartUpload struct {
	XMLName xml.Name       `xml:"CompleteMultipartUpload"`
	Parts   []CompletePart `xml:"Part"`
}

// CompletePart is a part that an upload is completed with.
type CompletePart struct {
	PartNumber int
	ETag       string
	Checksums
}

// CompleteMultipartUploadResult is the response of CompleteMultipartUpload.
type CompleteMultipartUploadResult struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
	Location string
	Bucket   string
	Key      string
	ETag     string
	Checksums
	ChecksumType string `xml:",omitempty"`
}

// CopyObjectResult is the response of CopyObject.
type CopyObjectResult struct {
	XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CopyObjectResult"`
	LastModified string
	ETag         string
	Checksums
	ChecksumType string `xml:",omitempty"`
}

// CopyPartResult is the response of UploadPartCopy.
type CopyPartResult struct {
	XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CopyPartResult"`
	LastModified string
	ETag         string
	Checksums
}

// Delete is the body of DeleteObjects.
type Delete struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   bool
	Objects []DeleteObject `xml:"Object"`
}

// DeleteObject is one key of DeleteObjects.
type DeleteObject struct {
	Key              string
	VersionID        string `xml:"VersionId"`
	ETag             string
	LastModifiedTime string
	Size             *int64
}

// DeleteResult is the response of DeleteObjects.
type DeleteResult struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
	Deleted []Deleted
	Error   []DeleteError
}

// Deleted is a key that is not there any more.
type Deleted struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
}

// DeleteError is a key that was not deleted.
type DeleteError struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
	Code      string
	Message   string
}

// CreateBucketConfiguration is the body of CreateBucket.
type CreateBucketConfiguration struct {
	XMLName            xml.Name `xml:"CreateBucketConfiguration"`
	LocationConstraint string
	Location           string // so OBS spells it
	Other              []any  `xml:",any"`
}

// GetObjectAttributesResponse is the response of GetObjectAttributes.
type GetObjectAttributesResponse struct {
	XMLName      xml.Name            `xml:"http://s3.amazonaws.com/doc/2006-03-01/ GetObjectAttributesResponse"`
	ETag         string              `xml:",omitempty"`
	Checksum     *AttributesChecksum `xml:",omitempty"`
	ObjectParts  *AttributesParts    `xml:",omitempty"`
	StorageClass string              `xml:",omitempty"`
	ObjectSize   *int64              `xml:",omitempty"`
}

// AttributesChecksum is the checksum among an object's attributes.
type AttributesChecksum struct {
	Checksums
	ChecksumType string `xml:",omitempty"`
}

// AttributesParts are the parts among an object's attributes.
type AttributesParts struct {
	IsTruncated          bool
	MaxParts             int
	NextPartNumberMarker int
	PartNumberMarker     int
	PartsCount           int
	Part                 []AttributesPart
}

// AttributesPart is a part among an object's attributes.
type AttributesPart struct {
	PartNumber int
	Size       int64
	Checksums
}

// VersioningConfiguration is the response of GetBucketVersioning: there is none.
type VersioningConfiguration struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ VersioningConfiguration"`
}

// Empty is a document whose root element is empty.
func Empty(name string) any {
	return struct{ XMLName xml.Name }{xml.Name{Space: Namespace, Local: name}}
}

// RequestPayment is the response of GetBucketRequestPayment.
type RequestPayment struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ RequestPaymentConfiguration"`
	Payer   string
}

// OwnershipControls is the response of GetBucketOwnershipControls.
type OwnershipControls struct {
	XMLName         xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ OwnershipControls"`
	ObjectOwnership string   `xml:"Rule>ObjectOwnership"`
}

// Tagging is the response of GetObjectTagging: there are no tags.
type Tagging struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Tagging"`
	TagSet  struct{}
}

// AccessControlPolicy is the response of GetBucketAcl and GetObjectAcl.
type AccessControlPolicy struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ AccessControlPolicy"`
	Owner   Owner
	Grants  []Grant `xml:"AccessControlList>Grant"`
}

// Grant is a right of somebody.
type Grant struct {
	Grantee    Grantee
	Permission string
}

// Grantee is whose right it is.
type Grantee struct {
	XSI         string `xml:"xmlns:xsi,attr"`
	Type        string `xml:"xsi:type,attr"`
	ID          string
	DisplayName string
}

// NewACL returns the ACL that gives all to the owner.
func NewACL(o Owner) AccessControlPolicy {
	return AccessControlPolicy{Owner: o, Grants: []Grant{{
		Grantee:    Grantee{"http://www.w3.org/2001/XMLSchema-instance", "CanonicalUser", o.ID, o.DisplayName},
		Permission: "FULL_CONTROL",
	}}}
}

// PostResponse is the response of a form upload that asks for status 201.
type PostResponse struct {
	XMLName  xml.Name `xml:"PostResponse"`
	Location string
	Bucket   string
	Key      string
	ETag     string
}

// errDeep is what a document fails with whose elements are nested too deeply.
var errDeep = errors.New("elements are nested too deeply")

// Unmarshal reads a document that a client sent into doc. The namespace does
// not matter. A document with a DOCTYPE, or with anything behind its root
// element, is refused. The error is MalformedXML.
func Unmarshal(body []byte, doc any) *Error {
	if len(body) > MaxDocument {
		return Err("MaxMessageLengthExceeded")
	}
	if err := checkShape(body); err != nil {
		return Errorf("MalformedXML", "The XML document cannot be read: %.200s.", err)
	}
	if err := xml.NewDecoder(bytes.NewReader(body)).Decode(doc); err != nil {
		return Errorf("MalformedXML", "The XML document cannot be read: %.200s.", err)
	}
	return nil
}

// checkShape looks at the whole document once, without keeping any of it.
func checkShape(body []byte) error {
	dec := xml.NewDecoder(bytes.NewReader(body))
	depth, roots := 0, 0
	for {
		token, err := dec.RawToken()
		if err == io.EOF {
			if depth != 0 || roots != 1 {
				return errors.New("it has no root element, or does not end")
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			if depth++; depth > maxDepth {
				return errDeep
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errors.New("it has a document type")
		case xml.CharData:
			if depth == 0 && strings.TrimSpace(string(t)) != "" {
				return errors.New("it has text outside of its root element")
			}
		}
	}
}
