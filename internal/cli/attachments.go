package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/ims"
)

// DetachCmd ends attachments.
type DetachCmd struct {
	serverFlags
	Force bool     `short:"f" help:"End them though somebody is connected, who is cut off."`
	IDs   []string `arg:"" name:"attachment" help:"The attachments' ids, as attach and attachments print them."`
}

// Help shows the command's use.
func (DetachCmd) Help() string {
	return `An attachment that somebody is connected to stays, unless --force is given: then they are cut off within seconds, and a machine that lives on it has I/O errors. The first attachment that can't be ended ends the command; those before it are gone.

Example:

    quickims detach 3f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03
    quickims detach --force 3f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03
`
}

// Run ends them.
func (c *DetachCmd) Run(ctx context.Context, s *session) error {
	if err := attachmentIDs(c.IDs); err != nil {
		return err
	}
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := s.wholeAttachmentIDs(ctx, service, c.IDs); err != nil {
		return err
	}
	for _, id := range c.IDs {
		if err := service.Detach(ctx, id, c.Force); err != nil {
			return fmt.Errorf("end attachment %s: %w", id, interrupted(ctx, err))
		}
		if !s.json {
			fmt.Fprintf(s.Stdout, "detached %s\n", id)
		}
	}
	if !s.json {
		return nil
	}
	return s.result(struct {
		Detached []string `json:"detached"`
	}{c.IDs}, nil)
}

// AttachmentsCmd are the commands about attachments that are there.
type AttachmentsCmd struct {
	List  AttachmentsListCmd  `cmd:"" default:"withargs" help:"List the attachments, with who is connected."`
	Renew AttachmentsRenewCmd `cmd:"" help:"Begin attachments' time anew, or change it."`
}

// Help shows the commands' use.
func (AttachmentsCmd) Help() string {
	return `Without a further word it lists.

Examples:

    quickims attachments
    quickims attachments web
    quickims attachments renew 3f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03 --ttl 0
`
}

// AttachmentsRenewCmd begins attachments' time anew.
type AttachmentsRenewCmd struct {
	serverFlags
	lifeFlags
	IDs []string `arg:"" name:"attachment" help:"The attachments' ids, as attach and attachments print them."`
}

// Help shows the command's use.
func (AttachmentsRenewCmd) Help() string {
	return `The time counts while nobody is connected: renewing sets it back to the beginning. What is not given stays as it was. The greatest age counts from when the attachment was made. The first attachment that can't be renewed ends the command.

Examples:

    quickims attachments renew 3f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03
    quickims attachments renew 3f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03 --ttl 0
`
}

// Validate checks what the grammar can't say.
func (c *AttachmentsRenewCmd) Validate() error { return c.check() }

// Run renews them.
func (c *AttachmentsRenewCmd) Run(ctx context.Context, s *session) error {
	if err := attachmentIDs(c.IDs); err != nil {
		return err
	}
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := s.wholeAttachmentIDs(ctx, service, c.IDs); err != nil {
		return err
	}
	doc := attachmentsDocument{Attachments: []json.RawMessage{}}
	for _, id := range c.IDs {
		a, err := service.RenewAttachment(ctx, id, c.life())
		if err != nil {
			return fmt.Errorf("renew attachment %s: %w", id, interrupted(ctx, err))
		}
		doc.Attachments = append(doc.Attachments, a.Raw)
		if !s.json {
			fmt.Fprintf(s.Stdout, "renewed %s, until %s\n", id, until(a))
		}
	}
	if !s.json {
		return nil
	}
	return s.result(doc, nil)
}

// attachmentsDocument is attachments with --json.
type attachmentsDocument struct {
	Attachments []json.RawMessage `json:"attachments"`
}

// attachmentIDs checks the ids that a command was given.
func attachmentIDs(ids []string) error {
	for _, id := range ids {
		if !ims.ValidUUID(id) && !beginsID(id) {
			return usagef("%q is no attachment's id; \"quickims attachments\" shows them", id)
		}
	}
	return nil
}

// wholeAttachmentIDs puts the whole ids in the place of beginnings, as the table shows
// them on a terminal.
func (s *session) wholeAttachmentIDs(ctx context.Context, service *client.Client, ids []string) error {
	if !slices.ContainsFunc(ids, func(id string) bool { return !ims.ValidUUID(id) }) {
		return nil
	}
	list, err := service.Attachments(ctx, "")
	if err != nil {
		return fmt.Errorf("list the attachments: %w", interrupted(ctx, err))
	}
	for i, id := range ids {
		var found []string
		for _, a := range list {
			if strings.HasPrefix(a.ID, id) {
				found = append(found, a.ID)
			}
		}
		switch {
		case ims.ValidUUID(id):
		case len(found) == 0:
			return &kindError{fs.ErrNotExist, fmt.Sprintf("no attachment's id begins with %q; \"quickims attachments\" shows them", id)}
		case len(found) > 1:
			return fmt.Errorf("the ids of %d attachments begin with %s, say which: %s", len(found), id, strings.Join(found, " "))
		default:
			ids[i] = found[0]
		}
	}
	return nil
}

// until tells when an attachment ends.
func until(a client.Attachment) string {
	if a.ExpiresAt == "" {
		return "it is detached"
	}
	if a.TTL == 0 { // it has a greatest age alone
		return when(a.ExpiresAt)
	}
	return when(a.ExpiresAt) + ", later if it is in use"
}

// AttachmentsListCmd lists attachments.
type AttachmentsListCmd struct {
	serverFlags
	wideFlag
	Image string `arg:"" optional:"" name:"image" help:"Only those of this image: its id, or its name if no other has the same."`
}

// Help shows the command's use.
func (AttachmentsListCmd) Help() string {
	return `An attachment that somebody is connected to does not end by its time; UNTIL moves on. Connections and what was read are those of some seconds ago. The URIs are not among what is shown: they hold secrets, and the service does not keep them.

Examples:

    quickims attachments
    quickims attachments web --json
`
}

// Run lists.
func (c *AttachmentsListCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	image := ""
	if c.Image != "" {
		if image, err = s.imageID(ctx, service, c.Image); err != nil {
			return err
		}
	}
	list, err := service.Attachments(ctx, image)
	if err != nil {
		return fmt.Errorf("list the attachments: %w", interrupted(ctx, err))
	}
	doc := attachmentsDocument{Attachments: []json.RawMessage{}}
	for _, a := range list {
		doc.Attachments = append(doc.Attachments, a.Raw)
	}
	var rows [][]string
	for _, a := range list {
		rows = append(rows, []string{a.ID, a.ImageID, a.ImageName, a.CreatedAt, cmp.Or(a.ExpiresAt, "detached"), strconv.Itoa(a.Connections),
			strings.Join(a.Addresses, ","), size(a.BytesRead), a.LastReadAt})
	}
	return s.table(doc, c.Wide, "no attachments", []column{{"ID", shortID, false}, {"IMAGE", shortID, true}, {"NAME", soft, false}, {"SINCE", moment, true}, {"UNTIL", moment, false}, {"CLIENTS", whole, false},
		{"FROM", soft, true}, {"READ", whole, false}, {"LAST READ", moment, false}}, rows)
}
