package s3suite

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// partSize is the least size of a part that is not the last.
const partSize = 5 << 20

type initiated struct {
	XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
	Bucket, Key, UploadId string
}

type completed struct {
	XMLName                     xml.Name `xml:"CompleteMultipartUploadResult"`
	Location, Bucket, Key, ETag string
	checksums
}

func (c *client) initiate(t *testing.T, bucket, key string, header ...string) string {
	t.Helper()
	a := c.do(t, request{method: "POST", bucket: bucket, key: key, query: "uploads", header: header}).want(t, 200, "")
	r := decode[initiated](t, a)
	if r.Bucket != bucket || r.Key != key || r.UploadId == "" {
		t.Fatalf("the upload is %+v", r)
	}
	return r.UploadId
}

func partQuery(id string, n int) string {
	return fmt.Sprintf("partNumber=%d&uploadId=%s", n, escape(id, false))
}

// part uploads a part and returns its element for complete.
func (c *client) part(t *testing.T, bucket, key, id string, n int, body string, header ...string) string {
	t.Helper()
	a := c.do(t, request{method: "PUT", bucket: bucket, key: key, query: partQuery(id, n), body: body, header: header}).want(t, 200, "")
	if got := a.header.Get("ETag"); got != `"`+md5Hex(body)+`"` {
		t.Errorf("the ETag of part %d is %s", n, got)
	}
	return partElement(n, a.header.Get("ETag"), "")
}

