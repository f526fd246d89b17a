package s3suite

import (
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// list is the answer to ListObjects of both versions. A pointer tells an empty element
// from one that is not there.
type list struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Name                  string
	Prefix                *string
	Marker                *string
	NextMarker            *string
	MaxKeys               int
	KeyCount              *int
	Delimiter             *string
	EncodingType          *string
	IsTruncated           bool
	StartAfter            *string
	ContinuationToken     *string
	NextContinuationToken *string
	Contents              []struct {
		Key, LastModified, ETag, StorageClass string
		Size                                  int64
		Owner                                 *struct{ ID, DisplayName string }
	}
	CommonPrefixes []struct{ Prefix string }
}

// names are the keys and the common prefixes, both in their order.
func (l list) names() (keys, prefixes []string) {
	for _, o := range l.Contents {
		keys = append(keys, o.Key)
	}
	for _, p := range l.CommonPrefixes {
		prefixes = append(prefixes, p.Prefix)
	}
	return keys, prefixes
}

// text shows an element that may be missing.
func text(s *string) string {
	if s == nil {
		return "missing"
	}
	return fmt.Sprintf("%q", *s)
}

func (c *client) list(t *testing.T, bucket, query string) list {
	t.Helper()
	return decode[list](t, c.do(t, request{bucket: bucket, query: query}).want(t, 200, ""))
}

func wantTime(t *testing.T, s string) {
	t.Helper()
	if at, err := time.Parse("2006-01-02T15:04:05.000Z", s); err != nil || time.Since(at).Abs() > time.Hour {
		t.Errorf("the time %q is not now in S3's format", s)
	}
}

// listTable says which keys and prefixes of the keys a query lists, at once and in
// pages of one and two, by both versions.
var listTable = []struct {
	name              string
	keys              string // separated by spaces; _ stands for a space
	prefix, delimiter string
	want, wantPrefix  string
}{
	{"nothing", "", "", "", "", ""},
	{"all", "foo bar baz", "", "", "bar baz foo", ""},
	{"folders", "foo/bar foo/bar/xyzzy2 quux/thud asdf foo2", "", "/", "asdf foo2", "foo/ quux/"},
	{"folders below a prefix", "asdf boo/bar boo/baz/xyzzy cquux/thud cquux/bla", "boo/", "/", "boo/bar", "boo/baz/"},
	{"a prefix that is a folder object", "asdf/", "asdf/", "/", "asdf/", ""},
	{"an alternative delimiter", "bar baz cab foo", "", "a", "foo", "ba ca"},
	{"underscores", "_obj1_ _under1/bar _under1/baz/xyzzy _under2/thud _under2/bla", "", "/", "_obj1_", "_under1/ _under2/"},
	{"delimiter %", "b%ar b%az c%ab foo", "", "%", "foo", "b% c%"},
	{"delimiter space", "b_ar b_az c_ab foo", "", " ", "foo", "b_ c_"},
	{"delimiter dot", "b.ar b.az c.ab foo", "", ".", "foo", "b. c."},
	{"delimiter of several bytes", "a--b a--c b", "", "--", "b", "a--"},
	{"a delimiter that no key has", "bar baz cab foo", "", "Z", "bar baz cab foo", ""},
	{"a line feed as delimiter", "bar baz cab foo", "", "\n", "bar baz cab foo", ""},
	{"non-ASCII delimiter", "aüb aüc b", "", "ü", "b", "aü"},
	{"prefix", "foo/bar foo/baz quux", "foo/", "", "foo/bar foo/baz", ""},
	{"prefix within a name", "bar baz foo", "ba", "", "bar baz", ""},
	{"prefix that no key has", "foo/bar foo/baz quux", "d", "", "", ""},
	{"prefix of a line feed", "foo/bar foo/baz quux", "\n", "", "", ""},
	{"prefix and another delimiter", "bar bazar cab foo", "ba", "a", "bar", "baza"},
	{"prefix and a delimiter that nothing has", "b/a/c b/a/g b/a/r g", "b", "z", "b/a/c b/a/g b/a/r", ""},
	{"prefix that nothing has and delimiter", "b/a/r b/a/c b/a/g g", "d", "/", "", ""},
	{"prefix and delimiter that nothing has", "b/a/c b/a/g b/a/r g", "y", "z", "", ""},
	{"folders and objects in one order", "a/1 a-1 a.1 a0 a b/1", "", "/", "a-1 a.1 a0", "a/ b/"},
	{"XML in keys", `<a> "b" &c 'd' ]]>`, "", "", `"b" &c 'd' <a> ]]>`, ""},
	{"plus, percent, space in keys", "a+b a%2Bb a_b a%b ä", "", "", "a_b a%2Bb a%b a+b ä", ""},
}

