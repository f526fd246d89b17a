package client

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/identity/signature"
)

// Call is a request in the caller's own spelling, for callers that look at answers of any
// kind.
type Call struct {
	Method string
	Path   string // escaped, with its query
	Header http.Header
	Body   []byte // nil: none
	// Anonymous sends no credentials; Token sends this one in place of the client's own.
	Anonymous bool
	Token     Secret
}

// Answer is what came back. Its body has at most 16 MiB.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Call sends a request and gives the answer whatever its status is. An error means that
// no answer came.
func (c *Client) Call(ctx context.Context, call Call) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, call.Method, strings.TrimSuffix(c.endpoint.String(), "/")+call.Path, bytes.NewReader(call.Body))
	if err != nil {
		return Answer{}, err
	}
	if call.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, values := range call.Header {
		req.Header[name] = values
	}
	if c.opts.UserAgent != "" {
		req.Header.Set("User-Agent", c.opts.UserAgent)
	}
	switch {
	case call.Anonymous:
	case call.Token != "":
		req.Header.Set("X-Auth-Token", string(call.Token))
	case c.config.Token != "":
		req.Header.Set("X-Auth-Token", string(c.config.Token))
	default:
		if c.config.ProjectID != "" {
			req.Header.Set("X-Project-Id", c.config.ProjectID)
		}
		if err := signature.Sign(req, call.Body, c.config.AccessKey, string(c.config.SecretKey), c.opts.Now()); err != nil {
			return Answer{}, fmt.Errorf("%s: sign the request: %w", what(req), err)
		}
	}
	resp, err := c.opts.HTTP.Do(req)
	if err != nil {
		return Answer{}, c.unreachable(req, err)
	}
	defer resp.Body.Close()
	body, err := readAnswer(resp.Body)
	if err != nil {
		return Answer{}, c.unreachable(req, fmt.Errorf("read the answer: %w", err))
	}
	return Answer{resp.StatusCode, resp.Header, body}, nil
}
