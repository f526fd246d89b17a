package blockdev

// flush returns when all that was offered so far was written or not.
func (d *diskCache) flush() {
	done := make(chan struct{})
	select {
	case d.queue <- diskWrite{done: done}:
		<-done
	case <-d.ended:
	}
}