// spaced makes a list of names of a column of listTable.
func spaced(s string) []string {
	names := strings.Fields(s)
	for i := range names {
		if !strings.HasPrefix(names[i], "_") {
			names[i] = strings.ReplaceAll(names[i], "_", " ")
		}
	}
	return names
}

func listCases() []test {
	var cases []test
	for _, k := range listTable {
		cases = append(cases, test{k.name, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, key := range spaced(k.keys) {
				// "a" beside "a/1" is not kept by a store of files; docs/s3.md says so.
				if strings.HasSuffix(key, "/") || !slices.ContainsFunc(spaced(k.keys), func(o string) bool { return strings.HasPrefix(o, key+"/") }) {
					c.put(t, b, key, key)
				}
			}
			want, wantPrefix := spaced(k.want), spaced(k.wantPrefix)
			slices.Sort(want)
			for _, version := range []int{1, 2} {
				for _, size := range []int{1, 2, 1000} {
					for _, encoding := range []string{"", "url"} {
						keys, prefixes := c.pages(t, b, version, size, encoding, k.prefix, k.delimiter)
						if !slices.Equal(keys, want) || !slices.Equal(prefixes, wantPrefix) {
							t.Errorf("version %d, pages of %d, encoding %q: %q and prefixes %q, want %q and %q", version, size, encoding, keys, prefixes, want, wantPrefix)
						}
					}
				}
			}
		}})
	}
	return append(cases, listFieldCases()...)
}

// pages lists a bucket to its end and checks what each page says of itself.
func (c *client) pages(t *testing.T, b string, version, size int, encoding, prefix, delimiter string) (keys, prefixes []string) {
	t.Helper()
	base := fmt.Sprintf("max-keys=%d", size)
	if version == 2 {
		base += "&list-type=2"
	}
	if prefix != "" {
		base += "&prefix=" + escape(prefix, false)
	}
	if delimiter != "" {
		base += "&delimiter=" + escape(delimiter, false)
	}
	if encoding != "" {
		base += "&encoding-type=" + encoding
	}
	plain := func(s string) string {
		if encoding == "" {
			return s
		}
		if strings.ContainsAny(s, "<>&\"' %\n") && !strings.Contains(s, "%") {
			t.Errorf("%q is not encoded", s)
		}
		// A "+" that stands for itself is sent as %2B, so both readings of "+" agree.
		out, err := url.QueryUnescape(s)
		if err != nil {
			t.Errorf("%q is not encoded: %v", s, err)
		}
		return out
	}
	query := base
	for range 100 {
		l := c.list(t, b, query)
		k, p := l.names()
		for i := range k {
			k[i] = plain(k[i])
		}
		for i := range p {
			p[i] = plain(p[i])
		}
		keys, prefixes = append(keys, k...), append(prefixes, p...)
		if n := len(k) + len(p); n > size || l.MaxKeys != size || version == 2 && (l.KeyCount == nil || *l.KeyCount != n) {
			t.Errorf("version %d: a page of %d says MaxKeys %d, has a KeyCount: %v", version, n, l.MaxKeys, l.KeyCount != nil)
		}
		if l.Name != b || l.Prefix == nil || plain(*l.Prefix) != prefix {
			t.Errorf("version %d: Name is %q, Prefix %s, want %q", version, l.Name, text(l.Prefix), prefix)
		}
		if (delimiter == "") != (l.Delimiter == nil) || l.Delimiter != nil && plain(*l.Delimiter) != delimiter {
			t.Errorf("version %d: Delimiter is %s, want %q", version, text(l.Delimiter), delimiter)
		}
		if (encoding == "") != (l.EncodingType == nil) {
			t.Errorf("version %d: EncodingType is %s, want %q", version, text(l.EncodingType), encoding)
		}
		if !l.IsTruncated {
			if l.NextMarker != nil || l.NextContinuationToken != nil {
				t.Errorf("version %d: the last page names a next one", version)
			}
			return keys, prefixes
		}
		switch {
		case version == 2:
			if l.NextContinuationToken == nil {
				t.Fatal("a page that is not the last has no NextContinuationToken")
			}
			query = base + "&continuation-token=" + escape(*l.NextContinuationToken, false)
		case l.NextMarker != nil:
			if delimiter == "" {
				t.Error("version 1: NextMarker without a delimiter")
			}
			query = base + "&marker=" + escape(plain(*l.NextMarker), false)
		default:
			if delimiter != "" || len(k) == 0 {
				t.Fatal("version 1: a page that is not the last has no NextMarker")
			}
			query = base + "&marker=" + escape(k[len(k)-1], false)
		}
	}
	t.Fatalf("version %d: the list does not end", version)
	return nil, nil
}

