package s3face

import (
	"log/slog"
	"net/http"
	"time"
)

// Limits of a connection.
const (
	headerTimeout = 30 * time.Second // from a request's first byte to its header's last
	idleTimeout   = 2 * time.Minute  // between requests
	maxHeader     = 32 << 10
)

// httpServer is the HTTP server of the requests.
func (s *server) httpServer() *http.Server {
	return &http.Server{
		Handler:                      s,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}
}
