package s3suite

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"
)

type bucketList struct {
	XMLName xml.Name `xml:"ListAllMyBucketsResult"`
	Buckets struct {
		Bucket []struct{ Name, CreationDate string }
	}
	Owner             struct{ ID string }
	ContinuationToken string
	Prefix            string
}

func (l bucketList) names() (out []string) {
	for _, b := range l.Buckets.Bucket {
		out = append(out, b.Name)
	}
	return out
}

func bucketCases() []test {
	cases := []test{
		{"made, found, removed", func(t *testing.T, c *client) {
			name := c.freeName()
			c.do(t, request{method: "HEAD", bucket: name}).want(t, 404, "")
			a := c.do(t, request{method: "PUT", bucket: name}).want(t, 200, "")
			if got := a.header.Get("Location"); got != "/"+name {
				t.Errorf("Location is %q", got)
			}
			if a := c.do(t, request{method: "HEAD", bucket: name}).want(t, 200, ""); a.header.Get("X-Amz-Bucket-Region") != c.region {
				t.Errorf("HEAD names the region %q", a.header.Get("X-Amz-Bucket-Region"))
			}
			c.do(t, request{method: "DELETE", bucket: name}).want(t, 204, "")
			c.do(t, request{method: "DELETE", bucket: name}).want(t, 404, "NoSuchBucket")
			c.do(t, request{method: "HEAD", bucket: name}).want(t, 404, "")
		}},
		{"made again", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "kept", "x")
			c.do(t, request{method: "PUT", bucket: b}).oneOf(t, "409 BucketAlreadyOwnedByYou", "200")
			c.wantObject(t, b, "kept", "x")
		}},
		{"location", func(t *testing.T, c *client) {
			name := c.freeName()
			body := `<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>` + c.region + `</LocationConstraint></CreateBucketConfiguration>`
			c.do(t, request{method: "PUT", bucket: name, body: body}).want(t, 200, "")
			a := c.do(t, request{bucket: name, query: "location"}).want(t, 200, "")
			if got := decode[struct {
				XMLName xml.Name `xml:"LocationConstraint"`
				Region  string   `xml:",chardata"`
			}](t, a); got.Region != c.region {
				t.Errorf("the location is %q", got.Region)
			}
		}},
		{"another region", func(t *testing.T, c *client) {
			body := `<CreateBucketConfiguration><LocationConstraint>moon-west-1</LocationConstraint></CreateBucketConfiguration>`
			name := c.freeName()
			c.do(t, request{method: "PUT", bucket: name, body: body}).want(t, 400, "InvalidLocationConstraint|IllegalLocationConstraintException")
			c.do(t, request{method: "HEAD", bucket: name}).want(t, 404, "")
		}},
		{"malformed configuration", func(t *testing.T, c *client) {
			name := c.freeName()
			c.do(t, request{method: "PUT", bucket: name, body: "<CreateBucketConfiguration>"}).want(t, 400, "MalformedXML")
			c.do(t, request{method: "HEAD", bucket: name}).want(t, 404, "")
		}},
		{"not empty", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "a/b", "x")
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 409, "BucketNotEmpty")
			c.do(t, request{method: "DELETE", bucket: b, key: "a/b"}).want(t, 204, "")
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
		}},
		{"listed", func(t *testing.T, c *client) {
			a, b := c.newBucket(t), c.newBucket(t)
			l := decode[bucketList](t, c.do(t, request{}).want(t, 200, ""))
			names := l.names()
			if !slices.Contains(names, a) || !slices.Contains(names, b) || !slices.IsSorted(names) || l.Owner.ID == "" {
				t.Errorf("listed %q of owner %q", names, l.Owner.ID)
			}
			for _, one := range l.Buckets.Bucket {
				wantTime(t, one.CreationDate)
			}
		}},
		{"listed in pages", func(t *testing.T, c *client) {
			prefix := c.freeName() + "-page"
			want := []string{prefix + "-a", prefix + "-b", prefix + "-c"}
			for _, name := range want {
				c.do(t, request{method: "PUT", bucket: name}).want(t, 200, "")
			}
			var got []string
			query := "max-buckets=2&prefix=" + prefix
			for range want {
				l := decode[bucketList](t, c.do(t, request{query: query}).want(t, 200, ""))
				if got = append(got, l.names()...); len(l.names()) > 2 {
					t.Errorf("a page has %q", l.names())
				}
				if l.ContinuationToken == "" {
					break
				}
				query = "max-buckets=2&prefix=" + prefix + "&continuation-token=" + escape(l.ContinuationToken, false)
			}
			if !slices.Equal(got, want) {
				t.Errorf("listed %q, want %q", got, want)
			}
			c.do(t, request{query: "max-buckets=0"}).want(t, 400, "InvalidArgument")
			c.do(t, request{query: "max-buckets=x"}).want(t, 400, "InvalidArgument")
		}},
		{"objects of no bucket", func(t *testing.T, c *client) {
			name := c.freeName()
			c.do(t, request{bucket: name}).want(t, 404, "NoSuchBucket")
			c.do(t, request{bucket: name, query: "list-type=2"}).want(t, 404, "NoSuchBucket")
			c.do(t, request{bucket: name, query: "uploads"}).want(t, 404, "NoSuchBucket")
			c.do(t, request{bucket: name, key: "k"}).want(t, 404, "NoSuchBucket")
			c.do(t, request{method: "HEAD", bucket: name, key: "k"}).want(t, 404, "")
			c.do(t, request{method: "PUT", bucket: name, key: "k", body: "x"}).want(t, 404, "NoSuchBucket")
			c.do(t, request{method: "DELETE", bucket: name, key: "k"}).want(t, 404, "NoSuchBucket")
			c.do(t, request{method: "POST", bucket: name, key: "k", query: "uploads"}).want(t, 404, "NoSuchBucket")
		}},
	}
	for _, name := range []string{
		"a", "aa", "_underscore", "under_score", "-dash", "dash-", "Upper", "two..dots", "dot-.dash", "192.168.5.123", "exclaim!", "sp ace", "ünï",
		strings.Repeat("a", 64), strings.Repeat("a", 255),
	} {
		cases = append(cases, test{"name " + name[:min(len(name), 20)], func(t *testing.T, c *client) {
			c.do(t, request{method: "PUT", bucket: name}).want(t, 400, "InvalidBucketName")
		}})
	}
	for _, name := range []string{"abc", "1-digit-first", "with.dot-and-dash", strings.Repeat("a", 63)} {
		cases = append(cases, test{"good name " + name[:min(len(name), 20)], func(t *testing.T, c *client) {
			c.do(t, request{method: "PUT", bucket: name}).want(t, 200, "")
			c.do(t, request{method: "DELETE", bucket: name}).want(t, 204, "")
		}})
	}
	return cases
}
