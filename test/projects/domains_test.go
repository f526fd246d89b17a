package projects

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestDomains: the projects of a domain share its enterprise projects, and nobody else
// sees or changes them. Projects for which no domain was named share none.
func TestDomains(t *testing.T) {
	t.Parallel()
	const path = "/v1.0/enterprise-projects"
	s := harness.Start(t, harness.Options{})
	ada, rita := addIn(t, s, "acme", "web", "alice", "admin"), addIn(t, s, "acme", "shop", "rita", "reader")
	strangers := map[string]account{
		"another domain": addIn(t, s, "globex", "web", "alice", "admin"),
		"no domain":      addAccount(t, s, "web", "alice", "admin"),
		"first project":  {token: s.Token(t)},
	}
	made := send(t, s, ada.token, "POST", path, `{"name":"merger","description":"secret"}`)
	var doc struct {
		Project struct{ ID string } `json:"enterprise_project"`
	}
	if err := json.Unmarshal(made.Body, &doc); err != nil || made.Status != http.StatusCreated {
		t.Fatalf("%d %s (%v)", made.Status, made.Body, err)
	}
	one := path + "/" + doc.Project.ID
	for _, who := range []account{ada, rita} {
		if a := send(t, s, who.token, "GET", path, ""); !strings.Contains(string(a.Body), "merger") {
			t.Errorf("the domain's list: %d %s", a.Status, a.Body)
		}
		if a := send(t, s, who.token, "GET", one, ""); a.Status != http.StatusOK {
			t.Errorf("shown in the domain: %d %s", a.Status, a.Body)
		}
	}
	for name, who := range strangers {
		if a := send(t, s, who.token, "GET", path, ""); a.Status != http.StatusOK || strings.Contains(string(a.Body), "merger") {
			t.Errorf("%s lists: %d %s", name, a.Status, a.Body)
		}
		for _, r := range [][2]string{{"GET", ""}, {"PUT", `{"name":"pwned","description":""}`}} {
			if a := send(t, s, who.token, r[0], one, r[1]); a.Status != http.StatusNotFound {
				t.Errorf("%s, %s: %d %s", name, r[0], a.Status, a.Body)
			}
		}
		// Nor does the name tell that there is one.
		if a := send(t, s, who.token, "POST", path, `{"name":"merger"}`); a.Status != http.StatusCreated {
			t.Errorf("%s makes one of the same name: %d %s", name, a.Status, a.Body)
		}
	}
	if a := send(t, s, rita.token, "PUT", one, `{"name":"pwned","description":""}`); a.Status != http.StatusForbidden {
		t.Errorf("a reader of the domain changes: %d %s", a.Status, a.Body)
	}
	// A project's id is not a name to make another project by.
	out, err := exec.Command(harness.Binary(t), "account", "add", "--data", s.Dir, "--project", ada.project, "--user", "eve").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `it is in domain "acme"`) {
		t.Errorf("a project of another domain: %v: %s", err, out)
	}
	list, err := exec.Command(harness.Binary(t), "account", "list", "--data", s.Dir).Output()
	if err != nil || !strings.Contains(string(list), "acme") || !strings.Contains(string(list), "globex") {
		t.Errorf("account list: %v: %s", err, list)
	}
}
