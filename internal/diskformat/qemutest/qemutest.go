// Package qemutest makes disk files with QEMU's own tools and compares what a
// reader here makes of them with what QEMU makes of them: qemu-img is the
// judge of every format that it knows.
//
// A test calls [Run] with a property that draws a [Recipe], makes the file
// with [Make], opens it with the reader under test and hands it to [Check].
// rapid prints the seed of what fails and looks for the smallest file that
// still does.
package qemutest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// Reads is how many random reads of an image [Check] is asked for usually.
const Reads = 64

// longFactor is how many times as many images a long run makes.
const longFactor = 20

// Images are how many random images of each format, made by QEMU, its package
// compares in the usual run, [Reads] reads each: a hundred together, and two thousand
// in a long run.
var Images = map[string]int{"qcow2": 28, "vdi": 20, "vpc": 20, "vmdk": 18, "vhdx": 14, "qcow": 6, "qed": 6}

// Judge checks prop with the Images of a format, as [Run] does, and says how many
// they were: no fewer than there should be.
func Judge(t *testing.T, format string, prop func(t *rapid.T, dir string)) {
	t.Helper()
	most, judged := Images[format], 0
	if Long() {
		most *= longFactor
	}
	Run(t, Images[format], func(t *rapid.T, dir string) {
		prop(t, dir)
		judged++
	})
	if judged < most && !checksGiven() && !t.Failed() {
		t.Errorf("%d images of %s were compared, %d are wanted", judged, format, most)
	}
	t.Logf("%d random images of %s, %d reads each, are as QEMU reads them", judged, format, Reads)
}

// Long tells whether this is a long run: QUICKIMS_TEST_LONG is set.
func Long() bool { return os.Getenv("QUICKIMS_TEST_LONG") != "" }

// Need skips the test if QEMU's tools are not installed.
func Need(t testing.TB) {
	t.Helper()
	for _, tool := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian: qemu-utils); the format is tested without it too, but not against QEMU", tool)
		}
	}
}

// Run checks prop with as many images as given, twenty times as many in a long
// run; the flag -rapid.checks overrides both. dir is an empty folder for each.
// Since the number is rapid's global flag, tests that call Run must not be
// parallel.
func Run(t *testing.T, images int, prop func(t *rapid.T, dir string)) {
	t.Helper()
	Need(t)
	if Long() {
		images *= longFactor
	}
	if !checksGiven() {
		checks := flag.Lookup("rapid.checks")
		old := checks.Value.String()
		if err := checks.Value.Set(strconv.Itoa(images)); err != nil {
			t.Fatal(err)
		}
		defer checks.Value.Set(old)
	}
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := filepath.Join(base, strconv.Itoa(n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		prop(rt, dir)
	})
}

func checksGiven() bool {
	given := os.Getenv("RAPID_CHECKS") != ""
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	return given
}

// TB is what the functions here need of a [*testing.T] or a [*rapid.T].
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
}

