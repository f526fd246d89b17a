package admit

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Proxies are the networks of the reverse proxies that the operator trusts to name
// their clients in X-Forwarded-For.
type Proxies []netip.Prefix

// ParseProxies reads networks in CIDR notation; a bare address stands for itself.
func ParseProxies(networks []string) (Proxies, error) {
	var p Proxies
	for _, n := range networks {
		if addr, err := netip.ParseAddr(n); err == nil {
			addr = addr.Unmap()
			p = append(p, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network; it must be an address, or an address with the length of a prefix, such as 10.0.0.0/8", n)
		}
		p = append(p, prefix.Masked())
	}
	return p, nil
}

// trusts reports whether the address is a proxy's.
func (p Proxies) trusts(a netip.Addr) bool {
	for _, n := range p {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// caller is the rightmost address on the way of a request that is not a trusted
// proxy's: first the peer of the connection, then X-Forwarded-For from its end. An entry
// that is not an address ends the search: the address before it counts.
func (p Proxies) caller(peer netip.Addr, forwarded []string) netip.Addr {
	if !p.trusts(peer) {
		return peer
	}
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, ok := parseHop(strings.TrimSpace(hops[i]))
		if !ok {
			return peer
		}
		if peer = hop; !p.trusts(hop) {
			return peer
		}
	}
	return peer
}

// parseHop reads an entry of X-Forwarded-For: an address, some proxies add a port.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

// Caller is the address of the client that sent a request: the peer of its connection,
// or, when a trusted proxy is the peer, the client that the proxy names. The zero Addr
// stands for a connection without addresses. The connection must come from a Gate for
// proxies to count.
func Caller(r *http.Request) netip.Addr {
	var proxies Proxies
	if p := placeOf(r.Context()); p != nil {
		proxies = p.gate.opts.Proxies
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return proxies.caller(at.Addr().Unmap().WithZone(""), r.Header.Values("X-Forwarded-For"))
}

// Network is what counts as one address: the address itself, or the /64 network of an
// IPv6 address. It is "" for the zero Addr.
func Network(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		if n, err := a.Prefix(64); err == nil {
			return n.String()
		}
	}
	return a.String()
}

// peerOf is the address of a connection's other end.
func peerOf(c net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

type placeKey struct{}

func placeOf(ctx context.Context) *place {
	p, _ := ctx.Value(placeKey{}).(*place)
	return p
}