// listFieldCases are about the parameters and fields beside keys and prefixes.
func listFieldCases() []test {
	filled := func(t *testing.T, c *client) string {
		b := c.newBucket(t)
		for _, key := range []string{"bar", "baz", "foo", "quxx"} {
			c.put(t, b, key, key)
		}
		return b
	}
	all := []string{"bar", "baz", "foo", "quxx"}
	keysOf := func(l list) []string { k, _ := l.names(); return k }
	echo := func(t *testing.T, name string, got *string, want string) {
		t.Helper()
		if got == nil || *got != want {
			t.Errorf("%s is %s, want %q", name, text(got), want)
		}
	}
	cases := []test{
		{"fields of an object", func(t *testing.T, c *client) {
			b := filled(t, c)
			for _, query := range []string{"", "list-type=2&fetch-owner=true"} {
				for _, o := range c.list(t, b, query).Contents {
					if o.ETag != `"`+md5Hex(o.Key)+`"` || o.Size != int64(len(o.Key)) || o.StorageClass != "STANDARD" || o.Owner == nil || o.Owner.ID == "" {
						t.Errorf("%q: %+v", query, o)
					}
					wantTime(t, o.LastModified)
				}
			}
			for _, query := range []string{"list-type=2", "list-type=2&fetch-owner=false"} {
				for _, o := range c.list(t, b, query).Contents {
					if o.Owner != nil {
						t.Errorf("%q: an owner that nobody asked for", query)
					}
				}
			}
		}},
		{"empty parameters", func(t *testing.T, c *client) {
			b := filled(t, c)
			l := c.list(t, b, "prefix=&marker=&delimiter=")
			echo(t, "Prefix", l.Prefix, "")
			echo(t, "Marker", l.Marker, "")
			if got := keysOf(l); !slices.Equal(got, all) || l.Delimiter != nil {
				t.Errorf("version 1: %q, Delimiter %v", got, l.Delimiter)
			}
			l = c.list(t, b, "list-type=2&prefix=&delimiter=&continuation-token=&start-after=")
			echo(t, "Prefix", l.Prefix, "")
			echo(t, "ContinuationToken", l.ContinuationToken, "")
			if got := keysOf(l); !slices.Equal(got, all) || l.Delimiter != nil {
				t.Errorf("version 2: %q, Delimiter %v", got, l.Delimiter)
			}
			l = c.list(t, b, "")
			echo(t, "Prefix without one", l.Prefix, "")
			echo(t, "Marker without one", l.Marker, "")
			if l = c.list(t, b, "list-type=2"); l.ContinuationToken != nil || l.StartAfter != nil || l.Marker != nil {
				t.Errorf("version 2 echoes what was not sent: %+v", l)
			}
		}},
		{"max-keys", func(t *testing.T, c *client) {
			b := filled(t, c)
			for _, version := range []string{"", "&list-type=2"} {
				if l := c.list(t, b, "max-keys=0"+version); l.IsTruncated || len(l.Contents) != 0 || l.MaxKeys != 0 {
					t.Errorf("0: %+v", l)
				}
				if l := c.list(t, b, "max-keys=2000"+version); l.MaxKeys != 1000 || len(l.Contents) != 4 {
					t.Errorf("2000: MaxKeys is %d", l.MaxKeys)
				}
				if l := c.list(t, b, strings.TrimPrefix(version, "&")); l.MaxKeys != 1000 {
					t.Errorf("none: MaxKeys is %d", l.MaxKeys)
				}
				for _, bad := range []string{"blah", "-1", "1.5", "99999999999999999999"} {
					c.do(t, request{bucket: b, query: "max-keys=" + bad + version}).want(t, 400, "InvalidArgument")
				}
			}
		}},
		{"marker", func(t *testing.T, c *client) {
			b := filled(t, c)
			for marker, want := range map[string][]string{"bar": all[1:], "blah": all[2:], "a": all, "quxx": nil, "zzz": nil, "\n": all, "ü": nil} {
				l := c.list(t, b, "marker="+escape(marker, false))
				echo(t, "Marker", l.Marker, marker)
				if got := keysOf(l); !slices.Equal(got, want) {
					t.Errorf("marker %q: %q", marker, got)
				}
				l = c.list(t, b, "list-type=2&start-after="+escape(marker, false))
				echo(t, "StartAfter", l.StartAfter, marker)
				if got := keysOf(l); !slices.Equal(got, want) {
					t.Errorf("start-after %q: %q", marker, got)
				}
			}
		}},
		{"continuation token and start-after", func(t *testing.T, c *client) {
			b := filled(t, c)
			l := c.list(t, b, "list-type=2&max-keys=1&start-after=bar")
			next := c.list(t, b, "list-type=2&max-keys=1&start-after=bar&continuation-token="+escape(*l.NextContinuationToken, false))
			echo(t, "ContinuationToken", next.ContinuationToken, *l.NextContinuationToken)
			if got := append(keysOf(l), keysOf(next)...); !slices.Equal(got, []string{"baz", "foo"}) {
				t.Errorf("the pages have %q", got)
			}
			c.do(t, request{bucket: b, query: "list-type=2&continuation-token=%00%01bogus"}).oneOf(t, "400 InvalidArgument")
		}},
		{"marker below a common prefix", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, key := range []string{"a/1", "a/2", "b/1", "c"} {
				c.put(t, b, key, key)
			}
			for _, query := range []string{"delimiter=%2F&marker=a%2F", "delimiter=%2F&list-type=2&start-after=a%2F"} {
				l := c.list(t, b, query)
				if _, got := l.names(); len(got) == 0 || got[len(got)-1] != "b/" {
					t.Errorf("%s: prefixes %q", query, got)
				}
			}
		}},
		{"unknown parameters", func(t *testing.T, c *client) {
			b := filled(t, c)
			for _, bad := range []string{"list-type=3", "encoding-type=base64"} {
				if a := c.do(t, request{bucket: b, query: bad}); a.status != 400 {
					t.Errorf("%s: %d", bad, a.status)
				}
			}
		}},
		{"versions of a bucket without versions", func(t *testing.T, c *client) {
			b := filled(t, c)
			type versions struct {
				XMLName     xml.Name `xml:"ListVersionsResult"`
				IsTruncated bool
				NextKey     string `xml:"NextKeyMarker"`
				NextID      string `xml:"NextVersionIdMarker"`
				Version     []struct {
					Key, VersionId, ETag string
					IsLatest             bool
				}
			}
			var got []string
			query := "versions&max-keys=3"
			for range 4 {
				l := decode[versions](t, c.do(t, request{bucket: b, query: query}).want(t, 200, ""))
				for _, v := range l.Version {
					got = append(got, v.Key)
					if v.VersionId != "null" || !v.IsLatest {
						t.Errorf("%+v", v)
					}
				}
				if !l.IsTruncated {
					break
				}
				query = "versions&max-keys=3&key-marker=" + escape(l.NextKey, false) + "&version-id-marker=" + escape(l.NextID, false)
			}
			if !slices.Equal(got, all) {
				t.Errorf("listed %q", got)
			}
		}},
		{"1,001 keys", func(t *testing.T, c *client) {
			if c.server == nil {
				t.Skip("fills the bucket's folder")
			}
			b := c.newBucket(t)
			c.fill(t, b, 1001)
			for _, version := range []int{1, 2} {
				keys, _ := c.pages(t, b, version, 1000, "", "", "")
				if len(keys) != 1001 || !slices.IsSorted(keys) {
					t.Errorf("version %d: %d keys", version, len(keys))
				}
			}
			var del strings.Builder
			keys, _ := c.pages(t, b, 2, 1000, "", "", "")
			for _, key := range keys {
				del.WriteString("<Object><Key>" + key + "</Key></Object>")
			}
			body := "<Delete>" + del.String() + "</Delete>"
			c.do(t, request{method: "POST", bucket: b, query: "delete", body: body, header: []string{"Content-MD5: " + md5Base64(body)}}).want(t, 400, "MalformedXML")
			if keys, _ := c.pages(t, b, 2, 1000, "", "", ""); len(keys) != 1001 {
				t.Errorf("a refused request left %d keys", len(keys))
			}
		}},
	}
	return cases
}
