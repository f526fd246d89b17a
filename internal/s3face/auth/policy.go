package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// Form is the signature of a browser's form. What it signs is the policy, which
// says what the other fields may be.
type Form struct {
	AccessKey string

	v4        *Signature // nil for the older form: HMAC-SHA1 of the policy
	policy    string     // base64
	signature string
}

// ReadForm finds the signature among a form's fields, whose names are in lower case.
func ReadForm(fields map[string]string) (*Form, *wire.Error) {
	f := &Form{policy: fields["policy"]}
	if f.policy == "" {
		return nil, wire.Errorf("AccessDenied", "The form has no policy. Nothing here is public.")
	}
	if algorithm, ok := fields["x-amz-algorithm"]; ok {
		if algorithm != v4Algorithm {
			return nil, wire.Errorf("InvalidArgument", "The field x-amz-algorithm is %.40q; it must be %s.", algorithm, v4Algorithm)
		}
		f.signature = fields["x-amz-signature"]
		f.v4 = &Signature{stamp: fields["x-amz-date"]}
		if bad := f.v4.credential(fields["x-amz-credential"]); bad != "" {
			return nil, wire.Errorf("InvalidArgument", "The field x-amz-credential is not valid; %s", bad)
		}
		var err error
		if f.v4.date, err = time.Parse(v4Time, f.v4.stamp); err != nil {
			return nil, wire.Errorf("InvalidArgument", "The field x-amz-date is %.40q; it must have the form %s.", f.v4.stamp, v4Time)
		}
		f.AccessKey = f.v4.AccessKey
	} else {
		f.signature = fields["signature"]
		if f.AccessKey = fields["awsaccesskeyid"]; f.AccessKey == "" {
			f.AccessKey = fields["accesskeyid"] // so Huawei Cloud's forms spell it
		}
	}
	if f.signature == "" || f.AccessKey == "" {
		return nil, wire.Errorf("InvalidArgument", "The form has a policy and no signature: the fields x-amz-algorithm, x-amz-credential, x-amz-date and x-amz-signature are needed.")
	}
	return f, nil
}

// Verify proves the form's signature.
func (f *Form) Verify(secret, region string, now time.Time) *wire.Error {
	bad := wire.Err("SignatureDoesNotMatch").With("AWSAccessKeyId", f.AccessKey)
	if f.v4 == nil {
		h := hmac.New(sha1.New, []byte(secret))
		h.Write([]byte(f.policy))
		if !hmac.Equal([]byte(base64.StdEncoding.EncodeToString(h.Sum(nil))), []byte(f.signature)) {
			return bad
		}
		return nil
	}
	s := f.v4
	switch {
	case s.day != s.date.UTC().Format(v4Day):
		return bad
	case s.date.Sub(now) > MaxSkew:
		return wire.Errorf("AccessDenied", "The form is not valid yet: its x-amz-date is %s.", s.stamp)
	case now.Sub(s.date) > MaxExpires+MaxSkew:
		return wire.Errorf("AccessDenied", "The form's signature has expired: it is more than 7 days old.")
	}
	key := signingKey(secret, s.day, s.region, s.service)
	if !hmac.Equal([]byte(hex.EncodeToString(hmacSHA256(key, f.policy))), []byte(f.signature)) {
		return bad
	}
	if s.region != region && s.region != defaultRegion {
		return wire.Errorf("AuthorizationHeaderMalformed", "The form's credential is for the region '%.40s'; expecting '%s'", s.region, region).With("Region", region)
	}
	return nil
}

// Policy is what a form may contain. It is read after its signature was proven.
type Policy struct {
	// Min and Max are the sizes in bytes that the file may have; Max is -1 if
	// the policy does not say.
	Min, Max int64

	rules []rule
}

// rule is a condition on one field, whose name is in lower case.
type rule struct {
	field, value string
	prefix       bool // value is only how it must begin
}

// Policy reads the form's policy. One that has expired is AccessDenied.
func (f *Form) Policy(now time.Time) (*Policy, *wire.Error) {
	raw, err := base64.StdEncoding.DecodeString(f.policy)
	if err != nil {
		return nil, invalidPolicy("it is not base64")
	}
	return parsePolicy(raw, now)
}

func invalidPolicy(format string, args ...any) *wire.Error {
	return wire.Errorf("InvalidPolicyDocument", "The form's policy is not valid: %s.", fmt.Sprintf(format, args...))
}

// maxRules bounds the conditions of a policy.
const maxRules = 200

