package s3face

import "github.com/quickims/quickims/internal/s3face/wire"

func (q *request) postForm() error { return wire.Err("NotImplemented") }

func (q *request) fromOBS() {}
