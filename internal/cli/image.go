package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/client"
)

// ImageCmd groups the commands on images.
type ImageCmd struct {
	List   ImageListCmd   `cmd:"" help:"List the project's images."`
	Show   ImageShowCmd   `cmd:"" help:"Show all attributes of an image."`
	Save   ImageSaveCmd   `cmd:"" help:"Write an image's disk to a file."`
	Delete ImageDeleteCmd `cmd:"" help:"Delete images and their data."`

	Set     ImageSetCmd     `cmd:"" help:"Change name, description, attributes or protection of an image."`
	Tag     ImageTagCmd     `cmd:"" help:"Add, remove and list tags of an image."`
	Share   ImageShareCmd   `cmd:"" help:"Share an image with another project."`
	Unshare ImageUnshareCmd `cmd:"" help:"End sharing an image with a project."`
	Accept  ImageAcceptCmd  `cmd:"" help:"Accept an image that another project shares with this one."`
	Reject  ImageRejectCmd  `cmd:"" help:"Reject an image that another project shares with this one."`
	Members ImageMembersCmd `cmd:"" help:"List the projects that an image is shared with."`

	Publish  ImagePublishCmd  `cmd:"" help:"Make an image public: every project may use it."`
	Withdraw ImageWithdrawCmd `cmd:"" help:"Make a public image private again."`
	Copy     ImageCopyCmd     `cmd:"" help:"Make a new image of an image's data."`
	Export   ImageExportCmd   `cmd:"" help:"Write an image into a bucket."`
}

// Help shows the commands' use.
func (ImageCmd) Help() string {
	return `Examples:

    quickims image list
    quickims image show 8f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03
    quickims image save web web.raw
    quickims image copy web --name web-2026
    quickims image export web backup:web.raw --wait
    quickims image delete 8f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03
`
}

// ImageListCmd lists images.
type ImageListCmd struct {
	serverFlags
	Name   string   `help:"Only images of this name."`
	Status string   `enum:",queued,saving,active,killed" default:"" placeholder:"STATUS" help:"Only images of this status: queued, saving, active or killed. Default: all but killed."`
	Tag    []string `sep:"none" placeholder:"KEY=VALUE" help:"Only images with this tag. May be given several times: all must match."`
	Limit  int      `placeholder:"N" help:"At most N images, the newest."`
	wideFlag
}

// Help shows the command's use.
func (ImageListCmd) Help() string {
	return `Examples:

    quickims image list
    quickims image list --status active --tag role=web
    quickims image list --json --limit 10
`
}

// Validate checks what the grammar can't say.
func (c *ImageListCmd) Validate() error {
	if c.Limit < 0 {
		return fmt.Errorf("--limit %d: at least 1 is wanted", c.Limit)
	}
	return nil
}

// Run lists.
func (c *ImageListCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	filter := url.Values{}
	for key, value := range map[string]string{"name": c.Name, "status": c.Status} {
		if value != "" {
			filter.Set(key, value)
		}
	}
	for _, tag := range c.Tag {
		filter.Add("tag", tag)
	}
	images, err := service.Images(ctx, filter, c.Limit)
	if err != nil {
		return fmt.Errorf("list the images: %w", interrupted(ctx, err))
	}
	doc := struct {
		Images []json.RawMessage `json:"images"`
	}{Images: []json.RawMessage{}}
	for _, img := range images {
		doc.Images = append(doc.Images, withNumbers(img.Raw))
	}
	var rows [][]string
	for _, img := range images {
		rows = append(rows, []string{img.ID, img.Name, img.Status, system(img), fmt.Sprintf("%d GiB", img.MinDisk), fileSize(img.Size), img.CreatedAt,
			strings.Join(img.Tags, ",")})
	}
	return s.table(doc, c.Wide, "no images", []column{{"ID", shortID, false}, {"NAME", soft, false}, {"STATUS", whole, false}, {"SYSTEM", soft, false}, {"MIN DISK", whole, true}, {"FILE", whole, false},
		{"CREATED", moment, true}, {"TAGS", soft, true}}, rows)
}

// system is what the image holds: its operating system, or that it has none.
func system(img client.Image) string {
	switch {
	case img.OSVersion != "":
		return img.OSVersion
	case img.Env == "DataImage":
		return "data disk"
	}
	return "-"
}

func fileSize(decimal string) string {
	n, err := strconv.ParseInt(decimal, 10, 64)
	if err != nil {
		return "-"
	}
	return size(n)
}

// ImageShowCmd shows an image.
type ImageShowCmd struct {
	serverFlags
	Image string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
}

// Help shows the command's use.
func (ImageShowCmd) Help() string {
	return "Example:\n\n    quickims image show 8f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03\n"
}

