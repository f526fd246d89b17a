package fuzztest

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLucky fails on what only a mutation holds, when it is told to.
func FuzzLucky(f *testing.F) {
	f.Add([]byte("a seed of some length"), "text", int64(7), false)
	f.Add([]byte{}, "", int64(-1), true)
	Fuzz(f, func(t *testing.T, b []byte, s string, n int64, ok bool) {
		if os.Getenv("QUICKIMS_FUZZTEST_FAIL") != "" && bytes.IndexByte(b, 0xff) >= 0 {
			t.Fatal("the byte is there")
		}
	})
}

// The executions are made, and one that fails is kept as a corpus file that fails
// again.
func TestFailuresAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(env ...string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run", "^FuzzLucky$", "-test.v")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(executionsVar + "=5000"); err != nil || !strings.Contains(out, "5000 executions of FuzzLucky on mutations of 2 inputs") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := run(executionsVar+"=100000", "QUICKIMS_FUZZTEST_FAIL=1")
	if err == nil || !strings.Contains(out, "the input is in testdata/fuzz/FuzzLucky/") {
		t.Fatalf("it did not fail: %v\n%s", err, out)
	}
	// Now the plain run has it, and so has a run that is pointed at the folder.
	if out, err := run("QUICKIMS_FUZZTEST_FAIL=1"); err == nil {
		t.Fatalf("the kept input passes\n%s", out)
	}
	corpus := filepath.Join(dir, "elsewhere")
	if err := os.Rename(filepath.Join(dir, "testdata", "fuzz", "FuzzLucky"), corpus); err != nil {
		t.Fatal(err)
	}
	if out, err := run(executionsVar+"=10", corpusVar+"="+corpus); err != nil || !strings.Contains(out, "mutations of 3 inputs") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestCorpusFiles(t *testing.T) {
	t.Parallel()
	types := reflect.TypeFor[func(*testing.T, []byte, string, int64, bool)]()
	in := []reflect.Value{reflect.ValueOf([]byte("\x00\xff\n\"é")), reflect.ValueOf("a\nb\\"), reflect.ValueOf(int64(-1 << 63)), reflect.ValueOf(true)}
	lines := strings.Split(strings.TrimSpace(string(encode(in))), "\n")
	if len(lines) != 5 || lines[0] != corpusHeader {
		t.Fatalf("%q", lines)
	}
	for i, line := range lines[1:] {
		v, err := decode(line, types.In(i+1))
		if err != nil || !reflect.DeepEqual(v, in[i].Interface()) {
			t.Errorf("%s: %v, %v", line, v, err)
		}
	}
	for _, line := range []string{"", "int64(x)", "[]byte(\"a)", "string(1)", "bool(1"} {
		if v, err := decode(line, types.In(3)); err == nil {
			t.Errorf("%q was read as %v", line, v)
		}
	}
}

// Mutations differ, stay within the bound, and leave the corpus as it is.
func TestMutations(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	a, b := bytes.Repeat([]byte("0123456789abcdef"), 64), make([]byte, maxSize)
	m := &mutator{rand: rand.New(rand.NewPCG(seed, 1)), corpus: [][]reflect.Value{{reflect.ValueOf(a)}, {reflect.ValueOf(b)}, {reflect.ValueOf([]byte(nil))}}}
	seen := map[string]bool{}
	for range 2000 {
		got := m.next()[0].Bytes()
		if len(got) > maxSize {
			t.Fatalf("%d bytes", len(got))
		}
		if len(got) < 4096 {
			seen[string(got)] = true
		}
	}
	if len(seen) < 500 {
		t.Errorf("only %d of the mutations differ", len(seen))
	}
	if !bytes.Equal(a, bytes.Repeat([]byte("0123456789abcdef"), 64)) || len(bytes.Trim(b, "\x00")) != 0 {
		t.Error("the corpus was changed")
	}
}
