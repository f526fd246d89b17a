package app

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// beats are what this process says of who is connected: at once when a client comes or
// goes, and every catalog.BeatEvery.
type beats struct {
	catalog *catalog.Catalog
	process string        // names this process for as long as it runs
	soon    chan struct{} // there is news

	mu   sync.Mutex
	uses map[string]*use // of an attachment's id
}

// use is an attachment that this process serves.
type use struct {
	read atomic.Int64 // bytes since the process began to serve it

	// The rest is under beats.mu.
	clients  map[*export]string // their addresses
	left     time.Time          // when the last one went
	news     bool
	told     time.Time
	toldRead int64
}

func newBeats(c *catalog.Catalog) beats {
	return beats{catalog: c, process: ims.NewAttachmentID(), soon: make(chan struct{}, 1), uses: map[string]*use{}}
}

// come notes a client.
func (b *beats) come(x *export, client net.Addr) *use {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.uses[x.id]
	if u == nil {
		u = &use{clients: map[*export]string{}}
		b.uses[x.id] = u
	}
	u.clients[x] = clientName(client)
	b.tellSoon(u)
	return u
}

// clientName is a client's address. Those of a unix socket have none.
func clientName(client net.Addr) string {
	if client.Network() == "unix" {
		return "unix socket"
	}
	return client.String()
}

// leave notes that a client went, if it had come.
func (b *beats) leave(x *export) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.uses[x.id]
	if u == nil || u.clients[x] == "" {
		return
	}
	delete(u.clients, x)
	u.left = time.Now()
	b.tellSoon(u)
}

func (b *beats) tellSoon(u *use) {
	u.news = true
	select {
	case b.soon <- struct{}{}:
	default:
	}
}

// tell tells the database what is new, and again what was told some time ago. What it
// could not tell it tells the next time. It is called by one goroutine at a time.
func (b *beats) tell(ctx context.Context) error {
	now := time.Now()
	var list []catalog.Use
	b.mu.Lock()
	for id, u := range b.uses {
		if !u.news && now.Sub(u.told) < catalog.BeatEvery {
			continue
		}
		at := now
		if len(u.clients) == 0 {
			at = u.left
		}
		addresses := make([]string, 0, len(u.clients))
		for _, address := range u.clients {
			addresses = append(addresses, address)
		}
		slices.Sort(addresses)
		list = append(list, catalog.Use{AttachmentID: id, Connections: len(u.clients), Addresses: addresses,
			Read: u.read.Load() - u.toldRead, At: at})
		u.news = false
	}
	b.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := b.catalog.Beat(ctx, b.process, list)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, said := range list {
		u := b.uses[said.AttachmentID]
		if err != nil {
			u.news = true
			continue
		}
		u.told, u.toldRead = now, u.toldRead+said.Read
		if said.Connections == 0 && len(u.clients) == 0 && !u.news {
			delete(b.uses, said.AttachmentID)
		}
	}
	return err
}
