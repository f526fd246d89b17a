package api

import (
	"net/http"
	"strconv"
)

// readyWire is the answer of /readyz. Warnings name what will keep the service from its
// work if nothing is done; they name no project and no path.
type readyWire struct {
	Status   string   `json:"status"`
	Warnings []string `json:"warnings,omitempty"`
}

type statusWire struct {
	Status string `json:"status"`
}

// healthz says that the process answers.
func (s *server) healthz(c *call) error {
	writeJSON(c.w, http.StatusOK, statusWire{"ok"})
	return nil
}

// readyz says whether the service can do its work. The reason why not is in the log:
// whoever asks here has shown no credentials.
func (s *server) readyz(c *call) error {
	if err := s.readiness.ask(c.Context()); err != nil {
		return unavailable("the service is not ready").Cause(err)
	}
	answer := readyWire{Status: "ready"}
	if s.Warnings != nil {
		answer.Warnings = s.Warnings()
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

// openAPI is GET /openapi.yaml.
func (s *server) openAPI(c *call) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/yaml")
	h.Set("Content-Length", strconv.Itoa(len(s.OpenAPI)))
	c.w.WriteHeader(http.StatusOK)
	c.w.Write(s.OpenAPI) // an error means that the client has gone
	return nil
}
