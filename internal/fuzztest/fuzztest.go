// Package fuzztest runs fuzz targets without the fuzzing engine too. It is for tests
// alone.
//
// The engine of `go test -fuzz` finds inputs that reach new code, but an execution
// under it costs some hundred microseconds of bookkeeping, many times what most
// parsers take. So millions of executions are made in two steps: the engine collects
// a corpus, then the target is called in a plain loop on mutations of that corpus.
// scripts/fuzz-long does both.
package fuzztest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"
)

const (
	// executionsVar says how often a target is called with mutations; unset: never.
	executionsVar = "QUICKIMS_FUZZ_EXECUTIONS"
	// corpusVar is a folder with more corpus files, such as the engine's cache.
	corpusVar = "QUICKIMS_FUZZ_CORPUS"
	// seedVar repeats a run: its seed is printed.
	seedVar = "QUICKIMS_FUZZ_SEED"
)

// Fuzz is f.Fuzz(target). With QUICKIMS_FUZZ_EXECUTIONS set the target is called that
// often besides, on mutations of the corpus. A mutation that fails is kept in the
// target's corpus, as the engine does it.
func Fuzz(f *testing.F, target any) {
	f.Helper()
	text := os.Getenv(executionsVar)
	if text == "" {
		f.Fuzz(target)
		return
	}
	total, err := strconv.Atoi(text)
	if err != nil || total < 1 {
		f.Fatalf("%s is %q, it must be a number of executions", executionsVar, text)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVar); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			f.Fatalf("%s is %q, it must be a number", seedVar, text)
		}
	}
	fn := reflect.ValueOf(target)
	if dir := os.Getenv(corpusVar); dir != "" {
		for _, entry := range readCorpus(f, dir, fn.Type()) {
			f.Add(entry...)
		}
	}
	m := &mutator{rand: rand.New(rand.NewPCG(seed, 1))}
	f.Fuzz(reflect.MakeFunc(fn.Type(), func(in []reflect.Value) []reflect.Value {
		fn.Call(in)
		t := in[0].Interface().(*testing.T)
		m.corpus = append(m.corpus, in[1:])
		if len(m.corpus) == entries(f) { // the last one: all have passed
			start := time.Now()
			m.run(t, f.Name(), fn, total)
			t.Logf("%d executions of %s on mutations of %d inputs, seed %d, %s", total, f.Name(), len(m.corpus), seed, time.Since(start).Round(time.Second))
		}
		return nil
	}).Interface())
}

// entries is how many inputs the target is called with before it is mutated. Only the
// testing package knows, and only a subtest's T can run a target.
func entries(f *testing.F) int {
	corpus := reflect.ValueOf(f).Elem().FieldByName("corpus")
	if !corpus.IsValid() {
		panic("fuzztest: testing.F has no corpus any more: find another way to count it")
	}
	return corpus.Len()
}

// run calls fn on mutations. One that fails, panics or ends the test is kept.
func (m *mutator) run(t *testing.T, name string, fn reflect.Value, executions int) {
	var in []reflect.Value
	done := false
	defer func() {
		if !done {
			keep(t, name, in[1:])
		}
	}()
	for range executions {
		in = append([]reflect.Value{reflect.ValueOf(t)}, m.next()...)
		fn.Call(in)
		if t.Failed() {
			return
		}
	}
	done = true
}

// keep writes an input where the engine keeps those that failed.
func keep(t *testing.T, name string, args []reflect.Value) {
	text := encode(args)
	sum := sha256.Sum256(text)
	path := filepath.Join("testdata", "fuzz", name, fmt.Sprintf("%x", sum[:8]))
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	t.Logf("the input is in %s (%v)", path, err)
}
