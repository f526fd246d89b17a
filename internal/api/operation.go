package api

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds what /readyz looks at.
const readyTimeout = 5 * time.Second

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
	ctx, cancel := context.WithTimeout(c.Context(), readyTimeout)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		return unavailable("the service is not ready").Cause(err)
	}
	writeJSON(c.w, http.StatusOK, statusWire{"ready"})
	return nil
}

// metricsPage is GET /metrics, in the form of Prometheus.
func (s *server) metricsPage(c *call) error {
	promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		MaxRequestsInFlight: 4,
	}).ServeHTTP(c.w, c.Request)
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
