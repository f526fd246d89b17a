package s3suite

import (
	"strings"
	"testing"
)

// notOfferedCases: what the service does not do is refused, and changes nothing.
func notOfferedCases() []test {
	var cases []test
	refused := func(t *testing.T, what string, a answer) {
		t.Helper()
		// ACLs have a code of their own.
		if a.code() != "AccessControlListNotSupported" && (a.status != 501 || a.code() != "NotImplemented" && a.body != "") {
			t.Errorf("%s: %d %s", what, a.status, a.code())
		}
	}
	for _, sub := range []string{
		"acl", "encryption", "legal-hold", "object-lock", "renameObject", "restore", "retention", "select&select-type=2", "tagging", "torrent", "versions",
		"append", "annotation", "policyStatus", "intelligent-tiering", "unheard-of", "Uploads", "modify&position=0", "truncate&length=1", "rename&name=x",
	} {
		cases = append(cases, test{"object ?" + sub, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-meta-a: 1")
			for _, method := range []string{"PUT", "POST", "DELETE"} {
				refused(t, method, c.do(t, request{method: method, bucket: b, key: "foo", query: sub, body: "<x/>"}))
				refused(t, method+" of a new key", c.do(t, request{method: method, bucket: b, key: "new", query: sub, body: "<x/>"}))
			}
			if a := c.get(t, b, "foo"); a.body != "bar" || a.header.Get("X-Amz-Meta-A") != "1" {
				t.Errorf("the object became %q, %v", a.body, a.header)
			}
			c.wantNone(t, b, "new")
			if a := c.do(t, request{bucket: b, key: "foo", query: sub}); a.body == "bar" {
				t.Errorf("GET answers the object: %d", a.status)
			}
		}})
	}
	for _, sub := range []string{
		"accelerate", "acl", "analytics&id=a", "cors", "encryption", "intelligent-tiering&id=a", "inventory&id=a", "lifecycle", "logging", "metadataTable", "metrics&id=a",
		"notification", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "session", "tagging",
		"versioning", "website", "unheard-of", "abac", "metadataConfiguration", "storageClass", "quota", "customdomain", "mirrorBackToSource", "inventory",
	} {
		cases = append(cases, test{"bucket ?" + sub, func(t *testing.T, c *client) {
			b, free := c.newBucket(t), c.freeName()
			for _, method := range []string{"PUT", "POST", "DELETE"} {
				refused(t, method, c.do(t, request{method: method, bucket: b, query: sub, body: "<x/>"}))
				a := c.do(t, request{method: method, bucket: free, query: sub, body: "<x/>"})
				if a.status/100 == 2 {
					t.Errorf("%s of a bucket that is not there: %d", method, a.status)
				}
			}
			c.do(t, request{method: "HEAD", bucket: free}).want(t, 404, "")
			c.do(t, request{method: "HEAD", bucket: b}).want(t, 200, "")
			// A GET of what is not offered lists nothing.
			if a := c.do(t, request{bucket: b, query: sub}); strings.Contains(a.body, "<ListBucketResult") {
				t.Errorf("GET answers a list: %d", a.status)
			}
		}})
	}
	for _, line := range []string{
		"x-amz-write-offset-bytes: 3", "x-amz-server-side-encryption: AES256", "x-amz-server-side-encryption: aws:kms", "x-amz-server-side-encryption-customer-algorithm: AES256",
		"x-amz-object-lock-mode: GOVERNANCE", "x-amz-object-lock-legal-hold: ON", "x-amz-object-lock-retain-until-date: 2032-01-01T00:00:00Z", "x-amz-tagging: a=b",
		"x-amz-website-redirect-location: /other", "x-amz-acl: public-read", "x-amz-acl: public-read-write", "x-amz-grant-read: id=someone", "x-amz-unheard-of: 1",
		"x-amz-rename-source: /a/b", "x-amz-if-match-size: 3", "x-amz-storage-class: GLACIER",
	} {
		cases = append(cases, test{"header " + line, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			// Some are 400, because S3 knows the value and not for what it was sent.
			put := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "zar", header: []string{line}})
			put.oneOf(t, "501 NotImplemented", "400 InvalidArgument", "400 InvalidRequest", "400 AccessControlListNotSupported", "400 InvalidStorageClass")
			c.wantObject(t, b, "foo", "bar")
			if a := c.do(t, request{method: "POST", bucket: b, key: "foo", query: "uploads", header: []string{line}}); a.status/100 == 2 {
				t.Errorf("an upload: %d", a.status)
			}
			c.wantUploads(t, b, 0)
		}})
	}
	return append(cases,
		test{"headers that change nothing here are taken", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, line := range []string{"x-amz-acl: private", "x-amz-acl: bucket-owner-full-control", "x-amz-request-payer: requester", "x-amz-user-agent: a", "x-amz-storage-class: STANDARD", "x-amz-sdk-checksum-algorithm: CRC32"} {
				h := []string{line}
				if strings.Contains(line, "sdk") {
					h = append(h, "x-amz-checksum-crc32: "+sums["crc32"]("bar"))
				}
				c.put(t, b, "foo", "bar", h...)
			}
			c.do(t, request{bucket: b, key: "foo", query: "x-id=GetObject"}).want(t, 200, "")
			c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "bar", query: "x-id=PutObject"}).want(t, 200, "")
		}},
		test{"the expected owner of a bucket", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			c.do(t, request{bucket: b, key: "foo", header: []string{"x-amz-expected-bucket-owner: 000000000000"}}).want(t, 403, "AccessDenied")
		}},
		test{"settings that tools ask for before they work", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for query, answers := range map[string][]string{
				"versioning": {"200"}, "acl": {"200", "501 NotImplemented"}, "policy": {"404 NoSuchBucketPolicy", "501 NotImplemented"},
				"lifecycle": {"404 NoSuchLifecycleConfiguration", "501 NotImplemented"}, "cors": {"404 NoSuchCORSConfiguration", "501 NotImplemented"},
				"tagging": {"404 NoSuchTagSet", "501 NotImplemented"}, "website": {"404 NoSuchWebsiteConfiguration", "501 NotImplemented"},
				"encryption":  {"404 ServerSideEncryptionConfigurationNotFoundError", "501 NotImplemented"},
				"object-lock": {"404 ObjectLockConfigurationNotFoundError", "501 NotImplemented"},
			} {
				c.do(t, request{bucket: b, query: query}).oneOf(t, answers...)
			}
		}},
	)
}
