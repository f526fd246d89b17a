package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// Attachment is an attachment as the service shows it.
type Attachment struct {
	ID        string `json:"attachment_id"`
	ImageID   string `json:"image_id"`
	ImageName string `json:"image_name"`
	CreatedAt string `json:"created_at"`
	ExpiresAt string `json:"expires_at"` // "" for never
	TTL       int64  `json:"ttl_seconds"`
	// Connections, Addresses and what was read are as of some seconds ago.
	Connections int      `json:"connections"`
	Addresses   []string `json:"addresses"`
	BytesRead   int64    `json:"bytes_read"`
	LastReadAt  string   `json:"last_read_at"` // "" for never
	// URI is where the disk is served. It holds a secret and is there in the answer to
	// Attach alone.
	URI string `json:"uri"`
	// Raw is the service's own document.
	Raw json.RawMessage `json:"-"`
}

func readAttachment(body json.RawMessage) (Attachment, error) {
	a := Attachment{Raw: body}
	if err := json.Unmarshal(body, &a); err != nil {
		return Attachment{}, fmt.Errorf("read an attachment: %w", err)
	}
	return a, nil
}

// AttachLife is how long an attachment lasts, in whole seconds. What is nil is the
// service's default, or when renewed as it was; 0 is for ever.
type AttachLife struct {
	TTL    *time.Duration // while nobody is connected
	MaxAge *time.Duration // though somebody is
}

// attachLifeWire is AttachLife in a request's body.
type attachLifeWire struct {
	TTL    *int64 `json:"ttl_seconds,omitempty"`
	MaxAge *int64 `json:"max_age_seconds,omitempty"`
}

func (l AttachLife) wire() attachLifeWire {
	seconds := func(d *time.Duration) *int64 {
		if d == nil {
			return nil
		}
		n := int64(*d / time.Second)
		return &n
	}
	return attachLifeWire{seconds(l.TTL), seconds(l.MaxAge)}
}

// Attach has the disk of an image served.
func (c *Client) Attach(ctx context.Context, imageID string, life AttachLife) (Attachment, error) {
	project, err := c.project()
	if err != nil {
		return Attachment{}, err
	}
	body, err := c.do(ctx, http.MethodPost, []string{"v1", project, "attachments"}, nil, struct {
		ImageID string `json:"image_id"`
		attachLifeWire
	}{imageID, life.wire()})
	if err != nil {
		return Attachment{}, err
	}
	a, err := readAttachment(body)
	if err == nil && (a.ID == "" || a.URI == "") {
		err = errors.New("read an attachment: the service attached the image but gave no URI")
	}
	return a, err
}

// RenewAttachment begins an attachment's time anew.
func (c *Client) RenewAttachment(ctx context.Context, id string, life AttachLife) (Attachment, error) {
	project, err := c.project()
	if err != nil {
		return Attachment{}, err
	}
	body, err := c.do(ctx, http.MethodPatch, []string{"v1", project, "attachments", id}, nil, life.wire())
	if err != nil {
		return Attachment{}, err
	}
	return readAttachment(body)
}

// Detach ends an attachment. force ends it though somebody is connected.
func (c *Client) Detach(ctx context.Context, id string, force bool) error {
	project, err := c.project()
	if err != nil {
		return err
	}
	var body any
	if force {
		body = struct {
			Force bool `json:"force"`
		}{true}
	}
	_, err = c.do(ctx, http.MethodDelete, []string{"v1", project, "attachments", id}, nil, body)
	return err
}

// maxListRestarts is how often a list begins again because the attachment that a page
// ended with is gone when the next page is asked for.
const maxListRestarts = 10

// Attachments lists the project's attachments, those of one image when imageID is not
// "", page by page, the newest first.
func (c *Client) Attachments(ctx context.Context, imageID string) ([]Attachment, error) {
	project, err := c.project()
	if err != nil {
		return nil, err
	}
	query := url.Values{"limit": {strconv.Itoa(ims.DefaultListLimit)}}
	if imageID != "" {
		query.Set("image_id", imageID)
	}
	var all []Attachment
	for restarts := 0; ; {
		body, err := c.do(ctx, http.MethodGet, []string{"v1", project, "attachments"}, query, nil)
		if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusBadRequest && query.Has("marker") && restarts < maxListRestarts {
			// The last one of the page before ended meanwhile: there is no place to go on from.
			restarts++
			query.Del("marker")
			all = nil
			continue
		}
		if err != nil {
			return nil, err
		}
		var wire struct {
			Attachments []json.RawMessage `json:"attachments"`
		}
		if err := json.Unmarshal(body, &wire); err != nil {
			return nil, fmt.Errorf("read the list of attachments: %w", err)
		}
		for _, raw := range wire.Attachments {
			a, err := readAttachment(raw)
			if err != nil {
				return nil, err
			}
			all = append(all, a)
		}
		if len(wire.Attachments) < ims.DefaultListLimit {
			return all, nil
		}
		last := all[len(all)-1].ID
		if last == "" || last == query.Get("marker") {
			return nil, errors.New("read the list of attachments: the service repeats a page")
		}
		query.Set("marker", last)
	}
}
