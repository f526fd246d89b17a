package harness

import (
	"encoding/json"
	"net/http"
	"testing"
)

// Attachment is the answer to an attach request.
type Attachment struct {
	ID        string `json:"attachment_id"`
	ImageID   string `json:"image_id"`
	ExpiresAt string `json:"expires_at"`
	URI       string `json:"uri"`
}

// AttachmentsPath is the route of the first project's attachments.
const AttachmentsPath = "/v1/" + ProjectID + "/attachments"

// Attach attaches an image for the default time. The server must have been started with
// Options.NBD or NBDUnix.
func (s *Server) Attach(tb testing.TB, imageID string) Attachment {
	tb.Helper()
	return s.AttachFor(tb, imageID, 0)
}

// AttachFor attaches an image for some seconds, 0 for the default time.
func (s *Server) AttachFor(tb testing.TB, imageID string, seconds int) Attachment {
	tb.Helper()
	body := map[string]any{"image_id": imageID}
	if seconds > 0 {
		body["ttl_seconds"] = seconds
	}
	answer := s.Do(tb, "POST", AttachmentsPath, body)
	var a Attachment
	if err := json.Unmarshal(answer.Body, &a); err != nil || answer.Status != http.StatusOK || a.URI == "" {
		tb.Fatalf("attach image %s: status %d: %s", imageID, answer.Status, answer.Body)
	}
	return a
}

// Detach ends an attachment, also one that is in use.
func (s *Server) Detach(tb testing.TB, id string) {
	tb.Helper()
	if a := s.Do(tb, "DELETE", AttachmentsPath+"/"+id, map[string]any{"force": true}); a.Status != http.StatusNoContent {
		tb.Fatalf("detach %s: status %d: %s", id, a.Status, a.Body)
	}
}
