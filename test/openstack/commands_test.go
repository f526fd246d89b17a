package openstack

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

// command is one command line of a client, and what must be in what it prints. With
// fails it must fail and say so.
type command struct {
	line  string // words; @ID, FILE, OUT and OTHER, a project, are filled in
	want  string
	fails bool
}

// TestCommands runs each image command of Debian's clients against a started service, over
// SQLite and over PostgreSQL, as the first user's clouds.yaml and openrc have them, and
// asserts what it prints. It takes minutes: "make test-clients" runs it.
func TestCommands(t *testing.T) {
	if os.Getenv("QUICKIMS_TEST_CLIENTS") == "" {
		t.Skip("QUICKIMS_TEST_CLIENTS is not set; make test-clients sets it")
	}
	t.Parallel()
	disk := harness.Disk(3, 1)
	sum := md5.Sum(disk)
	md5hex := hex.EncodeToString(sum[:])
	for _, client := range []struct {
		pkg, program string
		commands     []command
	}{
		{"python3-openstackclient", "openstack", []command{
			{line: "image list -f value", want: ""},
			{line: "image create --file FILE --disk-format raw --container-format bare --property a=b --tag t --private one -f value -c name", want: "one"},
			{line: "image show one -f value -c status -c checksum", want: md5hex + "\nactive"},
			{line: "image list --name one -f value -c Status", want: "active"},
			{line: "image list --property a=b -f value -c Name", want: "one"},
			{line: "image list --tag t --private --status active -f value -c Name", want: "one"},
			{line: "image list --shared -f value", want: ""},
			{line: "image save --file OUT one", want: ""},
			{line: "image set --name two --property a=c --property d=e --tag u --min-disk 2 --protected one", want: ""},
			{line: "image show two -f value -c min_disk -c protected -c tags", want: "2\nTrue\n['t', 'u']"},
			{line: "image delete two", want: "403", fails: true},
			{line: "image unset --tag t --property d two", want: ""},
			{line: "image show two -f value -c tags -c properties", want: "'u'"},
			{line: "image set --unprotected --shared two", want: ""},
			{line: "image add project two OTHER -f value -c status", want: "pending"},
			{line: "image member list two -f value", want: "OTHER pending"},
			{line: "image remove project two OTHER", want: ""},
			{line: "image set --deactivate two", want: ""},
			{line: "image show two -f value -c status", want: "deactivated"},
			{line: "image set --activate two", want: ""},
			{line: "image show two -f value -c status", want: "active"},
			{line: "image set --public two", want: ""},
			{line: "image show two -f value -c visibility", want: "public"},
			{line: "image create --file FILE --disk-format qcow2 three", want: "415", fails: true},
			{line: "image create --import --file FILE --disk-format raw four -f value -c name", want: "four"},
			{line: "image show four -f value -c status", want: "active"},
			{line: "image delete two four", want: ""},
			{line: "image list -f value", want: ""},
			{line: "project list -f value -c ID", want: harness.ProjectID},
			{line: "project show " + harness.ProjectID + " -f value -c id", want: harness.ProjectID},
			{line: "domain show default -f value -c id", want: harness.DomainID},
			{line: "catalog list -f value", want: "image"},
			{line: "endpoint list -f value -c URL", want: "/image"},
			{line: "application credential create ci -f value -c name", want: "ci"},
			{line: "application credential list -f value -c Name", want: "ci"},
			{line: "application credential delete ci", want: ""},
			{line: "token issue -f value -c project_id", want: harness.ProjectID},
		}},
		{"python3-glanceclient", "glance", []command{
			{line: "image-list", want: "Name"},
			{line: "image-create --id @ID --name one --file FILE --disk-format raw --container-format bare --property k=v", want: "active"},
			{line: "image-upload --file FILE @ID", want: "alone", fails: true},
			{line: "image-show @ID", want: md5hex},
			{line: "image-download --file OUT @ID", want: ""},
			{line: "image-update --name two --property k=w --property n=1 @ID", want: "two"},
			{line: "image-update --remove-property n @ID", want: "two"},
			{line: "image-tag-update @ID t", want: "t"},
			{line: "image-tag-delete @ID t", want: ""},
			{line: "member-create @ID p", want: "pending"},
			{line: "member-list --image-id @ID", want: "pending"},
			{line: "member-delete @ID p", want: ""},
			{line: "image-deactivate @ID", want: ""},
			{line: "image-show @ID", want: "deactivated"},
			{line: "image-reactivate @ID", want: ""},
			{line: "image-tasks @ID", want: "v2.12", fails: true},
			{line: "task-list", want: "success"},
			{line: "import-info", want: "import-methods"},
			{line: "stores-info", want: "Multi Backend support is not enabled", fails: true},
			{line: "usage", want: "image_count_total"},
			{line: "md-namespace-list", want: "namespace"},
			{line: "md-resource-type-list", want: "name"},
			{line: "image-delete @ID", want: ""},
			{line: "image-show @ID", want: "does not exist", fails: true},
		}},
	} {
		t.Run(client.program, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, opts harness.Options) {
				runCommands(t, client.pkg, client.program, client.commands, opts)
			})
		})
	}
}

// runCommands runs the commands of a client against a service of their own. Each goes on
// from what those before it left.
func runCommands(t *testing.T, pkg, program string, commands []command, opts harness.Options) {
	disk := harness.Disk(3, 1)
	c := compat.Client{Area: "OpenStack", Name: pkg, Version: compat.DebianVersion(t, pkg)}
	s := harness.Start(t, opts)
	file, out := writeFile(t, "disk.raw", disk), filepath.Join(t.TempDir(), "out.raw")
	home := t.TempDir() // glanceclient keeps schemas there
	other := anotherProject(t, s)
	for _, k := range commands {
		did := program + " " + k.line
		result := ""
		if k.fails {
			result = "refused: " + k.want
		}
		c.Run(t, compat.Case{Did: did, Result: result}, func(t *testing.T) {
			words := strings.Fields(strings.NewReplacer("FILE", file, "OUT", out, "OTHER", other).Replace(k.line))
			for i, w := range words {
				if w == "@ID" {
					words[i] = "11111111-2222-4333-8444-555555555555"
				}
			}
			printed, err := run(s, home, program, words)
			want := strings.ReplaceAll(k.want, "OTHER", other)
			if (err != nil) != k.fails || !strings.Contains(printed, want) {
				t.Fatalf("%s: %v, it prints\n%s\nwant %q", did, err, printed, want)
			}
		})
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("what was saved are %d bytes, %v", len(got), err)
	}
}

// anotherProject makes a project and gives its id.
func anotherProject(t *testing.T, s *harness.Server) string {
	t.Helper()
	args := []string{"account", "add", "--data", s.Dir}
	if db := s.Options().Database; db != "" {
		args = append(args, "--database", db)
	}
	out, err := exec.Command(harness.Binary(t), append(args, "--project", "another", "--user", "somebody", "--role", "member")...).Output()
	_, rest, found := strings.Cut(string(out), "QUICKIMS_PROJECT_ID=")
	if err != nil || !found {
		t.Fatalf("make a project: %v, %s", err, out)
	}
	id, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(id, "'")
}

// run runs Debian's program with the first user's openrc.
func run(s *harness.Server, home, program string, words []string) (string, error) {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + w + "'"
	}
	cmd := exec.Command("bash", "-c", ". "+s.Dir+"/openrc; exec /usr/bin/"+program+" "+strings.Join(quoted, " "))
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