// partElement is a part in the body of complete; more are elements of its checksum.
func partElement(n int, etag, more string) string {
	return fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag>%s</Part>", n, strings.ReplaceAll(etag, `"`, "&quot;"), more)
}

func (c *client) complete(t *testing.T, bucket, key, id string, parts []string, header ...string) answer {
	t.Helper()
	body := `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` + strings.Join(parts, "") + "</CompleteMultipartUpload>"
	return c.do(t, request{method: "POST", bucket: bucket, key: key, query: "uploadId=" + escape(id, false), body: body, header: header})
}

// wantUploads fails the test unless the bucket has as many unfinished uploads.
func (c *client) wantUploads(t *testing.T, bucket string, n int) {
	t.Helper()
	if l := c.uploads(t, bucket, ""); len(l.Upload) != n {
		t.Errorf("%d uploads are unfinished, want %d", len(l.Upload), n)
	}
}

// bytesOf makes n bytes that differ between parts.
func bytesOf(c byte, n int) string { return strings.Repeat(string(c), n) }

func multipartCases() []test {
	return []test{
		{"three parts, their sizes and numbers", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "folder/foo", "Content-Type: text/x-test", "x-amz-meta-Foo: bar", "Cache-Control: no-cache")
			bodies := []string{bytesOf('a', partSize), bytesOf('b', partSize+1), "last"}
			var parts []string
			for i, n := range []int{1, 7, 10_000} {
				parts = append(parts, c.part(t, b, "folder/foo", id, n, bodies[i]))
			}
			c.wantNone(t, b, "folder/foo")
			r := decode[completed](t, c.complete(t, b, "folder/foo", id, parts).want(t, 200, ""))
			if r.Bucket != b || r.Key != "folder/foo" || !strings.HasSuffix(r.ETag, `-3"`) || !strings.Contains(r.Location, "folder") {
				t.Errorf("%+v", r)
			}
			a := c.get(t, b, "folder/foo")
			if a.body != strings.Join(bodies, "") || a.header.Get("ETag") != r.ETag || a.header.Get("Content-Type") != "text/x-test" || a.header.Get("X-Amz-Meta-Foo") != "bar" || a.header.Get("Cache-Control") != "no-cache" {
				t.Errorf("%d bytes and\n%s", len(a.body), a.head)
			}
			c.wantUploads(t, b, 0)
			// Each part alone, by its number in the row.
			at := 0
			for i, body := range bodies {
				a := c.do(t, request{bucket: b, key: "folder/foo", query: fmt.Sprintf("partNumber=%d", i+1)}).want(t, 206, "")
				want := fmt.Sprintf("bytes %d-%d/%d", at, at+len(body)-1, len(strings.Join(bodies, "")))
				if a.body != body || a.header.Get("X-Amz-Mp-Parts-Count") != "3" || a.header.Get("Content-Range") != want {
					t.Errorf("part %d has %d bytes, %s", i+1, len(a.body), a.head)
				}
				h := c.do(t, request{method: "HEAD", bucket: b, key: "folder/foo", query: fmt.Sprintf("partNumber=%d", i+1)})
				if h.status != 206 && h.status != 200 || h.header.Get("Content-Length") != fmt.Sprint(len(body)) {
					t.Errorf("HEAD of part %d: %s", i+1, h.head)
				}
				at += len(body)
			}
			c.do(t, request{bucket: b, key: "folder/foo", query: "partNumber=4"}).oneOf(t, "400 InvalidPart", "416 InvalidPartNumber")
			for _, bad := range []string{"0", "10001", "x", "-1"} {
				c.do(t, request{bucket: b, key: "folder/foo", query: "partNumber=" + bad}).oneOf(t, "400 InvalidArgument", "416 InvalidPartNumber", "400 InvalidPart")
			}
			c.do(t, request{bucket: b, key: "folder/foo", query: "partNumber=1", header: []string{"Range: bytes=0-1"}}).want(t, 400, "InvalidRequest")
		}},
		{"a part of an object that was uploaded at once", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			if a := c.do(t, request{bucket: b, key: "foo", query: "partNumber=1"}); a.body != "bar" || a.status != 200 && a.status != 206 {
				t.Errorf("%d, %q", a.status, a.body)
			}
			c.do(t, request{bucket: b, key: "foo", query: "partNumber=2"}).oneOf(t, "400 InvalidPart", "416 InvalidPartNumber")
		}},
		{"completions that are refused", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "before")
			id := c.initiate(t, b, "foo")
			c.complete(t, b, "foo", id, nil).want(t, 400, "MalformedXML")
			one, two := c.part(t, b, "foo", id, 1, "small"), c.part(t, b, "foo", id, 2, "last")
			c.complete(t, b, "foo", id, []string{one, two}).want(t, 400, "EntityTooSmall")
			c.complete(t, b, "foo", id, []string{two, one}).want(t, 400, "InvalidPartOrder|EntityTooSmall")
			c.complete(t, b, "foo", id, []string{one, one}).want(t, 400, "InvalidPartOrder|EntityTooSmall")
			c.complete(t, b, "foo", id, []string{partElement(9999, md5Hex("small"), "")}).want(t, 400, "InvalidPart")
			c.complete(t, b, "foo", id, []string{partElement(1, `"ffffffffffffffffffffffffffffffff"`, "")}).want(t, 400, "InvalidPart")
			c.complete(t, b, "foo", id, []string{"<Part><PartNumber>x</PartNumber></Part>"}).want(t, 400, "MalformedXML")
			c.complete(t, b, "foo", "unknown", []string{one}).want(t, 404, "NoSuchUpload")
			c.complete(t, b, "another", id, []string{one}).want(t, 404, "NoSuchUpload")
			c.wantObject(t, b, "foo", "before")
			c.complete(t, b, "foo", id, []string{one}).want(t, 200, "")
			c.wantObject(t, b, "foo", "small")
		}},
		{"ETags without quotes", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			c.part(t, b, "foo", id, 1, "x")
			c.complete(t, b, "foo", id, []string{partElement(1, md5Hex("x"), "")}).want(t, 200, "")
			c.wantObject(t, b, "foo", "x")
		}},
		{"parts sent twice", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			c.part(t, b, "foo", id, 1, "first")
			again := c.part(t, b, "foo", id, 1, "second try")
			c.complete(t, b, "foo", id, []string{partElement(1, md5Hex("first"), "")}).want(t, 400, "InvalidPart")
			c.complete(t, b, "foo", id, []string{again}).want(t, 200, "")
			c.wantObject(t, b, "foo", "second try")
		}},
		{"parts left out", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			c.part(t, b, "foo", id, 1, "left out")
			c.complete(t, b, "foo", id, []string{c.part(t, b, "foo", id, 2, "used")}).want(t, 200, "")
			c.wantObject(t, b, "foo", "used")
			c.wantUploads(t, b, 0)
		}},
		{"part numbers and uploads that cannot be", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			for _, n := range []int{0, -1, 10_001, 1 << 40} {
				c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery(id, n), body: "x"}).want(t, 400, "InvalidArgument")
			}
			c.do(t, request{method: "PUT", bucket: b, key: "foo", query: "partNumber=x&uploadId=" + escape(id, false), body: "x"}).want(t, 400, "InvalidArgument")
			for _, bad := range []string{"unknown", "../../" + id, "..", "%00", strings.Repeat("a", 1000)} {
				c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery(bad, 1), body: "x"}).want(t, 404, "NoSuchUpload")
				c.do(t, request{method: "DELETE", bucket: b, key: "foo", query: "uploadId=" + escape(bad, false)}).want(t, 404, "NoSuchUpload")
				c.do(t, request{bucket: b, key: "foo", query: "uploadId=" + escape(bad, false)}).want(t, 404, "NoSuchUpload")
			}
			c.do(t, request{method: "PUT", bucket: b, key: "foo", query: "uploadId=" + escape(id, false), body: "x"}).oneOf(t, "400 InvalidArgument", "400 InvalidRequest", "501 NotImplemented")
			c.do(t, request{method: "PUT", bucket: b, key: "foo", query: "partNumber=1", body: "x"}).oneOf(t, "400 InvalidArgument", "400 InvalidRequest", "501 NotImplemented")
			c.wantNone(t, b, "foo")
		}},
		{"aborted", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			part := c.part(t, b, "foo", id, 1, "x")
			c.do(t, request{method: "DELETE", bucket: b, key: "foo", query: "uploadId=" + escape(id, false)}).want(t, 204, "")
			c.complete(t, b, "foo", id, []string{part}).want(t, 404, "NoSuchUpload")
			c.do(t, request{method: "DELETE", bucket: b, key: "foo", query: "uploadId=" + escape(id, false)}).want(t, 404, "NoSuchUpload")
			c.wantNone(t, b, "foo")
			c.wantUploads(t, b, 0)
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
		}},
		{"keys that look like parameters", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, key := range []string{" ", "_", "__", "?versionId", "a+b", "100%", "ünï"} {
				id := c.initiate(t, b, key)
				c.complete(t, b, key, id, []string{c.part(t, b, key, id, 1, key)}).want(t, 200, "")
				c.wantObject(t, b, key, key)
			}
		}},
		{"replaces an object, whole", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "before", "x-amz-meta-old: 1")
			id := c.initiate(t, b, "foo")
			part := c.part(t, b, "foo", id, 1, "after")
			c.wantObject(t, b, "foo", "before")
			c.complete(t, b, "foo", id, []string{part}).want(t, 200, "")
			if a := c.get(t, b, "foo"); a.body != "after" || a.header.Get("X-Amz-Meta-Old") != "" {
				t.Errorf("%q, %v", a.body, a.header)
			}
		}},
		{"parts that are copies", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			source := bytesOf('s', partSize) + "end"
			c.put(t, b, "src + ü", source)
			name := "/" + b + "/" + escape("src + ü", true)
			id := c.initiate(t, b, "foo")
			copyPart := func(n int, header ...string) answer {
				return c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery(id, n), header: append([]string{"x-amz-copy-source: " + name}, header...)})
			}
			type copied struct {
				XMLName            xml.Name `xml:"CopyPartResult"`
				ETag, LastModified string
			}
			r := decode[copied](t, copyPart(1).want(t, 200, ""))
			r2 := decode[copied](t, copyPart(2, "x-amz-copy-source-range: bytes=1-"+fmt.Sprint(partSize+2)).want(t, 200, ""))
			for _, bad := range []string{"0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=hello-", "bytes=0-2,3-5", "bytes=-5", "bytes=5-", "bytes=3-1"} {
				copyPart(3, "x-amz-copy-source-range: "+bad).oneOf(t, "400 InvalidArgument", "400 InvalidRange", "416 InvalidRange")
			}
			copyPart(3, fmt.Sprintf("x-amz-copy-source-range: bytes=0-%d", len(source))).oneOf(t, "400 InvalidArgument", "400 InvalidRange", "416 InvalidRange")
			copyPart(3, `x-amz-copy-source-if-match: "other"`).want(t, 412, "PreconditionFailed")
			c.complete(t, b, "foo", id, []string{partElement(1, r.ETag, ""), partElement(2, r2.ETag, "")}).want(t, 200, "")
			c.wantObject(t, b, "foo", source+source[1:])
			c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery("unknown", 1), header: []string{"x-amz-copy-source: " + name}}).want(t, 404, "NoSuchUpload")
		}},
		{"parts listed in pages", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			for n := range 5 {
				c.part(t, b, "foo", id, n+1, fmt.Sprint("part ", n))
			}
			type parts struct {
				XMLName                                          xml.Name `xml:"ListPartsResult"`
				Bucket, Key, UploadId, StorageClass              string
				PartNumberMarker, NextPartNumberMarker, MaxParts int
				IsTruncated                                      bool
				Owner, Initiator                                 struct{ ID string }
				Part                                             []struct {
					PartNumber, Size   int
					ETag, LastModified string
				}
			}
			var got []int
			query := "max-parts=2&uploadId=" + escape(id, false)
			for range 4 {
				l := decode[parts](t, c.do(t, request{bucket: b, key: "foo", query: query}).want(t, 200, ""))
				if l.Bucket != b || l.Key != "foo" || l.UploadId != id || l.MaxParts != 2 || l.Owner.ID == "" || l.Initiator.ID == "" {
					t.Errorf("%+v", l)
				}
				for _, p := range l.Part {
					got = append(got, p.PartNumber)
					if body := fmt.Sprint("part ", p.PartNumber-1); p.ETag != `"`+md5Hex(body)+`"` || p.Size != len(body) {
						t.Errorf("%+v", p)
					}
					wantTime(t, p.LastModified)
				}
				if !l.IsTruncated {
					break
				}
				query = fmt.Sprintf("max-parts=2&part-number-marker=%d&uploadId=%s", l.NextPartNumberMarker, escape(id, false))
			}
			if !slices.Equal(got, []int{1, 2, 3, 4, 5}) {
				t.Errorf("listed %v", got)
			}
			c.do(t, request{bucket: b, key: "foo", query: "max-parts=x&uploadId=" + escape(id, false)}).want(t, 400, "InvalidArgument")
			c.do(t, request{bucket: b, key: "foo", query: "part-number-marker=x&uploadId=" + escape(id, false)}).want(t, 400, "InvalidArgument")
		}},
	}
}

