// Package quickims holds what lies at the root of the module: the description of the
// API, so that the file that people find first is the one that the service answers
// with.
package quickims

import _ "embed"

// OpenAPI is openapi.yaml, the one description of the API. A test of internal/api
// holds it equal to the route table. It must not be changed.
//
//go:embed openapi.yaml
var OpenAPI []byte
