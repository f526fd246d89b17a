//go:build !linux && !freebsd

package sparse

import "os"

// find takes all for data: the system can't tell.
func find(_ *os.File, _, size int64) (end int64, data bool, err error) { return size, true, nil }
