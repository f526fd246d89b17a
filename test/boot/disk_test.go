//go:build amd64

// Package boot proves that an imported image is a disk: machines start from it over
// NBD, with BIOS and UEFI, and every tool reads the bytes that were imported. The
// machines are qemu's, emulated, so that no virtualisation is needed.
package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// blockSize is the unit of both formats, in which data and holes are told apart.
const blockSize = 2 << 20

// disk is the disk that all tests start from: made once, read by many.
type disk struct {
	raw, mf, zvhd2 string // files
	size           int64  // bytes
	blocks         []bool // of 2 MiB; true has a byte that is not zero
	Kernel         string `json:"kernel"`
	RootUUID       string `json:"root_uuid"`
	Proof          string `json:"proof_sha256"`
}

// dataSize is how many bytes of the disk are in blocks that are not all zero.
func (d *disk) dataSize() (n int64) {
	for _, data := range d.blocks {
		if data {
			n += blockSize
		}
	}
	return n
}

// line is what the guest prints when it has read its root disk.
func (d *disk) line(firmware string) string {
	return fmt.Sprintf("quickims: root=UUID=%s proof=%s firmware=%s", d.RootUUID, d.Proof, firmware)
}

var folder string // of the disk; removed when all tests are done

// tests removes what the tests share, when they are done.
type tests struct{ *testing.M }

func (m tests) Run() int {
	defer func() { os.RemoveAll(folder) }()
	return m.M.Run()
}

func TestMain(m *testing.M) { harness.Main(tests{m}) }

var made struct {
	sync.Once
	disk *disk
	err  error
}

// theDisk makes the disk, the first time.
func theDisk(t *testing.T) *disk {
	t.Helper()
	quickims := harness.Binary(t)
	made.Do(func() { made.disk, made.err = makeDisk(quickims) })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.disk
}

// makeDisk makes the disk in all its forms.
func makeDisk(quickims string) (*disk, error) {
	var err error
	if folder, err = os.MkdirTemp("", "quickims-test-boot-"); err != nil {
		return nil, err
	}
	_, self, _, _ := runtime.Caller(0)
	d := &disk{raw: filepath.Join(folder, "disk.raw"), mf: filepath.Join(folder, "disk.mf"), zvhd2: filepath.Join(folder, "disk.zvhd2")}
	out, err := output(exec.Command(filepath.Join(filepath.Dir(self), "../../scripts/boot-disk"), d.raw))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, d); err != nil {
		return nil, fmt.Errorf("what boot-disk says of the disk: %w in %s", err, out)
	}
	for _, args := range [][]string{{"mf", d.raw}, {"convert", d.raw, d.zvhd2}} {
		if _, err := output(exec.Command(quickims, args...)); err != nil {
			return nil, err
		}
	}
	return d, d.scan()
}

// scan finds the blocks that are not all zero, by reading them all.
func (d *disk) scan() error {
	f, err := os.Open(d.raw)
	if err != nil {
		return err
	}
	defer f.Close()
	block, zeros := make([]byte, blockSize), make([]byte, blockSize)
	for {
		n, err := io.ReadFull(f, block)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s is no whole number of blocks: %w", d.raw, err)
		}
		d.size += int64(n)
		d.blocks = append(d.blocks, !bytes.Equal(block, zeros))
	}
}

// output runs a program and returns what it printed; what it said on stderr is in the
// error.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s%s", cmd, err, out, stderr.Bytes())
	}
	return out, nil
}

// run runs a program that must succeed and returns what it printed.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := output(exec.Command(name, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
