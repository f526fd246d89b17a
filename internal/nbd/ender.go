package nbd

// Ender is an Export that may end while clients use it, because the right to read it
// does. Its connections are cut then, without an answer to what is under way.
type Ender interface {
	// Ended is closed when the export ends. It is asked once.
	Ended() <-chan struct{}
}

// cutWhenEnded cuts the connection when its export ends, until stop is called.
func (c *conn) cutWhenEnded() (stop func()) {
	e, ok := c.export.Export.(Ender)
	if !ok {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-e.Ended():
			c.log.Debug("NBD: the export ended")
			_ = c.raw.Close()
		case <-quit:
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
