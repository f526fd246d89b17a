package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/quickims/quickims/test/compat"
)

const head = `# Compatibility

The clients that the tests run against a started quickims, and how each case ended. ` + "`make compatibility`" + ` runs the tests and makes this page of their records; do not edit it. A client or a case that is not listed was not run.

"works" means that the test asserts the outcome that the client's user expects: the bytes that come back, the list, the error. "fails" is a known fault. A report is the public issue, of another project, that the case came from.
`

// row is what one client did in one case: the same case over several transports is
// one row if it ended the same way.
type row struct {
	did, result, report string
	over                []string
}

// client is a client of an area with its rows in the order of the cases' names.
type client struct {
	compat.Client
	rows []row
}

// render makes the page: for each area a table of its clients and, below it, a table
// of cases for each client. The same records in another order make the same page.
func render(records []compat.Record) ([]byte, error) {
	clients, err := group(records)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(head)
	for start := 0; start < len(clients); {
		end := start
		for end < len(clients) && clients[end].Area == clients[start].Area {
			end++
		}
		area := clients[start:end]
		start = end
		fmt.Fprintf(&out, "\n## %s\n\n| client | version | cases | result |\n|---|---|---|---|\n", area[0].Area)
		for _, c := range area {
			fmt.Fprintf(&out, "| %s | %s | %d | %s |\n", cell(c.Name), cell(c.Version), len(c.rows), cell(summary(c.rows)))
		}
		for _, c := range area {
			fmt.Fprintf(&out, "\n### %s\n\n| what was run | over | result | report |\n|---|---|---|---|\n", c.Name)
			for _, r := range c.rows {
				fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", cell(r.did), cell(strings.Join(r.over, ", ")), cell(r.result), links(r.report))
			}
		}
	}
	return out.Bytes(), nil
}

// group sorts the records and merges those that differ in Over alone.
func group(records []compat.Record) ([]client, error) {
	sorted := slices.Clone(records)
	slices.SortFunc(sorted, func(a, b compat.Record) int {
		return cmp.Or(cmp.Compare(a.Area, b.Area), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Did, b.Did),
			cmp.Compare(a.Result, b.Result), cmp.Compare(a.Over, b.Over), cmp.Compare(a.Report, b.Report), cmp.Compare(a.Version, b.Version))
	})
	var out []client
	for _, r := range sorted {
		if len(out) == 0 || out[len(out)-1].Area != r.Area || out[len(out)-1].Name != r.Name {
			out = append(out, client{Client: r.Client})
		}
		c := &out[len(out)-1]
		if c.Version != r.Version {
			return nil, fmt.Errorf("%s has two versions in the records: %s and %s", r.Name, c.Version, r.Version)
		}
		if n := len(c.rows); n > 0 && c.rows[n-1].did == r.Did && c.rows[n-1].result == r.Result && c.rows[n-1].report == r.Report {
			if last := &c.rows[n-1]; !slices.Contains(last.over, r.Over) {
				last.over = append(last.over, r.Over)
			}
			continue
		}
		c.rows = append(c.rows, row{did: r.Did, result: r.Result, report: r.Report, over: []string{r.Over}})
	}
	return out, nil
}

// summary counts the results of a client: "all work", or each result with its number.
func summary(rows []row) string {
	count := map[string]int{}
	for _, r := range rows {
		kind, _, _ := strings.Cut(r.result, ":")
		count[kind]++
	}
	if count["works"] == len(rows) {
		return "all work"
	}
	kinds := make([]string, 0, len(count))
	for kind := range count {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", count[kind], kind)
	}
	return strings.Join(kinds, ", ")
}

// cell escapes what would end a cell of a Markdown table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}

// links shows each report's address by its last parts: owner/project#number for GitHub.
func links(addresses string) string {
	var out []string
	for _, address := range strings.Fields(addresses) {
		out = append(out, link(address))
	}
	return strings.Join(out, ", ")
}

func link(address string) string {
	text := strings.TrimPrefix(address, "https://")
	if parts := strings.Split(text, "/"); len(parts) == 5 && parts[0] == "github.com" {
		text = parts[1] + "/" + parts[2] + "#" + parts[4]
	}
	return fmt.Sprintf("[%s](%s)", cell(text), address)
}

// differences shows the lines of two pages that differ, without the versions of the
// clients. It is empty if there are none.
func differences(committed, made string) string {
	a, b := withoutVersions(committed), withoutVersions(made)
	var out strings.Builder
	for _, line := range a {
		if !slices.Contains(b, line) {
			fmt.Fprintf(&out, "-%s\n", line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			fmt.Fprintf(&out, "+%s\n", line)
		}
	}
	if out.Len() == 0 && !slices.Equal(a, b) {
		return "the lines are the same, their order or number is not\n"
	}
	return out.String()
}

// withoutVersions are the lines of a page; in the tables of clients, whose second
// column is the version, that column is blank.
func withoutVersions(page string) []string {
	lines := strings.Split(page, "\n")
	inClients := false
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "| client | version |"):
			inClients = true
		case !strings.HasPrefix(line, "|"):
			inClients = false
		case inClients:
			if cells := strings.SplitN(line, " | ", 3); len(cells) == 3 {
				lines[i] = cells[0] + " |  | " + cells[2]
			}
		}
	}
	return lines
}
