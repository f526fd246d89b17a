package nbd

import "net"

// Visited is an Export that wants to know who reads it.
type Visited interface {
	// Visit is called once when the client begins to read. Close ends the visit.
	Visit(client net.Addr)
}

// visit tells the export that the client has come.
func (c *conn) visit() {
	if v, ok := c.export.Export.(Visited); ok {
		v.Visit(c.raw.RemoteAddr())
	}
}
