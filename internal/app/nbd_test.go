package app

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNBDConfig: what is wrong is named at the start.
func TestNBDConfig(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"nbd_listen: 127.0.0.1:0":                           "",
		"nbd_listen: \"\"\nnbd_require_tls:":                "",
		"nbd_listen: unix:/run/nbd.sock":                    "",
		"nbd_public: \"[2001:db8::1]:10809\"":               "",
		"nbd_listen: 127.0.0.1":                             "neither host:port nor unix:PATH",
		"nbd_listen: \"unix:\"":                             "needs the path",
		"nbd_listen: unix:/" + strings.Repeat("x", 107):     "a socket's may have 107",
		"nbd_public: disks.example.com":                     "nbd_public",
		"nbd_public: disks.example.com:0":                   "nbd_public",
		"nbd_listen: unix:/x\nnbd_public: a:1":              "unix socket",
		"nbd_listen: 127.0.0.1:0\nnbd_require_tls: true":    "set tls_cert and tls_key",
		"nbd_listen: 127.0.0.1:0\nlimits: {attachments: 0}": "attachments must be at least 1",
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte("data: /data\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(path)
		if err == nil {
			err = c.Validate()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestNBDURI: URIs name what clients can reach, and say whether TLS is needed.
func TestNBDURI(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for name, tc := range map[string]struct {
		cfg    Config
		listen string // address that is bound; "" for none
		want   string // PORT stands for the listener's
	}{
		"nobody serves":           {Config{}, "", ""},
		"loopback":                {Config{}, "127.0.0.1:0", "nbd://127.0.0.1:PORT/TOKEN"},
		"loopback, TLS asked for": {Config{NBDRequireTLS: &yes}, "127.0.0.1:0", "nbds://127.0.0.1:PORT/TOKEN"},
		"all addresses":           {Config{PublicURL: "https://ims.example.com:9292"}, "0.0.0.0:0", "nbds://ims.example.com:PORT/TOKEN"},
		"all, in clear":           {Config{PublicURL: "http://ims.example.com", NBDRequireTLS: &no}, "0.0.0.0:0", "nbd://ims.example.com:PORT/TOKEN"},
		"another name":            {Config{NBDPublic: "disks.example.com:10809"}, "127.0.0.1:0", "nbd://disks.example.com:10809/TOKEN"},
		"another process":         {Config{NBDPublic: "disks.example.com:10809"}, "", "nbds://disks.example.com:10809/TOKEN"},
		"another one here":        {Config{NBDPublic: "[::1]:10809"}, "", "nbd://[::1]:10809/TOKEN"},
	} {
		s := &Service{cfg: tc.cfg}
		if tc.listen != "" {
			l, err := net.Listen("tcp", tc.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			s.nbd, tc.want = l, strings.Replace(tc.want, "PORT", port, 1)
		}
		if got := s.nbdURI("TOKEN"); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestNBDSocketURI: a socket's path comes back out of the URI, whatever is in it.
func TestNBDSocketURI(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/run/nbd.sock", "/a b/c+d&e=f%20/#?.sock"} {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s := &Service{cfg: Config{NBDListen: unixPrefix + path}, nbd: l}
		u, err := url.Parse(s.nbdURI("TOKEN"))
		if err != nil || u.Scheme != "nbd+unix" || u.Path != "/TOKEN" || u.Query().Get("socket") != path || strings.Contains(u.RawQuery, "+") {
			t.Errorf("%s: %v (%v)", path, u, err)
		}
	}
}

// TestNBDRefusesInClear: the refusal names the address as it was written.
func TestNBDRefusesInClear(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{NBDListen: "0.0.0.0:0"}}
	err := s.listenNBD()
	if s.nbd != nil {
		defer s.nbd.Close()
	}
	if err == nil || !strings.HasPrefix(err.Error(), "nbd_listen: 0.0.0.0:0 can be reached from other machines") {
		t.Errorf("got %v", err)
	}
}
