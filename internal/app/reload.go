package app

import (
	"errors"
)

// Reload reads the files that may change while the service runs: the certificate and
// the operators' table of operating systems. It ends nothing. A file that cannot be
// used leaves what was read before in use; the error says which. It is safe for
// concurrent use.
func (s *Service) Reload() error {
	var errs []error
	if s.certificate != nil {
		errs = append(errs, s.certificate.reload())
	}
	versions, err := loadOSVersions(s.cfg.OSVersions)
	if err == nil {
		s.versions.Store(versions)
	}
	return errors.Join(append(errs, err)...)
}

// reloadOn calls Reload for each signal until the channel is closed.
func (s *Service) reloadOn(signals <-chan struct{}) {
	for range signals {
		if err := s.Reload(); err != nil {
			s.log.Error("could not reload, the earlier files stay in use", "error", err)
			continue
		}
		s.log.Info("reloaded the certificate and the table of operating systems")
	}
}
