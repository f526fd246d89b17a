package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/quickims/quickims/internal/client"
)

// QuotaCmd shows the project's quota.
type QuotaCmd struct{ serverFlags }

// Help shows the command's use.
func (QuotaCmd) Help() string { return "Example:\n\n    quickims quota\n" }

// Run shows it.
func (c *QuotaCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	used, quota, err := service.Quota(ctx)
	if err != nil {
		return fmt.Errorf("show the quota: %w", interrupted(ctx, err))
	}
	var doc struct {
		Images struct {
			Used  int `json:"used"`
			Quota int `json:"quota"`
		} `json:"images"`
	}
	doc.Images.Used, doc.Images.Quota = used, quota
	return s.result(doc, func(w io.Writer) { fmt.Fprintf(w, "Images\t%d of %d\n", used, quota) })
}

// OSVersionsCmd lists the operating systems that the service knows.
type OSVersionsCmd struct {
	serverFlags
	Search string `placeholder:"TEXT" help:"Only those whose name contains all of these words, in any case."`
}

// Help shows the command's use.
func (OSVersionsCmd) Help() string {
	return `What --os-version of import takes, word for word.

Examples:

    quickims os-versions
    quickims os-versions --search "debian 12"
`
}

// Run lists them.
func (c *OSVersionsCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	known, err := service.OSVersions(ctx)
	if err != nil {
		return fmt.Errorf("list the operating systems: %w", interrupted(ctx, err))
	}
	type entry struct {
		OSVersion string `json:"os_version"`
		Platform  string `json:"platform"`
		OSType    string `json:"os_type"`
		OSBit     int    `json:"os_bit"`
	}
	doc := struct {
		Versions []entry `json:"os_versions"`
	}{[]entry{}}
	words := strings.Fields(strings.ToLower(c.Search))
next:
	for _, v := range known.With() {
		name := strings.ToLower(v.Version + " " + v.Platform)
		for _, word := range words {
			if !strings.Contains(name, word) {
				continue next
			}
		}
		doc.Versions = append(doc.Versions, entry{v.Version, v.Platform, v.Type, v.Bit})
	}
	if len(doc.Versions) == 0 && !s.json {
		s.note("no operating system matches %q; \"quickims os-versions\" lists all", c.Search)
	}
	return s.result(doc, func(w io.Writer) {
		for _, v := range doc.Versions {
			fmt.Fprintf(w, "%s\t%s\t%s\n", v.OSVersion, v.Platform, v.OSType)
		}
	})
}

// EnterpriseProjectCmd groups the commands on enterprise projects.
type EnterpriseProjectCmd struct {
	List   EnterpriseProjectListCmd   `cmd:"" help:"List the domain's enterprise projects."`
	Create EnterpriseProjectCreateCmd `cmd:"" help:"Create an enterprise project."`
}

// Help shows the commands' use.
func (EnterpriseProjectCmd) Help() string {
	return `Examples:

    quickims enterprise-project list
    quickims enterprise-project create web --description "what customers see"
`
}

// EnterpriseProjectListCmd lists them.
type EnterpriseProjectListCmd struct {
	serverFlags
	wideFlag
}

// Run lists them.
func (c *EnterpriseProjectListCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	list, err := service.EnterpriseProjects(ctx)
	if err != nil {
		return fmt.Errorf("list the enterprise projects: %w", interrupted(ctx, err))
	}
	var rows [][]string
	for _, p := range list {
		status := "enabled"
		if p.Status != client.EnterpriseEnabled {
			status = "disabled"
		}
		rows = append(rows, []string{p.ID, p.Name, status, p.Description})
	}
	doc := struct {
		Projects any `json:"enterprise_projects"`
	}{list}
	return s.table(doc, c.Wide, "no enterprise projects", []column{{"ID", whole, false}, {"NAME", soft, false}, {"STATUS", whole, false}, {"DESCRIPTION", soft, false}}, rows)
}

// EnterpriseProjectCreateCmd makes one.
type EnterpriseProjectCreateCmd struct {
	serverFlags
	Name        string `arg:"" help:"Its name."`
	Description string `placeholder:"TEXT" help:"One line about it."`
}

// Run makes it.
func (c *EnterpriseProjectCreateCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	p, err := service.CreateEnterpriseProject(ctx, c.Name, c.Description)
	if err != nil {
		return fmt.Errorf("create enterprise project %s: %w", c.Name, interrupted(ctx, err))
	}
	return s.result(struct {
		Project any `json:"enterprise_project"`
	}{p}, func(w io.Writer) { fmt.Fprintf(w, "%s (%s)\n", p.ID, p.Name) })
}
