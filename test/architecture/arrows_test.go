// Package architecture holds the arrows between the packages: which may import which.
package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/quickims/quickims/"

// rule says what a package of ours may import of ours, and what it must not import
// of anybody's. A name that ends in /... stands for all packages below it.
type rule struct {
	pkg       string
	ours      []string
	forbidden []string
	why       string
}

var rules = []rule{
	{"internal/ims", nil, []string{"encoding/json", "database/sql", "net/http", "net/http/httptest", "os"},
		"the vocabulary does no I/O and knows neither JSON, SQL nor HTTP; a fault has a kind, and the edges give it a status"},
	{"internal/faultpoint", nil, nil, "a leaf: every stage may name its fault points"},
	{"internal/allowance", nil, []string{"database/sql", "net/http"}, "a leaf: counts what projects store; rows and buckets are asked for through functions"},
	{"internal/admit", nil, []string{"database/sql"}, "a leaf: whom the edges let in, and with how much"},
	{"internal/handover", nil, []string{"database/sql", "net/http"}, "a leaf: messages and descriptors between two processes; what they mean is the app's"},
	{"internal/fuzztest", nil, nil, "a leaf: runs the fuzz targets of any package"},
	{"internal/zstd", nil, []string{"database/sql", "net/http"}, "a leaf: the encoder, in C or in Go"},
	{"internal/diskformat/...", []string{"internal/ims", "internal/zstd", "internal/diskformat/..."}, []string{"net/http", "database/sql"},
		"formats read an io.ReaderAt and know no store; the vocabulary says how large a disk may be"},
	{"internal/filesystem/fstest", []string{"internal/filesystem/..."}, []string{"database/sql"}, "helpers of tests: they make file systems"},
	{"internal/filesystem/...", []string{"internal/filesystem/..."}, []string{"net/http", "database/sql", "os"},
		"file systems are read from an io.ReaderAt, never mounted"},
	{"internal/diskcheck/...", []string{"internal/ims", "internal/diskformat/...", "internal/filesystem/..."}, []string{"net/http", "database/sql", "os"},
		"findings about a disk; no service, no wire"},
	{"internal/inspect", []string{"internal/ims", "internal/diskformat/...", "internal/filesystem/...", "internal/diskcheck"}, []string{"net/http", "database/sql", "os"},
		"one judgement of a file for the job and for the commands; no store, no wire"},
	{"internal/objectstore/...", []string{"internal/objectstore/..."}, []string{"database/sql"},
		"stores know bytes, not images"},
	{"internal/buckets", []string{"internal/catalog", "internal/objectstore"}, []string{"database/sql", "net/http"},
		"a bucket's folder and its owner's row are one thing: one package changes both"},
	{"internal/s3face/wire", nil, []string{"database/sql", "os"}, "S3's documents and codes; no I/O"},
	{"internal/s3face/checksum", nil, []string{"database/sql", "net/http", "os"}, "a leaf: sums of bytes and of parts"},
	{"internal/s3face/auth", []string{"internal/s3face/wire"}, []string{"database/sql", "os"}, "proves signatures; keeps no keys, reads no files"},
	{"internal/s3face/files", []string{"internal/objectstore", "internal/s3face/checksum"}, []string{"database/sql", "net/http", "encoding/xml"},
		"objects as files: neither HTTP nor XML, nor whose a bucket is"},
	{"internal/s3face", []string{"internal/ims", "internal/buckets", "internal/objectstore", "internal/admit", "internal/allowance", "internal/s3face/..."}, []string{"database/sql"},
		"serves the store's folders; buckets are made and removed by their keeper, who holds a key is asked through an interface"},
	{"internal/database/...", []string{"internal/database/..."}, []string{"net/http"}, "SQL's plumbing knows no images"},
	{"internal/imagearea", []string{"internal/ims"}, []string{"database/sql", "net/http", "os"}, "how keys of the image area are spelt; no I/O"},
	{"internal/catalog", []string{"internal/ims", "internal/imagearea", "internal/database"}, []string{"net/http", "net/http/httptest"},
		"rows and rules; no bytes, no HTTP"},
	{"internal/installation", []string{"internal/imagearea", "internal/ims", "internal/catalog", "internal/database", "internal/objectstore", "internal/faultpoint"}, []string{"net/http"},
		"ties a database to its image area: it alone writes the owner mark"},
	{"internal/fsck", []string{"internal/imagearea", "internal/ims", "internal/catalog", "internal/objectstore", "internal/blockdev"}, []string{"database/sql", "net/http"},
		"compares rows with bytes, through the packages that know them"},
	{"internal/queue", []string{"internal/database"}, []string{"net/http"}, "hands ids to a handler; the job's truth is the catalog's"},
	{"internal/identity/signature", nil, []string{"database/sql"}, "a leaf: the server proves what the client makes"},
	{"internal/identity/outside", nil, []string{"database/sql"}, "a leaf: asks an outside Keystone"},
	{"internal/identity", []string{"internal/ims", "internal/database", "internal/identity/signature", "internal/identity/outside", "internal/admit"}, nil, "who you are and what you may do"},
	{"internal/keystone", []string{"internal/ims", "internal/identity", "internal/admit"}, []string{"database/sql"}, "the wire of /v3"},
	{"internal/bootprofile", nil, []string{"database/sql", "net/http", "os", "time"},
		"a leaf: chunks that are read first; no I/O and no clock"},
	{"internal/objectcache", nil, []string{"database/sql", "net/http"},
		"a leaf: pages of objects by their names; what they mean, and where else they are, is not known"},
	{"internal/pinned", []string{"internal/objectstore", "internal/objectcache"}, []string{"database/sql", "net/http"},
		"bytes of one object's generation, wherever they are; what they mean is not known"},
	{"internal/resident", nil, []string{"database/sql", "net/http"},
		"a leaf: units are bytes with a name; where they come from is not known"},
	{"internal/unit", []string{"internal/ims", "internal/diskformat/..."}, []string{"database/sql", "net/http", "os"},
		"where a unit lies and what it must hash to; reads through what it is handed"},
	{"internal/blockdev", []string{"internal/ims", "internal/objectstore", "internal/pinned", "internal/resident", "internal/unit", "internal/diskformat"}, []string{"database/sql", "net/http"},
		"a device is bytes, whoever asks for them"},
	{"internal/nbd/...", []string{"internal/nbd/wire"}, []string{"database/sql", "net/http"},
		"the protocol alone: exports and their bytes are asked for through interfaces"},
	{"internal/importer", []string{"internal/ims", "internal/allowance", "internal/imagearea", "internal/catalog", "internal/database", "internal/objectstore", "internal/diskformat/...", "internal/filesystem/probe", "internal/inspect", "internal/faultpoint"},
		[]string{"net", "net/http"}, "the import's steps; knows no wire"},
	{"internal/api/wire", nil, []string{"database/sql", "net/http"}, "a leaf: documents of the API, which the service writes and the client reads"},
	{"internal/api", []string{"internal/api/wire", "internal/ims", "internal/catalog", "internal/keystone", "internal/admit"},
		[]string{"database/sql"}, "the HTTP edge reaches neither stores, formats nor SQL"},
	{"internal/client", []string{"internal/ims", "internal/api/wire", "internal/identity/signature"}, []string{"database/sql"}, "a client knows the wire alone"},
	{"internal/conformance", []string{"internal/ims", "internal/client", "internal/api/wire"}, []string{"database/sql", "os"}, "promises of the API, asked of any service through the client"},
	{"internal/cli", []string{"internal/ims", "internal/client", "internal/conformance", "internal/diskformat/...", "internal/diskcheck", "internal/inspect", "internal/app", "internal/fsck", "internal/zstd"}, []string{"database/sql"},
		"commands work on files or through the client; serve starts the app"},
	{"internal/app", []string{"internal/...", ""}, nil, "the one place that wires"},
	{"cmd/quickims", []string{"internal/cli"}, nil, "reads arguments, runs"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestArrows(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if !strings.HasPrefix(name, "internal/") && !strings.HasPrefix(name, "cmd/") {
			continue
		}
		i := slices.IndexFunc(rules, func(r rule) bool { return match(r.pkg, name) })
		if i < 0 {
			t.Errorf("%s: no rule says what it may import; add one with its reason", name)
			continue
		}
		seen++
		for _, imp := range p.Imports {
			check(t, rules[i], name, imp)
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were seen: the list is broken", seen)
	}
}

func check(t *testing.T, r rule, name, imp string) {
	t.Helper()
	if slices.Contains(r.forbidden, imp) {
		t.Errorf("%s must not import %s: %s", name, imp, r.why)
	}
	ours, ok := strings.CutPrefix(imp, module)
	if imp+"/" == module {
		ours, ok = "", true
	}
	if !ok {
		return
	}
	if !slices.ContainsFunc(r.ours, func(allowed string) bool { return match(allowed, ours) }) {
		t.Errorf("%s must not import %s: %s", name, imp, r.why)
	}
}

func match(pattern, name string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == root || strings.HasPrefix(name, root+"/")
	}
	return pattern == name
}

// TestForeignServers: the S3 server that tests use as an outside store is no part of
// the product. It changes the process's working folder and its standard error.
func TestForeignServers(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "list", "-deps", "./cmd/quickims")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(name, "github.com/versity/") || strings.HasPrefix(name, module+"internal/objectstore/storetest") {
			t.Errorf("the product depends on %s", name)
		}
	}
}
