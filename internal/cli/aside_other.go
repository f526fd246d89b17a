//go:build !linux

package cli

import (
	"errors"
	"os"
)

// openUnnamed is nil: there are no files without a name here.
func openUnnamed(_, _ string) *os.File { return nil }

func linkUnnamed(*os.File, string) error { return errors.ErrUnsupported }
