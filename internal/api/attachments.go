package api

import (
	"bytes"
	"errors"
	"net/http"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// attachmentWire is an attachment as clients read it. It never holds the token.
type attachmentWire struct {
	ID        string `json:"attachment_id"`
	ImageID   string `json:"image_id"`
	ImageName string `json:"image_name"`
	UserID    string `json:"user_id"`
	CreatedAt string `json:"created_at"`
	// ExpiresAt is null for never.
	ExpiresAt   *string  `json:"expires_at"`
	TTL         int64    `json:"ttl_seconds"`
	MaxAge      int64    `json:"max_age_seconds"`
	Connections int      `json:"connections"`
	Addresses   []string `json:"addresses"`
	BytesRead   int64    `json:"bytes_read"`
	LastReadAt  *string  `json:"last_read_at"`
}

func newAttachmentWire(a ims.Attachment) attachmentWire {
	return attachmentWire{
		ID: a.ID, ImageID: a.ImageID, ImageName: a.ImageName, UserID: a.UserID,
		CreatedAt: seconds(a.CreatedAt), ExpiresAt: secondsOrNull(a.ExpiresAt),
		TTL: int64(a.TTL / time.Second), MaxAge: int64(a.MaxAge() / time.Second),
		Connections: a.Connections, Addresses: append([]string{}, a.Addresses...),
		BytesRead: a.BytesRead, LastReadAt: secondsOrNull(a.LastReadAt),
	}
}

func secondsOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := seconds(t)
	return &text
}

// unknownAttachment is the answer for an attachment that has ended, never was, or is
// another project's.
func unknownAttachment() *ims.Error {
	return ims.NotFoundf(ims.CodeObjectUnknown, "the project has no attachment with this id; it may have ended")
}

func attachmentFault(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return unknownAttachment()
	}
	return err
}

// attach is POST /v1/{project_id}/attachments. Its answer is the only place where the
// token is ever shown.
func (s *server) attach(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	image := f.required("image_id", ims.CodeBadFormat)
	seconds, age := f.integer("ttl_seconds"), f.integer("max_age_seconds")
	if err := f.failed(); err != nil {
		return err
	}
	life := catalog.AttachLife{}
	if life.TTL, err = ims.AttachTime(seconds); err != nil {
		return err
	}
	if life.MaxAge, err = ims.AttachAge(age); err != nil {
		return err
	}
	if !ims.ValidUUID(image) {
		return unknownImage()
	}
	if s.NBDURI == nil {
		return ims.Faultf(ims.CodeUnsupported, "this service serves no block devices: start it with --nbd-listen (nbd_listen in its configuration)")
	}
	token := ims.NewAttachToken()
	a := ims.Attachment{ID: ims.NewAttachmentID(), ImageID: image}
	a, err = s.Catalog.Attach(c.Context(), c.principal, a, ims.HashAttachToken(token), life, s.Limits)
	if err != nil {
		return imageFault(err)
	}
	writeJSON(c.w, http.StatusOK, struct {
		attachmentWire
		URI string `json:"uri"`
	}{newAttachmentWire(a), s.NBDURI(token)})
	return nil
}

// listAttachments is GET /v1/{project_id}/attachments, the newest first.
func (s *server) listAttachments(c *call) error {
	q := readQuery(c.Request)
	limit := q.number("limit", ims.DefaultListLimit, 1, ims.MaxListLimit)
	marker, image := q.one("marker"), q.one("image_id")
	if marker != "" && !ims.ValidUUID(marker) {
		q.refuse("marker is %q, it must be the id of an attachment", ims.Clip(marker))
	}
	if q.fault != nil {
		return q.fault
	}
	attachments, err := s.Catalog.Attachments(c.Context(), c.project(), image, marker, limit)
	if errors.Is(err, catalog.ErrNotFound) {
		// An empty page would say that this was all.
		return ims.Faultf(ims.CodeBadFormat, "marker: the project has no attachment %s (any more); list from the front again", marker)
	}
	if err != nil {
		return err
	}
	list := []attachmentWire{}
	for _, a := range attachments {
		list = append(list, newAttachmentWire(a))
	}
	writeJSON(c.w, http.StatusOK, struct {
		Attachments []attachmentWire `json:"attachments"`
	}{list})
	return nil
}

// attachment is the one that the path names.
func (s *server) attachment(c *call) (ims.Attachment, error) {
	id := c.PathValue("attachment_id")
	if !ims.ValidUUID(id) {
		return ims.Attachment{}, unknownAttachment()
	}
	a, err := s.Catalog.Attachment(c.Context(), c.project(), id)
	return a, attachmentFault(err)
}

// showAttachment is GET /v1/{project_id}/attachments/{attachment_id}.
func (s *server) showAttachment(c *call) error {
	a, err := s.attachment(c)
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, newAttachmentWire(a))
	return nil
}

// changeable is the attachment that the path names, if the caller may end or change it.
// Who may only look may do so with what they attached themselves, not with the disk of
// somebody else's machine.
func (s *server) changeable(c *call) (ims.Attachment, error) {
	a, err := s.attachment(c)
	if err == nil && a.UserID != c.principal.UserID && !c.principal.May(ims.ActionImagesUpdate) {
		err = forbidden(ims.ActionImagesUpdate)
	}
	return a, err
}

// renewAttachment is PATCH /v1/{project_id}/attachments/{attachment_id}: its time begins
// anew, with what the body says otherwise.
func (s *server) renewAttachment(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	seconds, age := f.integer("ttl_seconds"), f.integer("max_age_seconds")
	if err := f.failed(); err != nil {
		return err
	}
	var ttl, maxAge *time.Duration
	if seconds != nil {
		d, err := ims.AttachTime(seconds)
		if err != nil {
			return err
		}
		ttl = &d
	}
	if age != nil {
		d, err := ims.AttachAge(age)
		if err != nil {
			return err
		}
		maxAge = &d
	}
	a, err := s.changeable(c)
	if err != nil {
		return err
	}
	if a, err = s.Catalog.RenewAttachment(c.Context(), c.principal, a.ID, ttl, maxAge); err != nil {
		return attachmentFault(err)
	}
	writeJSON(c.w, http.StatusOK, newAttachmentWire(a))
	return nil
}

// detach is DELETE /v1/{project_id}/attachments/{attachment_id}. Its body is optional.
func (s *server) detach(c *call) error {
	force := false
	if len(bytes.TrimSpace(c.body)) > 0 {
		f, err := objectBody(c.body)
		if err != nil {
			return err
		}
		if v := f.boolean("force"); v != nil {
			force = *v
		}
		if err := f.failed(); err != nil {
			return err
		}
	}
	a, err := s.changeable(c)
	if err != nil {
		return err
	}
	if err := s.Catalog.Detach(c.Context(), c.project(), a.ID, force); err != nil {
		return attachmentFault(err)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
