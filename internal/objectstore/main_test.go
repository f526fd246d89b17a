package objectstore_test

import (
	"io"
	"log"
	"testing"

	"go.uber.org/goleak"

	"github.com/quickims/quickims/internal/objectstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	// net/http's transport has no logger of its own to silence: it remarks on
	// gateways that answer an upload which the client broke off.
	log.SetOutput(io.Discard)
	goleak.VerifyTestMain(m)
}
