package filesystem

// Room is memory that a volume reads directories into and uses again. It is for one
// goroutine at a time, like its volume.
type Room struct{ free []byte }

// Take gives room for n bytes, with any content: that of the listing before if there is
// none under way. Give it back when the listing is over.
func (r *Room) Take(n int64) []byte {
	b := r.free
	r.free = nil
	if int64(cap(b)) < n {
		b = make([]byte, n)
	}
	return b[:n]
}

// Give keeps b for the next listing.
func (r *Room) Give(b []byte) { r.free = b }
