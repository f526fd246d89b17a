package s3suite

import (
	"strings"
	"testing"
)

// domains are hosts below which the service is told to find buckets.
var domains = []string{"s3.quickims.test", "objects.example.org"}

// at is the client for another Host header.
func (c *client) at(host string) *client {
	other := *c
	other.host = host
	return &other
}

func hostCases() []test {
	own := func(t *testing.T, c *client) {
		if c.server == nil {
			t.Skip("another server has other domains")
		}
	}
	return []test{
		{"buckets as hosts", func(t *testing.T, c *client) {
			own(t, c)
			for _, domain := range domains {
				name := c.freeName()
				for _, host := range []string{name + "." + domain, strings.ToUpper(name + "." + domain), name + "." + domain + ":8080", name + "." + domain + "."} {
					at := c.at(host)
					at.do(t, request{method: "PUT"}).oneOf(t, "200", "409 BucketAlreadyOwnedByYou")
					at.do(t, request{method: "PUT", root: "folder/a b+ü", body: host}).want(t, 200, "")
					c.wantObject(t, name, "folder/a b+ü", host)
					if a := at.do(t, request{root: "folder/a b+ü"}).want(t, 200, ""); a.body != host {
						t.Errorf("%s: %q", host, a.body)
					}
					if keys, _ := decode[list](t, at.do(t, request{query: "list-type=2"}).want(t, 200, "")).names(); len(keys) != 1 {
						t.Errorf("%s lists %q", host, keys)
					}
				}
				// A key that looks like a bucket is a key.
				c.at(name+"."+domain).do(t, request{root: name + "/k"}).want(t, 404, "NoSuchKey")
			}
		}},
		{"a bucket with dots", func(t *testing.T, c *client) {
			own(t, c)
			name := c.freeName() + ".with.dots"
			c.at(name+"."+domains[0]).do(t, request{method: "PUT"}).want(t, 200, "")
			c.do(t, request{method: "HEAD", bucket: name}).want(t, 200, "")
		}},
		{"path style at the domain itself", func(t *testing.T, c *client) {
			own(t, c)
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			for _, host := range []string{domains[0], domains[1], "localhost", "localhost:9000", "127.0.0.1", "[::1]:9000"} {
				if a := c.at(host).do(t, request{bucket: b, key: "foo"}).want(t, 200, ""); a.body != "bar" {
					t.Errorf("%s: %q", host, a.body)
				}
			}
		}},
		{"hosts that are not the service's", func(t *testing.T, c *client) {
			own(t, c)
			name := c.freeName()
			for _, host := range []string{name + ".example.com", name + "." + domains[0] + ".example.com", name + ".s3-quickims.test", name + ".s3.amazonaws.com"} {
				// An empty object must not become a bucket.
				a := c.at(host).do(t, request{method: "PUT", root: name}).oneOf(t, "400 InvalidRequest", "400 InvalidHostHeader", "403 SignatureDoesNotMatch")
				if a.status == 400 && !strings.Contains(strings.ToLower(a.body), "path style") && !strings.Contains(strings.ToLower(a.body), "path-style") {
					t.Errorf("%s: the error does not name path style: %s", host, a.body)
				}
				c.at(host).do(t, request{method: "PUT", root: "some-key", body: "x"}).oneOf(t, "400 InvalidRequest", "400 InvalidHostHeader")
			}
			c.do(t, request{method: "HEAD", bucket: name}).want(t, 404, "")
			c.do(t, request{method: "HEAD", bucket: "some-key"}).want(t, 404, "")
		}},
		{"hosts that are none", func(t *testing.T, c *client) {
			for _, lines := range []string{"", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: \r\n"} {
				a, err := c.send("GET / HTTP/1.1\r\n"+lines+"Connection: close\r\n\r\n", "GET")
				if err != nil || a.status/100 != 4 {
					t.Errorf("%q: %d %v", lines, a.status, err)
				}
			}
		}},
		{"another host than was signed", func(t *testing.T, c *client) {
			own(t, c)
			b, other := c.newBucket(t), c.newBucket(t)
			wire := c.at(b + "." + domains[0]).wire(request{method: "PUT", root: "foo", body: "x"})
			wire = strings.Replace(wire, b+"."+domains[0], other+"."+domains[0], 1)
			if a, err := c.send(wire, "PUT"); err != nil || a.status != 403 {
				t.Errorf("%d %v", a.status, err)
			}
			c.wantNone(t, other, "foo")
			c.wantNone(t, b, "foo")
		}},
	}
}
