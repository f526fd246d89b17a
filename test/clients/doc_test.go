package clients

import (
	"errors"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

func asIMS(err error) (*ims.Error, bool) { return errors.AsType[*ims.Error](err) }

// asT gives the *testing.T that a test or its subtest runs under.
func asT(t testing.TB) *testing.T { return t.(*testing.T) }
