package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// ImageSetCmd changes attributes of an image.
type ImageSetCmd struct {
	serverFlags
	Image       string   `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	Name        *string  `placeholder:"NAME" help:"A new name."`
	Description *string  `placeholder:"TEXT" help:"A new description; an empty one removes it."`
	Protect     bool     `xor:"protect" help:"Protect the image: it cannot be deleted."`
	Unprotect   bool     `xor:"protect" help:"Lift the protection."`
	Attribute   []string `short:"a" sep:"none" placeholder:"KEY=VALUE" help:"Set an attribute, such as min_ram=1024 or hw_firmware_type=uefi. May be given several times."`
	Remove      []string `sep:"none" placeholder:"KEY" help:"Remove an attribute. May be given several times."`
}

// Help shows the command's use.
func (ImageSetCmd) Help() string {
	return `All changes take effect together, or none does.

Examples:

    quickims image set web --name web-2026 --description "as of May"
    quickims image set web --protect
    quickims image set web -a min_ram=1024 -a hw_firmware_type=uefi
`
}

// ops are the changes as the service takes them.
func (c *ImageSetCmd) ops() ([]ims.PatchOp, error) {
	var ops []ims.PatchOp
	set := func(key string, value any) {
		ops = append(ops, ims.PatchOp{Op: "replace", Path: "/" + key, Value: value})
	}
	if c.Name != nil {
		set("name", *c.Name)
	}
	if c.Description != nil {
		set("__description", *c.Description)
	}
	if c.Protect || c.Unprotect {
		set("protected", c.Protect)
	}
	for _, text := range c.Attribute {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("--attribute %s: must be KEY=VALUE", text)
		}
		typed, err := attributeValue(key, value)
		if err != nil {
			return nil, err
		}
		set(key, typed)
	}
	for _, key := range c.Remove {
		ops = append(ops, ims.PatchOp{Op: "remove", Path: "/" + key})
	}
	if len(ops) == 0 {
		return nil, usagef("nothing to change: name at least one of --name, --description, --protect, --unprotect, --attribute, --remove")
	}
	return ops, nil
}

// attributeValue gives a value the type that the attribute has.
func attributeValue(key, value string) (any, error) {
	i := slices.IndexFunc(ims.Attributes, func(a ims.Attribute) bool { return a.Name == key })
	if i < 0 {
		return value, nil // the service knows, or says that it does not
	}
	switch ims.Attributes[i].JSONType {
	case "integer":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, usagef("--attribute %s=%s: the value must be a whole number", key, value)
		}
		return n, nil
	case "boolean":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return nil, usagef("--attribute %s=%s: the value must be true or false", key, value)
		}
		return b, nil
	}
	return value, nil
}

// Run changes them.
func (c *ImageSetCmd) Run(ctx context.Context, s *session) error {
	ops, err := c.ops()
	if err != nil {
		return err
	}
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	img, err := service.PatchImage(ctx, id, ops)
	if err != nil {
		return fmt.Errorf("change image %s: %w", c.Image, interrupted(ctx, err))
	}
	return s.result(withNumbers(img.Raw), func(w io.Writer) { fmt.Fprintf(w, "changed %s (%s)\n", img.ID, img.Name) })
}

// ImageTagCmd groups the commands on an image's tags.
type ImageTagCmd struct {
	Add    ImageTagAddCmd    `cmd:"" help:"Set tags of an image."`
	Remove ImageTagRemoveCmd `cmd:"" help:"Remove tags of an image."`
	List   ImageTagListCmd   `cmd:"" help:"List an image's tags."`
}

// Help shows the commands' use.
func (ImageTagCmd) Help() string {
	return `Examples:

    quickims image tag add web role=web stage=test
    quickims image tag remove web stage
    quickims image tag list web
`
}

// ImageTagAddCmd sets tags.
type ImageTagAddCmd struct {
	serverFlags
	Image string   `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	Tags  []string `arg:"" name:"key=value" help:"The tags. One whose key the image has gets the new value."`
}

// Run sets them.
func (c *ImageTagAddCmd) Run(ctx context.Context, s *session) error {
	var tags []ims.Tag
	for _, text := range c.Tags {
		key, value, _ := strings.Cut(text, "=")
		tags = append(tags, ims.Tag{Key: key, Value: value})
	}
	return changeTags(ctx, s, c.serverFlags, c.Image, tags, false)
}