// Img runs qemu-img with args in dir and returns what it printed; a failure
// ends the test.
func Img(t TB, dir string, args ...string) string {
	t.Helper()
	out, err := tool(dir, "qemu-img", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// IO runs qemu-io with args in dir, likewise.
func IO(t TB, dir string, args ...string) string {
	t.Helper()
	out, err := tool(dir, "qemu-io", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tool(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	// qemu-io goes on after a command that failed and may say so in words only.
	if name == "qemu-io" && bytes.Contains(out, []byte("failed")) {
		return "", fmt.Errorf("%s %q:\n%s", name, args, out)
	}
	return string(out), nil
}

// Kind is what an [Op] does to a range of the disk.
type Kind string

const (
	Write    Kind = "write"         // made-up content
	Compress Kind = "write -c"      // the same as compressed clusters; whole grains only, before anything else
	Zero     Kind = "write -z"      // zeros that stay allocated
	Unmap    Kind = "write -z -u"   // zeros that need not
	Discard  Kind = "discard"       // give back
	Plain    Kind = "write -P 0x5a" // one byte repeated
	Nothing  Kind = "write -P 0x00" // zeros written as data
)

// Op is one command to qemu-io.
type Op struct {
	Kind     Kind
	Off, Len int64
	Pattern  int // which of the made-up contents, from 0 to 3
}

func (o Op) String() string {
	kind := string(o.Kind)
	if o.Kind == Write || o.Kind == Compress {
		kind += fmt.Sprintf(" -s pattern%d", o.Pattern)
	}
	return fmt.Sprintf("%s %d %d", kind, o.Off, o.Len)
}

// DrawOps draws up to most operations of the given kinds on a disk of size
// bytes, at most span bytes each. Most begin and end near multiples of grain,
// the unit that the format allocates; all are whole sectors. Those of the kind
// Compress are whole grains, do not overlap and come first, since QEMU does not
// compress over what is stored already.
func DrawOps(t *rapid.T, size, grain, span int64, most int, kinds ...Kind) []Op {
	var first, then []Op
	edge := func(name string, low, high int64) int64 {
		if low >= high {
			return low
		}
		x := rapid.Int64Range(low, high).Draw(t, name)
		switch rapid.IntRange(0, 2).Draw(t, name+" where") {
		case 0:
			x = x / grain * grain
		case 1:
			x = x/grain*grain + rapid.Int64Range(-2, 2).Draw(t, name+" sectors off")*512
		}
		return min(max(x/512*512, low), high)
	}
	for range rapid.IntRange(0, most).Draw(t, "operations") {
		o := Op{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Pattern: rapid.IntRange(0, patterns-1).Draw(t, "pattern")}
		o.Off = edge("offset", 0, size-512)
		end := edge("end", o.Off+512, min(size, o.Off+max(512, span)))
		if o.Kind == Compress {
			o.Off = o.Off / grain * grain
			end = min(size, (end+grain-1)/grain*grain)
			o.Len = end - o.Off
			if !slices.ContainsFunc(first, func(f Op) bool { return o.Off < f.Off+f.Len && f.Off < end }) {
				first = append(first, o)
			}
			continue
		}
		o.Len = end - o.Off
		then = append(then, o)
	}
	return append(first, then...)
}

// Recipe says how one file is made.
type Recipe struct {
	// Format is the format's name in QEMU: qcow2, vpc, vdi, vmdk, vhdx.
	Format string
	// Options are those of -o, each key=value.
	Options []string
	// Size is the disk's in bytes, a multiple of 512.
	Size int64
	// Ops fill the disk.
	Ops []Op
	// Convert fills a RAW disk and converts it, instead of writing to the file
	// in place: for what QEMU can't write in place, and to go both ways.
	Convert bool
	// Args are further arguments of qemu-img create or, with Convert, of
	// qemu-img convert, such as -c.
	Args []string
}

// Make makes the file name in dir, by the recipe.
func Make(t TB, dir, name string, r Recipe) (path string) {
	t.Helper()
	if r.Convert {
		disk := name + ".source"
		create(t, dir, disk, Recipe{Format: "raw", Size: r.Size})
		Apply(t, dir, disk, "raw", r.Ops)
		args := append([]string{"convert", "-q", "-f", "raw", "-O", r.Format}, r.Args...)
		if len(r.Options) > 0 {
			args = append(args, "-o", strings.Join(r.Options, ","))
		}
		Img(t, dir, append(args, disk, name)...)
	} else {
		create(t, dir, name, r)
		Apply(t, dir, name, r.Format, r.Ops)
	}
	return filepath.Join(dir, name)
}

func create(t TB, dir, name string, r Recipe) {
	t.Helper()
	args := append([]string{"create", "-q", "-f", r.Format}, r.Args...)
	if len(r.Options) > 0 {
		args = append(args, "-o", strings.Join(r.Options, ","))
	}
	Img(t, dir, append(args, name, strconv.FormatInt(r.Size, 10))...)
}

// Apply runs ops on the file name in dir.
func Apply(t TB, dir, name, format string, ops []Op) {
	t.Helper()
	if len(ops) == 0 {
		return
	}
	if err := writePatterns(dir); err != nil {
		t.Fatal(err)
	}
	args := []string{"-d", "unmap", "-f", format}
	for _, o := range ops {
		args = append(args, "-c", o.String())
	}
	IO(t, dir, append(args, name)...)
}

// patterns is how many made-up contents there are. QEMU repeats one as often
// as a write needs it. Their lengths are odd, so that every sector of a write
// differs from the others.
const patterns = 4

var madeUp = sync.OnceValue(func() [patterns][]byte {
	var p [patterns][]byte
	for i := range p {
		p[i] = make([]byte, 300_007+1000*i)
		disktest.Fill(p[i], uint64(i+1))
		p[i][0] = byte(i + 1)
	}
	return p
})

func writePatterns(dir string) error {
	for i, p := range madeUp() {
		name := filepath.Join(dir, fmt.Sprintf("pattern%d", i))
		if _, err := os.Stat(name); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(name, p, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Raw has qemu-img read the file at path as format and write the disk to
// path.raw, whose path it returns.
func Raw(t TB, path, format string) string {
	t.Helper()
	raw := path + ".raw"
	Img(t, filepath.Dir(path), "convert", "-q", "-f", format, "-O", "raw", path, raw)
	return raw
}
