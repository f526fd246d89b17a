package s3clients

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

// area is the heading of these clients on the page of compatibility.
const area = "S3"

// program is a client that a script of testdata drives. The script prints a line for
// each case: "ok NAME", or "fail NAME: what happened".
type program struct {
	name    string // as the page calls it, and after it the bucket
	pkg     string // the Debian package with the version; for npm that of the lock file
	command []string
	cases   int // how many the script has: one that ends early is noticed
	// virtual: the client names buckets as hosts, through the proxy.
	virtual bool
}

var programs = []program{
	{"awscli", "awscli", []string{"/bin/bash", "awscli.sh"}, 17, false},
	{"python3-boto3", "python3-boto3", []string{"/usr/bin/python3", "boto3_client.py"}, 21, false},
	{"python3-boto3 (buckets as hosts)", "python3-boto3", []string{"/usr/bin/python3", "boto3_client.py"}, 21, true},
	{"rclone (provider Other)", "rclone", []string{"/bin/bash", "rclone.sh", "Other"}, 16, false},
	{"rclone (provider Minio)", "rclone", []string{"/bin/bash", "rclone.sh", "Minio"}, 16, false},
	// Buckets are hosts for this provider, whatever force_path_style says.
	{"rclone (provider AWS)", "rclone", []string{"/bin/bash", "rclone.sh", "AWS"}, 16, true},
	{"@aws-sdk/client-s3 (JavaScript)", npmPackage, []string{"/usr/bin/node", "js/client.mjs"}, 18, false},
	{"s3cmd", "s3cmd", []string{"/bin/bash", "s3cmd.sh"}, 15, false},
	{"s3cmd (buckets as hosts)", "s3cmd", []string{"/bin/bash", "s3cmd.sh"}, 15, true},
}

// reports are the public reports that cases came from, by the name of the case.
var reports = map[string]string{
	"upload with checksums":                "https://github.com/boto/boto3/issues/4398 https://github.com/boto/boto3/issues/4435 https://github.com/versity/versitygw/issues/2398",
	"upload 20 MB in parts with checksums": "https://github.com/boto/boto3/issues/4392",
	"upload a stream of unknown length":    "https://github.com/aws/aws-sdk-js-v3/issues/2348",
	"presigned put":                        "https://github.com/localstack/localstack/issues/12169",
	"odd keys":                             "https://github.com/rclone/rclone/issues/7836 https://github.com/s3fs-fuse/s3fs-fuse/issues/1443",
}

// TestPrograms runs with "make test-clients" alone: each call of the AWS CLI costs
// about a second of CPU.
func TestPrograms(t *testing.T) {
	forTestClients(t)
	t.Parallel()
	for _, over := range []string{"http", "https"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, over)
			for _, p := range programs {
				t.Run(p.name, func(t *testing.T) {
					t.Parallel()
					p.run(t, s)
				})
			}
		})
	}
}

func forTestClients(t *testing.T) {
	t.Helper()
	if os.Getenv("QUICKIMS_TEST_CLIENTS") == "" {
		t.Skip("runs in make test-clients")
	}
}

// run runs the script in a folder of its own and takes each case's end from its output.
func (p program) run(t *testing.T, s *site) {
	if p.virtual {
		s = s.virtual(t)
	}
	script, err := filepath.Abs(filepath.Join("testdata", p.command[1]))
	must(t, err)
	client := compat.Client{Area: area, Name: p.name}
	if p.pkg == npmPackage {
		script, client.Version = installedJS(t, filepath.Dir(script))
	} else {
		client.Version = compat.DebianVersion(t, p.pkg)
	}
	cmd := exec.CommandContext(t.Context(), p.command[0], append([]string{script}, p.command[2:]...)...)
	cmd.Dir = t.TempDir()
	// Debian's programs, and nothing of the user's environment, such as a proxy.
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "ENDPOINT="+s.endpoint, "PROXY="+s.proxy, "CA="+s.ca, "NODE_EXTRA_CA_CERTS="+s.ca, "FILES="+s.files, "BUCKET="+bucketName(p.name),
		"ACCESS_KEY="+harness.AccessKey, "SECRET_KEY="+harness.SecretKey, "REGION="+harness.Region)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		result, rest, _ := strings.Cut(lines.Text(), " ")
		name, reason, _ := strings.Cut(rest, ": ")
		ended++
		client.Run(t, compat.Case{Did: name, Over: s.over, Report: reports[name]}, func(t *testing.T) {
			if result != "ok" {
				t.Error(strings.ReplaceAll(reason, "~", "\n"))
			}
		})
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(p.command, " "), err, stderr.String())
	}
	if ended != p.cases {
		t.Errorf("%d cases ended, the script has %d\n%s", ended, p.cases, stderr.String())
	}
}

// bucketName makes a name of a bucket from that of a client.
func bucketName(client string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(client), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
}