type uploadList struct {
	XMLName                                   xml.Name `xml:"ListMultipartUploadsResult"`
	Bucket, KeyMarker, UploadIdMarker, Prefix string
	NextKeyMarker, NextUploadIdMarker         string
	Delimiter, EncodingType                   string
	MaxUploads                                int
	IsTruncated                               bool
	Upload                                    []struct {
		Key, UploadId, StorageClass, Initiated string
		Owner, Initiator                       struct{ ID string }
	}
	CommonPrefixes []struct{ Prefix string }
}

func (c *client) uploads(t *testing.T, bucket, query string) uploadList {
	t.Helper()
	return decode[uploadList](t, c.do(t, request{bucket: bucket, query: strings.TrimSuffix("uploads&"+query, "&")}).want(t, 200, ""))
}

func uploadListCases() []test {
	return []test{
		{"in pages, with prefix and delimiter", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			type upload struct{ key, id string }
			var want []upload
			for _, key := range []string{"a + ü", "b/1", "b/2", "b/2", "c"} {
				want = append(want, upload{key, c.initiate(t, b, key)})
			}
			sorted := func(u []upload) []upload {
				slices.SortFunc(u, func(x, y upload) int { return strings.Compare(x.key+"\x00"+x.id, y.key+"\x00"+y.id) })
				return u
			}
			for _, size := range []int{1, 2, 1000} {
				var got []upload
				query := fmt.Sprintf("max-uploads=%d", size)
				for range 6 {
					l := c.uploads(t, b, query)
					if len(l.Upload) > size || l.MaxUploads != size || l.Bucket != b {
						t.Errorf("%+v", l)
					}
					for i, u := range l.Upload {
						got = append(got, upload{u.Key, u.UploadId})
						if u.Owner.ID == "" || u.Initiator.ID == "" || u.StorageClass != "STANDARD" || i > 0 && u.Key < l.Upload[i-1].Key {
							t.Errorf("%+v", u)
						}
						wantTime(t, u.Initiated)
					}
					if !l.IsTruncated {
						break
					}
					query = fmt.Sprintf("max-uploads=%d&key-marker=%s&upload-id-marker=%s", size, escape(l.NextKeyMarker, false), escape(l.NextUploadIdMarker, false))
				}
				if !slices.Equal(sorted(got), sorted(want)) {
					t.Errorf("pages of %d: %v, want %v", size, got, want)
				}
			}
			l := c.uploads(t, b, "delimiter=%2F")
			if len(l.Upload) != 2 || len(l.CommonPrefixes) != 1 || l.CommonPrefixes[0].Prefix != "b/" {
				t.Errorf("with a delimiter: %+v", l)
			}
			if l = c.uploads(t, b, "prefix=b%2F"); len(l.Upload) != 3 || l.Prefix != "b/" {
				t.Errorf("with a prefix: %+v", l)
			}
			if l = c.uploads(t, b, "key-marker=b%2F2"); len(l.Upload) != 1 || l.Upload[0].Key != "c" {
				t.Errorf("after a key: %+v", l)
			}
			if l = c.uploads(t, b, "encoding-type=url&prefix=a"); l.EncodingType != "url" || len(l.Upload) != 1 || !slices.Contains([]string{"a+%2B+%C3%BC", "a%20%2B%20%C3%BC"}, l.Upload[0].Key) {
				t.Errorf("encoded: %+v", l)
			}
			c.do(t, request{bucket: b, query: "uploads&max-uploads=x"}).want(t, 400, "InvalidArgument")
			c.do(t, request{method: "DELETE", bucket: b}).oneOf(t, "204", "409 BucketNotEmpty")
		}},
	}
}
