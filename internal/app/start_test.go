package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

func testConfig(dir string) Config {
	c := DefaultConfig()
	c.Data, c.Listen = dir, "127.0.0.1:0"
	return c
}

// start starts a service, waits until it is ready and stops it.
func start(t *testing.T, dir string, seed Seed) error {
	t.Helper()
	return startWith(t, testConfig(dir), seed)
}

func startWith(t *testing.T, cfg Config, seed Seed) error {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := New(ctx, cfg, seed, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, w, nil); w.Close() }()
	var line struct{ Msg string }
	if err := json.NewDecoder(r).Decode(&line); err != nil || line.Msg != "ready" {
		t.Errorf("the ready line: %v, %+v", err, line)
	}
	cancel()
	go io.Copy(io.Discard, r)
	return <-done
}

func credentials(t *testing.T, dir string) map[string]string {
	t.Helper()
	c, err := readCredentials(filepath.Join(dir, credentialsFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// works checks that the keys in credentials.env are in the database.
func works(t *testing.T, dir string) {
	t.Helper()
	cfg := testConfig(dir)
	a, err := OpenAccounts(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c := credentials(t, dir)
	secret, project, _, err := a.identity.SecretFor(c["QUICKIMS_ACCESS_KEY"])
	if err != nil || secret != c["QUICKIMS_SECRET_KEY"] || project != c["QUICKIMS_PROJECT_ID"] {
		t.Errorf("credentials.env does not fit the database: %v", err)
	}
}

func TestStartAgainKeepsCredentials(t *testing.T) {
	dir := t.TempDir()
	if err := start(t, dir, Seed{Region: "eu-1", User: "root"}); err != nil {
		t.Fatal(err)
	}
	first := credentials(t, dir)
	if err := start(t, dir, Seed{Region: "elsewhere", ProjectID: "other", AccessKey: "OTHERKEY"}); err != nil {
		t.Fatal(err)
	}
	second := credentials(t, dir)
	if first["QUICKIMS_DOMAIN_NAME"] != "default" || second["QUICKIMS_REGION"] != "elsewhere" {
		t.Errorf("domain %q, region %q", first["QUICKIMS_DOMAIN_NAME"], second["QUICKIMS_REGION"])
	}
	for _, name := range []string{"QUICKIMS_PROJECT_ID", "QUICKIMS_DOMAIN_ID", "QUICKIMS_DOMAIN_NAME", "QUICKIMS_ACCESS_KEY", "QUICKIMS_SECRET_KEY", "QUICKIMS_USER", "QUICKIMS_PASSWORD"} {
		if first[name] == "" || first[name] != second[name] {
			t.Errorf("%s was %q and is %q", name, first[name], second[name])
		}
	}
	works(t, dir)
	fi, err := os.Stat(filepath.Join(dir, credentialsFile))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("credentials.env: %v, %v", fi.Mode(), err)
	}
}

// TestRegion: the configuration comes before the environment, and both before what an
// earlier start had; the first project keeps its name.
func TestRegion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, step := range []struct{ config, environment, want string }{
		{"", "", "local"}, {"", "eu-1", "eu-1"}, {"", "", "eu-1"}, {"eu-2", "eu-1", "eu-2"}, {"", "", "eu-2"}, {"", "no region", ""}, {"", "", "eu-2"},
	} {
		cfg := testConfig(dir)
		cfg.Region = step.config
		err := startWith(t, cfg, Seed{Region: step.environment})
		if (err != nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), "QUICKIMS_REGION") {
			t.Fatalf("%+v: %v", step, err)
		}
		if got := credentials(t, dir)["QUICKIMS_REGION"]; err == nil && got != step.want {
			t.Errorf("%+v: the region is %q", step, got)
		}
	}
	a, err := OpenAccounts(t.Context(), testConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	projects, err := a.identity.Projects(t.Context(), credentials(t, dir)["QUICKIMS_DOMAIN_ID"])
	if err != nil || len(projects) != 1 || projects[0].Name != "local" {
		t.Errorf("the projects are %+v, %v", projects, err)
	}
	if added, err := a.Add(t.Context(), "lab", "ada", ims.RoleMember); err != nil || added.Region != "eu-2" || added.DomainName != "default" {
		t.Errorf("what a new user is told: region %q, domain %q, %v", added.Region, added.DomainName, err)
	}
}

// TestFirstRegionIsTheStores where nobody names another.
func TestFirstRegionIsTheStores(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ config, environment, store, want string }{
		{"", "", "", "local"}, {"", "", "store-1", "store-1"}, {"", "env-1", "store-1", "env-1"}, {"cfg-1", "env-1", "store-1", "cfg-1"},
	} {
		cfg := testConfig(t.TempDir())
		cfg.Region, cfg.S3 = tt.config, &S3Config{
			Endpoint: "http://127.0.0.1:1", Region: tt.store, AccessKey: "a", SecretKey: "s", ImageBucket: "images-of-a-test",
		}
		s := &Service{cfg: cfg, seed: Seed{Region: tt.environment}, log: slog.New(slog.DiscardHandler)}
		if err := errors.Join(s.openFolder(), s.openDatabase(t.Context()), s.openInstallation(t.Context()), s.openIdentity(t.Context())); err != nil {
			t.Fatal(err)
		}
		if s.seed.Region != tt.want {
			t.Errorf("%+v: the region is %q", tt, s.seed.Region)
		}
		s.Close()
	}
}

// A first start that fails after it made its project leaves credentials that work.
func TestFirstStartThatFails(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := testConfig(dir)
	cfg.Listen = l.Addr().String()
	if _, err := New(t.Context(), cfg, Seed{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("started on a port that is taken")
	}
	works(t, dir)
	if err := start(t, dir, Seed{}); err != nil {
		t.Fatal(err)
	}
	works(t, dir)
}

func TestLostAndForeignFiles(t *testing.T) {
	dir := t.TempDir()
	if err := start(t, dir, Seed{}); err != nil {
		t.Fatal(err)
	}
	first := credentials(t, dir)
	path := filepath.Join(dir, credentialsFile)

	for _, content := range []string{"", "garbage\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := start(t, dir, Seed{}); err != nil {
			t.Fatalf("credentials.env with %q: %v", content, err)
		}
		again := credentials(t, dir)
		if again["QUICKIMS_PROJECT_ID"] != first["QUICKIMS_PROJECT_ID"] || again["QUICKIMS_SECRET_KEY"] != "" || again["QUICKIMS_PASSWORD"] != "" {
			t.Errorf("credentials.env with %q was made again as %v: want the same project and no secrets", content, again)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir, Seed{}); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAccounts(t.Context(), testConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Add(t.Context(), first["QUICKIMS_PROJECT_ID"], "admin", ims.RoleAdmin); err != nil {
		t.Errorf("a lost key can't be replaced: %v", err)
	}

	if err := os.WriteFile(path, []byte("QUICKIMS_PROJECT_ID='of-another-service'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir, Seed{}); err == nil || !strings.Contains(err.Error(), "of-another-service") {
		t.Errorf("another service's credentials.env: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	key := filepath.Join(dir, "seal.key")
	if err := os.Rename(key, key+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir, Seed{}); err == nil || !strings.Contains(err.Error(), "seal.key is missing") {
		t.Errorf("without the sealing key: %v", err)
	}
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new sealing key was made beside stored secrets")
	}
	if err := os.Rename(key+".kept", key); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir, Seed{}); err != nil {
		t.Error(err)
	}
}

func TestAccounts(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenAccounts(t.Context(), testConfig(dir)); err == nil {
		t.Error("opened a folder without a service")
	}
	if err := start(t, dir, Seed{}); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAccounts(t.Context(), testConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	made, err := a.Add(t.Context(), "lab", "alice", ims.RoleMember)
	if err != nil || made.Password == "" || made.SecretKey == "" {
		t.Fatalf("%v, %v", made, err)
	}
	if _, err := a.Add(t.Context(), "lab", "alice", ims.RoleReader); err != nil {
		t.Fatal(err)
	}
	list, err := a.List(t.Context())
	if err != nil || len(list) != 2 || list[0].User != "alice" || len(list[0].Roles) != 1 || list[0].Roles[0] != ims.RoleReader || len(list[0].AccessKeys) != 2 {
		t.Errorf("%+v, %v: want alice as a reader alone, with two keys", list, err)
	}
	if endpoints, err := a.Endpoints(); err != nil || len(endpoints) != 1 || *endpoints[0].Value == "" {
		t.Errorf("endpoints %v, %v", endpoints, err)
	}
	if err := a.Remove(t.Context(), "alice", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := a.identity.SecretFor(made.AccessKey); err == nil {
		t.Error("a removed user's key still works")
	}
	if list, err := a.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	back, err := a.Add(t.Context(), "lab", "alice", ims.RoleMember)
	if err != nil || back.Password == "" || back.Password == made.Password {
		t.Errorf("a user that comes back has password %v (%v), want a new one", back.Password, err)
	}
	if err := a.Remove(t.Context(), "nobody", ""); err == nil {
		t.Error("removed nobody")
	}
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unknown key":        "dta: /x",
		"wrong type":         "workers: many",
		"no workers":         "workers: 0",
		"too many workers":   "workers: 65",
		"no images":          "limits: {images: 0}",
		"no imports":         "limits: {imports: 0}",
		"address":            "listen: nowhere",
		"certificate alone":  "tls_cert: /x",
		"database":           "database: mysql://x",
		"public_url":         "public_url: example.com",
		"s3 without keys":    "s3: {endpoint: 'http://127.0.0.1:1', image_bucket: images}",
		"image bucket named": "s3: {endpoint: 'http://127.0.0.1:1', access_key: a, secret_key: b, image_bucket: images, buckets: [{name: images, projects: [p]}]}",
		"bucket of nobody":   "s3: {endpoint: 'http://127.0.0.1:1', access_key: a, secret_key: b, image_bucket: images, buckets: [{name: uploads}]}",
		"s3 and s3_listen":   "s3_listen: 127.0.0.1:0\ns3: {endpoint: 'http://127.0.0.1:1', access_key: a, secret_key: b, image_bucket: images}",
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(path)
		if err == nil {
			c.Data = t.TempDir()
			err = c.Validate()
		}
		if err == nil {
			t.Errorf("%s: took %q", name, text)
		}
	}
	c := DefaultConfig()
	if err := c.Validate(); err == nil {
		t.Error("took a configuration without a data folder")
	}
}

// TestFilesForOpenStack: clouds.yaml and openrc lie beside credentials.env, for the owner
// alone, and say the same.
func TestFilesForOpenStack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := start(t, dir, Seed{}); err != nil {
		t.Fatal(err)
	}
	c := credentials(t, dir)
	for _, name := range []string{cloudsFile, openrcFile} {
		path := filepath.Join(dir, name)
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v, %v", name, fi, err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{c[endpointVariable] + "/v3", c["QUICKIMS_PASSWORD"], c["QUICKIMS_PROJECT_ID"], c["QUICKIMS_DOMAIN_ID"], c["QUICKIMS_REGION"], c["QUICKIMS_USER"]} {
			if !strings.Contains(string(text), "'"+want+"'") {
				t.Errorf("%s lacks %q", name, want)
			}
		}
	}
	for in, want := range map[string]string{
		"http://0.0.0.0:9292": "http://127.0.0.1:9292", "https://[::]:1": "https://127.0.0.1:1", "http://10.0.0.1:9292": "http://10.0.0.1:9292", "https://ims.example": "https://ims.example",
	} {
		if got := reachable(in); got != want {
			t.Errorf("%s is reached as %s, want %s", in, got, want)
		}
	}
}