// ImageTagRemoveCmd removes tags.
type ImageTagRemoveCmd struct {
	serverFlags
	Image string   `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	Keys  []string `arg:"" name:"key" help:"Keys of the tags."`
}

// Run removes them.
func (c *ImageTagRemoveCmd) Run(ctx context.Context, s *session) error {
	var tags []ims.Tag
	for _, key := range c.Keys {
		tags = append(tags, ims.Tag{Key: key})
	}
	return changeTags(ctx, s, c.serverFlags, c.Image, tags, true)
}

func changeTags(ctx context.Context, s *session, f serverFlags, image string, tags []ims.Tag, remove bool) error {
	service, id, err := f.connectTo(ctx, s, image)
	if err != nil {
		return err
	}
	if err := service.ChangeTags(ctx, id, tags, remove); err != nil {
		return fmt.Errorf("change the tags of image %s: %w", image, interrupted(ctx, err))
	}
	left, err := service.ImageTags(ctx, id)
	if err != nil {
		return fmt.Errorf("read the tags of image %s: %w", image, interrupted(ctx, err))
	}
	return s.tags(left)
}

// tags prints an image's tags.
func (s *session) tags(tags []ims.Tag) error {
	type tag struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	doc := struct {
		Tags []tag `json:"tags"`
	}{[]tag{}}
	for _, t := range tags {
		doc.Tags = append(doc.Tags, tag(t))
	}
	return s.result(doc, func(w io.Writer) {
		for _, t := range tags {
			fmt.Fprintf(w, "%s=%s\n", t.Key, t.Value)
		}
	})
}

// ImageTagListCmd lists tags.
type ImageTagListCmd struct {
	serverFlags
	Image string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
}

// Run lists them.
func (c *ImageTagListCmd) Run(ctx context.Context, s *session) error {
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	tags, err := service.ImageTags(ctx, id)
	if err != nil {
		return fmt.Errorf("read the tags of image %s: %w", c.Image, interrupted(ctx, err))
	}
	return s.tags(tags)
}

// memberFlags name an image and a project.
type memberFlags struct {
	serverFlags
	Image   string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	Project string `arg:"" name:"project-id" help:"Id of the other project; its credentials.env has it as QUICKIMS_PROJECT_ID."`
}

// ImageShareCmd shares an image.
type ImageShareCmd struct{ memberFlags }

// Help shows the command's use.
func (ImageShareCmd) Help() string {
	return `The other project sees the image once it has accepted it: "quickims image accept ID". It then can read and attach it, and nothing else.

Example:

    quickims image share web 9f2a1c5be83d4f6b8a7e5c3d2b1a0f9e
`
}

// Run shares it.
func (c *ImageShareCmd) Run(ctx context.Context, s *session) error {
	return c.change(ctx, s, "share", true)
}

// ImageUnshareCmd ends sharing.
type ImageUnshareCmd struct{ memberFlags }

// Run ends it.
func (c *ImageUnshareCmd) Run(ctx context.Context, s *session) error {
	return c.change(ctx, s, "unshare", false)
}

func (c memberFlags) change(ctx context.Context, s *session, what string, share bool) error {
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	call, done := service.Unshare, "is no longer shared"
	if share {
		call, done = service.Share, "is shared"
	}
	if err := call(ctx, id, c.Project); err != nil {
		return fmt.Errorf("%s image %s: %w", what, c.Image, interrupted(ctx, err))
	}
	return s.result(struct {
		ImageID  string `json:"image_id"`
		MemberID string `json:"member_id"`
		Shared   bool   `json:"shared"`
	}{id, c.Project, share}, func(w io.Writer) { fmt.Fprintf(w, "%s %s with %s\n", id, done, c.Project) })
}

// answerFlags name an image that is shared with the caller's project.
type answerFlags struct {
	serverFlags
	Image string `arg:"" name:"image-id" help:"The image's id: until it is accepted, an image that another project shares is in no list by its name."`
}

func (c answerFlags) answer(ctx context.Context, s *session, status string) error {
	if !ims.ValidUUID(c.Image) {
		return usagef("%q: must be the image's id, which its owner can tell", c.Image)
	}
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := service.Answer(ctx, c.Image, status); err != nil {
		return fmt.Errorf("answer for image %s: %w", c.Image, interrupted(ctx, err))
	}
	return s.result(struct {
		ImageID string `json:"image_id"`
		Status  string `json:"status"`
	}{c.Image, status}, func(w io.Writer) { fmt.Fprintf(w, "%s is %s\n", c.Image, status) })
}

// ImageAcceptCmd accepts a shared image.
type ImageAcceptCmd struct{ answerFlags }

// Run accepts it.
func (c *ImageAcceptCmd) Run(ctx context.Context, s *session) error {
	return c.answer(ctx, s, "accepted")
}

// ImageRejectCmd rejects a shared image.
type ImageRejectCmd struct{ answerFlags }

// Run rejects it.
func (c *ImageRejectCmd) Run(ctx context.Context, s *session) error {
	return c.answer(ctx, s, "rejected")
}

// ImageMembersCmd lists who an image is shared with.
type ImageMembersCmd struct {
	serverFlags
	wideFlag
	Image string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
}

// Run lists them.
func (c *ImageMembersCmd) Run(ctx context.Context, s *session) error {
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	members, err := service.Members(ctx, id)
	if err != nil {
		return fmt.Errorf("list the members of image %s: %w", c.Image, interrupted(ctx, err))
	}
	var rows [][]string
	for _, m := range members {
		rows = append(rows, []string{m.MemberID, m.Status, m.CreatedAt})
	}
	doc := struct {
		Members any `json:"members"`
	}{members}
	return s.table(doc, c.Wide, "the image is shared with no project", []column{{"PROJECT ID", whole, false}, {"STATUS", whole, false}, {"SINCE", moment, false}}, rows)
}
