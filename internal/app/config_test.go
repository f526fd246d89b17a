package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func loadText(t *testing.T, text string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "quickims.yaml")
	if err := os.WriteFile(file, []byte("data: "+t.TempDir()+"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(file)
	if err == nil {
		err = c.Validate()
	}
	return c, err
}

// TestPlainHTTP: which addresses count as reached by other machines.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	for text, field := range map[string]string{
		"":                                     "",
		"listen: localhost:0":                  "",
		"listen: '[::1]:9292'":                 "",
		"listen: 127.8.8.8:1":                  "",
		"listen: 0.0.0.0:1":                    "listen: ",
		"listen: ':9292'":                      "listen: ",
		"listen: '[::]:1'":                     "listen: ",
		"listen: 192.0.2.1:9292":               "listen: ",
		"listen: '[2001:db8::1]:1'":            "listen: ",
		"s3_listen: 192.0.2.1:9000":            "s3_listen: ",
		"metrics_listen: 192.0.2.1:9":          "metrics_listen: ",
		"metrics_listen: ''":                   "",
		"listen: no.such.name.invalid:1":       "listen: ",
		"allow_plain_http: true\nlisten: ':1'": "",
		"tls_cert: c.pem\ntls_key: k.pem\nlisten: ':1'\ns3_listen: ':2'\nmetrics_listen: ':3'": "",
	} {
		_, err := loadText(t, text)
		if (err == nil) != (field == "") || err != nil && !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%q: %v, want a fault of %q", text, err, field)
		}
	}
}

// TestDrainDelays: a service that is alone makes no client wait for nothing.
func TestDrainDelays(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "database: postgres://db/ims": 5 * time.Second, "database: postgres://db/ims\ndrain_delay: 0s": 0,
		"drain_delay: 1m30s": 90 * time.Second, "drain_delay: -1s": -1, "drain_delay: 1h": -1, "drain_delay: soon": -1,
	} {
		c, err := loadText(t, text)
		if (err != nil) != (want < 0) || err == nil && c.drainDelay() != want {
			t.Errorf("%q: %v, %v, want %v", text, c.drainDelay(), err, want)
		}
	}
}
