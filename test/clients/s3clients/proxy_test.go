package s3clients

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// domain is the name below which buckets are hosts: nobody resolves it but the proxy.
const domain = "s3.quickims.test"

// proxy starts an HTTP proxy on loopback that leads every host to the service, so that
// clients can name hosts that no resolver knows. It ends with the test.
func proxy(t *testing.T, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go forward(conn, target)
		}
	}()
	return "http://" + l.Addr().String()
}

// forward passes on one connection: after CONNECT as it is; else the requests that name
// a whole URL, which a server takes as they are.
func forward(conn net.Conn, target string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	if head, err := in.Peek(7); err != nil {
		return
	} else if string(head) == http.MethodConnect {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 Connected\r\n\r\n")
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(server, in)
		server.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, server)
}

// virtual is the site as a client sees it that puts buckets before the domain.
func (s *site) virtual(t *testing.T) *site {
	t.Helper()
	u, err := url.Parse(s.S3URL)
	must(t, err)
	v := *s
	v.proxy = proxy(t, u.Host)
	v.endpoint = strings.Replace(s.S3URL, u.Hostname(), domain, 1)
	through, err := url.Parse(v.proxy)
	must(t, err)
	transport := &http.Transport{Proxy: http.ProxyURL(through)}
	if own, ok := s.http.Transport.(*http.Transport); ok {
		transport.TLSClientConfig = own.TLSClientConfig
	}
	v.http = &http.Client{Transport: transport}
	return &v
}
