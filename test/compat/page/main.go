// Command page makes docs/compatibility.md of the records that tests wrote (package
// compat), or checks that the page is what the records make.
//
//	go run ./test/compat/page -records DIR -page docs/compatibility.md [-check]
//
// With -check it writes nothing and exits with status 1 if the page differs in more
// than the clients' versions.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/quickims/quickims/test/compat"
)

func main() {
	records := flag.String("records", "", "directory of the records")
	page := flag.String("page", "", "file of the page")
	check := flag.Bool("check", false, "compare, write nothing")
	flag.Parse()
	if err := run(*records, *page, *check); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

func run(dir, path string, check bool) error {
	records, err := read(dir)
	if err != nil {
		return err
	}
	made, err := render(records)
	if err != nil {
		return err
	}
	if !check {
		return os.WriteFile(path, made, 0o644)
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if diff := differences(string(committed), string(made)); diff != "" {
		return fmt.Errorf("%s is not what the tests' records make; run \"make compatibility\" and commit it:\n%s", path, diff)
	}
	return nil
}

// read returns all records of a directory.
func read(dir string) ([]compat.Record, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s holds no records", dir)
	}
	var out []compat.Record
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		dec := json.NewDecoder(bufio.NewReader(file))
		for {
			var r compat.Record
			err := dec.Decode(&r)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				file.Close()
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			out = append(out, r)
		}
		file.Close()
	}
	return out, nil
}