func parsePolicy(raw []byte, now time.Time) (*Policy, *wire.Error) {
	var doc map[string]json.RawMessage // not a struct: its names are exact
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, invalidPolicy("it is not a JSON object")
	}
	var expiration string
	if err := json.Unmarshal(doc["expiration"], &expiration); err != nil {
		return nil, invalidPolicy("it has no expiration")
	}
	until, err := time.Parse("2006-01-02T15:04:05Z", expiration) // a fraction is taken too
	if err != nil {
		return nil, invalidPolicy("its expiration is %.40q; it must have the form 2006-01-02T15:04:05Z", expiration)
	}
	var conditions []json.RawMessage
	if err := json.Unmarshal(doc["conditions"], &conditions); err != nil || conditions == nil {
		return nil, invalidPolicy("it has no list of conditions")
	}
	if len(conditions) > maxRules {
		return nil, invalidPolicy("it has more than %d conditions", maxRules)
	}
	p := &Policy{Max: -1}
	for _, c := range conditions {
		if bad := p.add(c); bad != "" {
			return nil, invalidPolicy("%s", bad)
		}
	}
	if !now.Before(until) {
		return nil, wire.Errorf("AccessDenied", "Invalid according to Policy: Policy expired.")
	}
	return p, nil
}

// add reads one condition.
func (p *Policy) add(raw json.RawMessage) (bad string) {
	if bytes.HasPrefix(raw, []byte("{")) {
		var exact map[string]string
		if json.Unmarshal(raw, &exact) != nil || len(exact) == 0 {
			return fmt.Sprintf("the condition %.60s must have the form {\"FIELD\": \"VALUE\"}", raw)
		}
		for field, value := range exact {
			p.rules = append(p.rules, rule{field: strings.ToLower(field), value: value})
		}
		return ""
	}
	var list []any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&list) != nil || len(list) != 3 {
		return fmt.Sprintf("the condition %.60s must be a list of three", raw)
	}
	what, _ := list[0].(string)
	if strings.EqualFold(what, "content-length-range") {
		least, ok1 := size(list[1])
		most, ok2 := size(list[2])
		if !ok1 || !ok2 || least > most {
			return fmt.Sprintf("the range %.60s must be of two numbers of bytes, the smaller one first", raw)
		}
		if p.Max >= 0 { // there is another range: both hold
			least, most = max(least, p.Min), min(most, p.Max)
		}
		if least > most {
			return "the ranges of its size have nothing in common"
		}
		p.Min, p.Max = least, most
		return ""
	}
	field, ok1 := list[1].(string)
	value, ok2 := list[2].(string)
	name, dollar := strings.CutPrefix(field, "$")
	switch {
	case !ok1 || !ok2 || !dollar || name == "":
		return fmt.Sprintf("the condition %.60s must name a field as \"$FIELD\", and a value", raw)
	case strings.EqualFold(what, "eq"):
		p.rules = append(p.rules, rule{strings.ToLower(name), value, false})
	case strings.EqualFold(what, "starts-with"):
		p.rules = append(p.rules, rule{strings.ToLower(name), value, true})
	default:
		return fmt.Sprintf("the condition %.20q is unknown; it must be eq, starts-with or content-length-range", what)
	}
	return ""
}

// size reads a number of bytes, which some write as a string.
func size(v any) (int64, bool) {
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	return n, err == nil && n >= 0
}

// freeFields are the fields that a policy need not mention.
var freeFields = map[string]bool{"policy": true, "signature": true, "awsaccesskeyid": true, "accesskeyid": true, "x-amz-signature": true, "file": true}

// Check reports why the fields do not keep to the policy. bucket is the bucket
// that the form is sent to.
func (p *Policy) Check(bucket string, fields map[string]string) *wire.Error {
	denied := func(format string, args ...any) *wire.Error {
		return wire.Errorf("AccessDenied", "Invalid according to Policy: %s", fmt.Sprintf(format, args...))
	}
	all := map[string]string{"bucket": bucket}
	for name, value := range fields {
		if name != "bucket" {
			all[name] = value
		}
	}
	known := map[string]bool{}
	for _, r := range p.rules {
		known[r.field] = true
		got, there := all[r.field]
		switch {
		case r.prefix && !strings.HasPrefix(got, r.value), !r.prefix && (got != r.value || !there):
			return denied("Policy Condition failed: [%s, $%.60s, %.60q]", map[bool]string{true: "starts-with", false: "eq"}[r.prefix], r.field, r.value)
		}
	}
	for name := range all {
		if !known[name] && !freeFields[name] && !strings.HasPrefix(name, "x-ignore-") {
			return denied("Extra input fields: %.60s", name)
		}
	}
	return nil
}
