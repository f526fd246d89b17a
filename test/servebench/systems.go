package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/quickims/quickims/internal/objectstore/storetest"
	"github.com/quickims/quickims/test/harness"
	"github.com/quickims/quickims/test/measure"
)

// Where the bytes lie.
const (
	inS3     = "S3"
	inFolder = "folder"
	inMemory = "memory"
)

// system is a server of one disk. Each start is a fresh process: nothing of an
// earlier one is in its memory.
type system struct {
	name  string
	store string
	// peer: what quickims is measured against. extra: shown, not judged. keeps: has a
	// cache of its own, so that it can be warm.
	peer, extra, keeps bool
	zvhd2              bool
	start              func(tb *measure.Console) *target
}

// target is a running system.
type target struct {
	uri  string
	pid  int
	stop func()
}

// nbdkit returns a system that is nbdkit with these arguments.
func nbdkit(name, store string, args ...string) system {
	return system{name: name, store: store, peer: true, start: func(tb *measure.Console) *target {
		return startNBDKit(tb, append([]string{"-r"}, args...)...)
	}}
}

func (s system) keeping() system { s.keeps = true; return s }

func (s system) shown() system { s.extra = true; return s }

func startNBDKit(tb *measure.Console, args ...string) *target {
	probe, err := net.Listen("tcp", "127.0.0.1:0") // nbdkit does not say which port it got
	if err != nil {
		tb.Fatal(err)
	}
	address := probe.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	probe.Close()
	cmd := exec.Command("nbdkit", append([]string{"-f", "-i", "127.0.0.1", "-p", port}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Env = append(os.Environ(), "TMPDIR="+tb.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t := &target{uri: "nbd://" + address, pid: cmd.Process.Pid, stop: func() {
		cmd.Process.Kill()
		<-ended
	}}
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return t
		}
		select {
		case <-ended:
			tb.Fatalf("nbdkit %q ended: %s", args, said.String())
		case <-time.After(200 * time.Microsecond):
		}
		if time.Now().After(deadline) {
			tb.Fatalf("nbdkit %q does not listen: %v", args, err)
		}
	}
}

// quickims is a server whose images lie in one store.
type quickims struct {
	*harness.Server
	ids map[string]string // key → image
}

const configuration = "limits: {images: 100000, imports: 1000}\n"

// startFolder starts a quickims with the directory store.
func startFolder(tb *measure.Console, d *disks) *quickims {
	dir := tb.TempDir()
	if err := d.link(filepath.Join(dir, "buckets", sourceBucket), diskRaw, diskMF, diskZVHD2, tibRaw, tibMF, tibZVHD2); err != nil {
		tb.Fatal(err)
	}
	q := &quickims{harness.Start(tb, harness.Options{Dir: dir, Config: configuration, NBD: true}), map[string]string{}}
	q.Bucket(tb, sourceBucket)
	q.importAll(tb, diskRaw, diskZVHD2)
	return q
}

// startS3 starts a quickims whose images lie in the S3 server.
func startS3(tb *measure.Console, g *storetest.Gateway) *quickims {
	q := &quickims{harness.Start(tb, harness.Options{Dir: tb.TempDir(), NBD: true, Env: []string{"QUICKIMS_REGION=us-east-1"}, Config: configuration + fmt.Sprintf(`
s3:
  endpoint: %s
  region: us-east-1
  access_key: %s
  secret_key: %s
  image_bucket: %s
  buckets:
    - {name: %s, projects: [%s]}
`, g.URL, g.AccessKey, g.SecretKey, imageBucket, sourceBucket, harness.ProjectID)}), map[string]string{}}
	q.importAll(tb, diskRaw, diskZVHD2)
	return q
}

// importPatience is how long an import may take: the S3 server copies the disk.
const importPatience = 10 * time.Minute

func (q *quickims) importAll(tb *measure.Console, keys ...string) {
	for _, key := range keys {
		id := q.Accept(tb, request(key))
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			var job harness.Job
			q.Get(tb, "/v1/"+harness.ProjectID+"/jobs/"+id, &job)
			if job.Status == "SUCCESS" {
				q.ids[key] = job.Entities.ImageID
				break
			}
			if job.Status == "FAIL" || time.Since(began) > importPatience {
				tb.Fatalf("import %s: %s", key, job.Status)
			}
		}
	}
}

func request(key string) map[string]any {
	body := harness.Request("bench", sourceBucket+":"+key)
	body["min_disk"] = 1024
	return body
}

// system is quickims with one of its images, restarted for each start.
func (q *quickims) system(name, store, key string) system {
	return system{name: name, store: store, keeps: true, zvhd2: key == diskZVHD2, start: func(tb *measure.Console) *target {
		q.Kill(tb)
		q.Restart(tb, "")
		return &target{uri: q.Attach(tb, q.ids[key]).URI, pid: q.Pid(), stop: func() {}}
	}}
}
