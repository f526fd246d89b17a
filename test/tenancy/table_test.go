package tenancy

import (
	"bufio"
	_ "embed"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// matrix is the table: its head says how it is read.
//
//go:embed matrix.txt
var matrix string

// block is a route, what is sent to it, and the expected answers.
type block struct {
	line         int // of matrix.txt
	method, path string
	set          map[string]string // what path parameters stand for
	header       map[string]string
	query, body  string
	answers      []answers
}

// answers are the expected statuses of some states of the image.
type answers struct {
	states []string
	status []int // one a column
}

func (b block) route() string { return b.method + " " + b.path }

// image reports whether the answers depend on the state of an image.
func (b block) image() bool { return b.answers[0].states[0] != noState }

// noState stands where a route has nothing to do with one image.
const noState = "-"

// readTable parses matrix.txt and gives the columns, those before which it has a bar, and
// the blocks.
func readTable(t *testing.T) (columns []string, bars map[int]bool, blocks []block) {
	t.Helper()
	first := 0 // of the blocks that the lines are about: routes that follow each other share them
	lines := bufio.NewScanner(strings.NewReader(matrix))
	for n := 1; lines.Scan(); n++ {
		line, words := lines.Text(), strings.Fields(lines.Text())
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0] == "columns":
			bars = map[int]bool{}
			for _, w := range words[1:] {
				if w == "|" {
					bars[len(columns)] = true
				} else {
					columns = append(columns, w)
				}
			}
		case line[0] != ' ':
			if len(words) != 2 {
				t.Fatalf("matrix.txt:%d: %q is no method and path", n, line)
			}
			if first < len(blocks) && blocks[first].told() {
				first = len(blocks)
			}
			blocks = append(blocks, block{line: n, method: words[0], path: words[1], set: map[string]string{}, header: map[string]string{}})
		case len(blocks) == 0:
			t.Fatalf("matrix.txt:%d: a line before the first route", n)
		default:
			for i := range blocks[first:] {
				if err := blocks[first+i].read(words, strings.TrimSpace(line), len(columns)); err != nil {
					t.Fatalf("matrix.txt:%d: %v", n, err)
				}
			}
		}
	}
	for _, b := range blocks {
		if len(b.answers) == 0 {
			t.Fatalf("matrix.txt:%d: %s has no answers", b.line, b.route())
		}
		seen := []string{}
		for _, a := range b.answers {
			seen = append(seen, a.states...)
		}
		want := []string{noState}
		if b.image() {
			want = slices.Clone(states)
		}
		slices.Sort(seen)
		slices.Sort(want)
		if !slices.Equal(seen, want) {
			t.Fatalf("matrix.txt:%d: %s answers for the states %v; want each of %v once", b.line, b.route(), seen, want)
		}
	}
	return columns, bars, blocks
}

// told reports whether lines follow the route.
func (b block) told() bool {
	return b.body+b.query != "" || len(b.set)+len(b.header)+len(b.answers) > 0
}

func (b *block) read(words []string, line string, columns int) error {
	rest := strings.TrimSpace(strings.TrimPrefix(line, words[0]))
	switch words[0] {
	case "body":
		b.body = rest
	case "query":
		b.query = rest
	case "set":
		if len(words) != 3 {
			return fmt.Errorf("%q; want set PARAMETER THING", line)
		}
		b.set[words[1]] = words[2]
	case "header":
		name, value, ok := strings.Cut(rest, ": ")
		if !ok {
			return fmt.Errorf("%q; want header NAME: VALUE", line)
		}
		b.header[name] = value
	default:
		a := answers{states: strings.Split(words[0], ",")}
		if words[0] == "*" {
			a.states = b.otherStates()
		}
		for _, w := range words[1:] {
			if w == "|" {
				continue
			}
			status, err := strconv.Atoi(w)
			if err != nil || http.StatusText(status) == "" {
				return fmt.Errorf("%q is no status", w)
			}
			a.status = append(a.status, status)
		}
		if len(a.status) != columns {
			return fmt.Errorf("%d statuses, want %d", len(a.status), columns)
		}
		b.answers = append(b.answers, a)
	}
	return nil
}

// otherStates are those that the block has not named yet.
func (b *block) otherStates() (out []string) {
	for _, s := range states {
		if !slices.ContainsFunc(b.answers, func(a answers) bool { return slices.Contains(a.states, s) }) {
			out = append(out, s)
		}
	}
	return out
}
