package s3suite

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"strings"
	"testing"
)

// sums compute the checksums that an object may have, as headers carry them.
var sums = map[string]func(string) string{
	"crc32": func(s string) string { return b64(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s)))) },
	"crc32c": func(s string) string {
		return b64(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(s), castagnoli)))
	},
	"crc64nvme": func(s string) string { return b64(binary.BigEndian.AppendUint64(nil, crc64.Checksum([]byte(s), nvme))) },
	"sha1":      func(s string) string { sum := sha1.Sum([]byte(s)); return b64(sum[:]) },
	"sha256":    func(s string) string { sum := sha256.Sum256([]byte(s)); return b64(sum[:]) },
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(0x9a6c9329ac4bc9b5) // the polynomial of NVMe, reflected
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func raw64(s string) string { b, _ := base64.StdEncoding.DecodeString(s); return string(b) }

// of is the checksum of an algorithm.
func (s checksums) of(name string) string {
	return map[string]string{"crc32": s.ChecksumCRC32, "crc32c": s.ChecksumCRC32C, "crc64nvme": s.ChecksumCRC64NVME, "sha1": s.ChecksumSHA1, "sha256": s.ChecksumSHA256}[name]
}

func checksumElement(name, value string) string {
	return fmt.Sprintf("<Checksum%s>%s</Checksum%s>", strings.ToUpper(name), value, strings.ToUpper(name))
}

func checksumCases() []test {
	var cases []test
	for name, sum := range sums {
		header := "x-amz-checksum-" + name
		cases = append(cases,
			test{name + " of an object", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				for _, body := range []string{"", "abc", strings.Repeat("0123456789", 20_000)} {
					a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: body, header: []string{"x-amz-sdk-checksum-algorithm: " + strings.ToUpper(name), header + ": " + sum(body)}}).want(t, 200, "")
					if a.header.Get(header) != sum(body) {
						t.Errorf("PUT answers %q", a.header.Get(header))
					}
					for _, method := range []string{"GET", "HEAD"} {
						a := c.do(t, request{method: method, bucket: b, key: "foo", header: []string{"x-amz-checksum-mode: ENABLED"}}).want(t, 200, "")
						if a.header.Get(header) != sum(body) || a.header.Get("x-amz-checksum-type") != "FULL_OBJECT" {
							t.Errorf("%s answers %q, type %q", method, a.header.Get(header), a.header.Get("x-amz-checksum-type"))
						}
						if a := c.do(t, request{method: method, bucket: b, key: "foo"}); a.header.Get(header) != "" {
							t.Errorf("%s: a checksum that nobody asked for", method)
						}
					}
				}
				// A range's bytes do not have the object's checksum.
				if a := c.do(t, request{bucket: b, key: "foo", header: []string{"x-amz-checksum-mode: ENABLED", "Range: bytes=0-4"}}).want(t, 206, ""); a.header.Get(header) != "" {
					t.Errorf("a range has the checksum %q", a.header.Get(header))
				}
			}},
			test{name + " that is wrong", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				c.put(t, b, "foo", "before")
				put := func(value string) answer {
					return c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "abc", header: []string{header + ": " + value}})
				}
				put(sum("abd")).want(t, 400, "BadDigest")
				for _, bad := range []string{"", "AAAA", "not base64!", sum("abc") + "AAAA"} {
					put(bad).want(t, 400, "InvalidRequest|InvalidArgument|BadDigest|InvalidDigest")
				}
				c.wantObject(t, b, "foo", "before")
			}},
			test{name + " of a copy", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				c.put(t, b, "foo", "abc", header+": "+sum("abc"))
				c.copy(t, b+"/foo", b, "copy").want(t, 200, "")
				a := c.do(t, request{method: "HEAD", bucket: b, key: "copy", header: []string{"x-amz-checksum-mode: ENABLED"}}).want(t, 200, "")
				if a.header.Get(header) != sum("abc") {
					t.Errorf("the copy has %q", a.header.Get(header))
				}
				c.copy(t, b+"/foo", b, "other", "x-amz-checksum-algorithm: SHA256").want(t, 200, "")
				a = c.do(t, request{method: "HEAD", bucket: b, key: "other", header: []string{"x-amz-checksum-mode: ENABLED"}}).want(t, 200, "")
				if a.header.Get("x-amz-checksum-sha256") != sums["sha256"]("abc") {
					t.Errorf("a copy with another algorithm has %v", a.header)
				}
			}},
			test{name + " of parts", func(t *testing.T, c *client) { partChecksums(t, c, name, sum) }},
		)
		if strings.HasPrefix(name, "crc") {
			cases = append(cases, test{name + " of a whole object in parts", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				id := c.initiate(t, b, "foo", "x-amz-checksum-algorithm: "+strings.ToUpper(name), "x-amz-checksum-type: FULL_OBJECT")
				bodies := []string{bytesOf('a', partSize), "end"}
				parts := []string{c.part(t, b, "foo", id, 1, bodies[0], header+": "+sum(bodies[0])), c.part(t, b, "foo", id, 2, bodies[1], header+": "+sum(bodies[1]))}
				whole := sum(bodies[0] + bodies[1])
				c.complete(t, b, "foo", id, parts, "x-amz-checksum-type: FULL_OBJECT", header+": "+sum("other")).want(t, 400, "BadDigest|InvalidRequest|InvalidPart")
				c.wantNone(t, b, "foo")
				r := decode[completed](t, c.complete(t, b, "foo", id, parts, "x-amz-checksum-type: FULL_OBJECT", header+": "+whole).want(t, 200, ""))
				if r.of(name) != whole || r.ChecksumType != "FULL_OBJECT" {
					t.Errorf("%+v, want %s", r.checksums, whole)
				}
				a := c.do(t, request{method: "HEAD", bucket: b, key: "foo", header: []string{"x-amz-checksum-mode: ENABLED"}}).want(t, 200, "")
				if a.header.Get(header) != whole || a.header.Get("x-amz-checksum-type") != "FULL_OBJECT" {
					t.Errorf("HEAD: %v", a.header)
				}
			}})
		}
	}
	return append(cases,
		test{"several at once", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "abc", header: []string{
				"x-amz-checksum-crc32: " + sums["crc32"]("abc"), "x-amz-checksum-sha256: " + sums["sha256"]("abc")}}).want(t, 400, "InvalidRequest")
			c.wantNone(t, b, "foo")
		}},
		test{"an algorithm that is none", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.do(t, request{method: "POST", bucket: b, key: "foo", query: "uploads", header: []string{"x-amz-checksum-algorithm: ROT13"}}).want(t, 400, "InvalidRequest|InvalidArgument")
			c.do(t, request{method: "POST", bucket: b, key: "foo", query: "uploads", header: []string{"x-amz-checksum-algorithm: SHA256", "x-amz-checksum-type: FULL_OBJECT"}}).want(t, 400, "InvalidRequest")
			c.wantUploads(t, b, 0)
		}},
		test{"the size that a completion names", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			parts := []string{c.part(t, b, "foo", id, 1, "abc")}
			c.complete(t, b, "foo", id, parts, "x-amz-mp-object-size: 4").want(t, 400, "InvalidRequest")
			c.wantNone(t, b, "foo")
			c.complete(t, b, "foo", id, parts, "x-amz-mp-object-size: 3").want(t, 200, "")
		}},
	)
}