// Run shows it.
func (c *ImageShowCmd) Run(ctx context.Context, s *session) error {
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	img, err := service.Image(ctx, id)
	if err != nil {
		return fmt.Errorf("show image %s: %w", c.Image, interrupted(ctx, err))
	}
	return s.result(withNumbers(img.Raw), func(w io.Writer) { printImage(w, img) })
}

// numbers are attributes whose values are numbers that the API writes as text.
var numbers = []string{"__image_size", "max_ram"}

// withNumbers is the service's document with numbers where it has them as text. What is
// no number stays as it is.
func withNumbers(raw json.RawMessage) json.RawMessage {
	var doc map[string]json.RawMessage
	if json.Unmarshal(raw, &doc) != nil {
		return raw
	}
	for _, name := range numbers {
		var text string
		if json.Unmarshal(doc[name], &text) != nil {
			continue
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			doc[name] = strconv.AppendInt(nil, n, 10)
		}
	}
	if changed, err := json.Marshal(doc); err == nil {
		return changed
	}
	return raw
}

// firstAttributes stand before the others, which follow by name.
var firstAttributes = []string{"id", "name", "status"}

func printImage(w io.Writer, img client.Image) {
	var all map[string]any
	if err := json.Unmarshal(img.Raw, &all); err != nil {
		return // it was read before
	}
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	for _, name := range names {
		switch v := all[name].(type) {
		case nil:
		case string:
			fmt.Fprintf(w, "%s\t%s\n", name, v)
		case []any:
			fmt.Fprintf(w, "%s\t%s\n", name, strings.Trim(fmt.Sprint(v), "[]"))
		default:
			text, _ := json.Marshal(v) // it came from JSON
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
}

func rank(name string) int {
	if i := slices.Index(firstAttributes, name); i >= 0 {
		return i
	}
	return len(firstAttributes)
}

// ImageDeleteCmd deletes images.
type ImageDeleteCmd struct {
	serverFlags
	Images []string `arg:"" name:"image" help:"The images' ids, or names that no others have."`
	Force  bool     `short:"f" help:"End the images' attachments too. Without it an image that is attached stays."`
}

// Help shows the command's use.
func (ImageDeleteCmd) Help() string {
	return `It does not ask before. The first image that can't be deleted ends the command; those before it are gone.

Example:

    quickims image delete 8f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03
`
}

// Run deletes them.
func (c *ImageDeleteCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	var ids []string
	for _, ref := range c.Images {
		id, err := s.imageID(ctx, service, ref)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	doc := struct {
		Deleted []string       `json:"deleted"`
		Images  []deletedImage `json:"images"`
	}{ids, nil}
	for _, id := range ids {
		img, known := service.Image(ctx, id)
		if err := service.DeleteImage(ctx, id, c.Force); err != nil {
			return fmt.Errorf("delete image %s: %w", id, interrupted(ctx, err))
		}
		gone := deletedImage{ID: id}
		if known == nil {
			gone = c.left(ctx, s, img)
		}
		doc.Images = append(doc.Images, gone)
		if !s.json {
			fmt.Fprintf(s.Stdout, "deleted %s\n", id)
			if text := gone.String(); text != "" {
				s.note("%s", text)
			}
		}
	}
	if !s.json {
		return nil
	}
	return s.result(doc, nil)
}

// deletedImage says what a deletion freed.
type deletedImage struct {
	ID string `json:"id"`
	// Size is that of the image's data in the image area, in bytes.
	Size int64 `json:"size,omitempty"`
	// Source is the object that the image was made from, if it is still in its bucket. In
	// a directory store both may have shared their bytes.
	Source string `json:"source,omitempty"`
}

// String says it in a sentence; "" if there is nothing to say.
func (d deletedImage) String() string {
	switch {
	case d.Source != "":
		return fmt.Sprintf("its source %s (%s) is still in the bucket and keeps its space: quickims object delete %[1]s", d.Source, size(d.Size))
	case d.Size > 0:
		return fmt.Sprintf("that frees %s of the image area", size(d.Size))
	}
	return ""
}

// left looks for what a deleted image leaves in a bucket. That it can't be told is no
// fault of the deletion.
func (c *ImageDeleteCmd) left(ctx context.Context, s *session, img client.Image) deletedImage {
	gone := deletedImage{ID: img.ID}
	gone.Size, _ = strconv.ParseInt(img.Size, 10, 64)
	_, source, _ := strings.Cut(img.DataOrigin, ",")
	from, err := parseObject(source)
	if err != nil {
		return gone
	}
	store, err := c.store(s)
	if err != nil {
		return gone
	}
	if _, there, err := s.stat(ctx, store, from); err == nil && there {
		gone.Source = from.String()
	}
	return gone
}
