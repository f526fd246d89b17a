package blockdev

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/quickims/quickims/internal/objectstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	goleak.VerifyTestMain(m)
}