// partChecksums goes through an upload whose parts have checksums: of each part, of the
// whole as a checksum of those, and in the attributes.
func partChecksums(t *testing.T, c *client, name string, sum func(string) string) {
	b, header := c.newBucket(t), "x-amz-checksum-"+name
	kind := "COMPOSITE"
	if name == "crc64nvme" {
		kind = "FULL_OBJECT" // it has no other
	}
	id := c.initiate(t, b, "foo", "x-amz-checksum-algorithm: "+strings.ToUpper(name), "x-amz-checksum-type: "+kind)
	bodies := []string{bytesOf('a', partSize), bytesOf('b', partSize), "end"}
	var parts []string
	concatenated := ""
	for i, body := range bodies {
		c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery(id, i+1), body: body, header: []string{header + ": " + sum("other")}}).want(t, 400, "BadDigest")
		a := c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery(id, i+1), body: body, header: []string{header + ": " + sum(body)}}).want(t, 200, "")
		if a.header.Get(header) != sum(body) {
			t.Errorf("part %d answers %q", i+1, a.header.Get(header))
		}
		parts = append(parts, partElement(i+1, a.header.Get("ETag"), checksumElement(name, sum(body))))
		concatenated += raw64(sum(body))
	}
	wrong := partElement(3, md5Hex("end"), checksumElement(name, sum("other")))
	c.complete(t, b, "foo", id, []string{parts[0], parts[1], wrong}).want(t, 400, "InvalidPart|BadDigest")
	want := fmt.Sprintf("%s-%d", sum(concatenated), len(parts))
	if kind == "FULL_OBJECT" {
		want = sum(strings.Join(bodies, ""))
	}
	r := decode[completed](t, c.complete(t, b, "foo", id, parts).want(t, 200, ""))
	if r.of(name) != want || r.ChecksumType != kind {
		t.Errorf("completed: %+v, want %s", r.checksums, want)
	}
	a := c.do(t, request{method: "HEAD", bucket: b, key: "foo", header: []string{"x-amz-checksum-mode: ENABLED"}}).want(t, 200, "")
	if a.header.Get(header) != want || a.header.Get("x-amz-checksum-type") != kind {
		t.Errorf("HEAD: %v, want %s", a.header, want)
	}
	got := decode[attributes](t, c.do(t, request{bucket: b, key: "foo", query: "attributes", header: []string{"x-amz-object-attributes: Checksum,ObjectParts,ObjectSize", "x-amz-max-parts: 2"}}).want(t, 200, ""))
	if sum := got.Checksum.of(name); sum != want && sum != strings.TrimSuffix(want, "-3") || got.Checksum.ChecksumType != kind {
		t.Errorf("the attributes' checksum is %+v, want %s", got.Checksum, want)
	}
	if p := got.ObjectParts; p == nil || p.PartsCount != 3 || len(p.Part) != 2 || !p.IsTruncated || p.NextPartNumberMarker != 2 || p.Part[0].Size != partSize || p.Part[0].of(name) != sum(bodies[0]) {
		t.Errorf("the attributes' parts are %+v", p)
	}
	got = decode[attributes](t, c.do(t, request{bucket: b, key: "foo", query: "attributes", header: []string{"x-amz-object-attributes: ObjectParts", "x-amz-part-number-marker: 2"}}).want(t, 200, ""))
	if p := got.ObjectParts; p == nil || len(p.Part) != 1 || p.IsTruncated || p.Part[0].PartNumber != 3 || p.Part[0].of(name) != sum("end") {
		t.Errorf("the attributes' last part is %+v", p)
	}
}
