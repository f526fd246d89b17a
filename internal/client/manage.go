package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// PatchImage changes attributes of an image, in order, and gives the image as it is
// then. Either all operations take effect or none.
func (c *Client) PatchImage(ctx context.Context, id string, ops []ims.PatchOp) (Image, error) {
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	var wire []op
	for _, o := range ops {
		wire = append(wire, op(o))
	}
	body, err := c.do(ctx, http.MethodPatch, []string{"v2", "cloudimages", id}, nil, wire)
	if err != nil {
		return Image{}, err
	}
	return readImage(body)
}

// tagJSON is a tag on the wire.
type tagJSON struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// ImageTags are the tags of an image.
func (c *Client) ImageTags(ctx context.Context, id string) ([]ims.Tag, error) {
	project, err := c.project()
	if err != nil {
		return nil, err
	}
	body, err := c.do(ctx, http.MethodGet, []string{"v2", project, "images", id, "tags"}, nil, nil)
	if err != nil {
		return nil, err
	}
	var wire struct {
		Tags []tagJSON `json:"tags"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("read the tags of image %s: %w", id, err)
	}
	tags := []ims.Tag{}
	for _, t := range wire.Tags {
		tags = append(tags, ims.Tag(t))
	}
	return tags, nil
}

// ChangeTags sets tags of an image, or removes them when remove is set, all at once.
func (c *Client) ChangeTags(ctx context.Context, id string, tags []ims.Tag, remove bool) error {
	project, err := c.project()
	if err != nil {
		return err
	}
	action := "create"
	if remove {
		action = "delete"
	}
	wire := []tagJSON{}
	for _, t := range tags {
		wire = append(wire, tagJSON(t))
	}
	_, err = c.do(ctx, http.MethodPost, []string{"v2", project, "images", id, "tags", "action"}, nil, struct {
		Action string    `json:"action"`
		Tags   []tagJSON `json:"tags"`
	}{action, wire})
	return err
}

// Members are the projects that an image is shared with.
func (c *Client) Members(ctx context.Context, id string) ([]wire.Member, error) {
	body, err := c.do(ctx, http.MethodGet, []string{"v2", "images", id, "members"}, nil, nil)
	if err != nil {
		return nil, err
	}
	doc := struct {
		Members []wire.Member `json:"members"`
	}{Members: []wire.Member{}}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("read the members of image %s: %w", id, err)
	}
	return doc.Members, nil
}

// Share shares an image with a project.
func (c *Client) Share(ctx context.Context, id, project string) error {
	_, err := c.do(ctx, http.MethodPost, []string{"v2", "images", id, "members"}, nil, struct {
		Member string `json:"member"`
	}{project})
	return err
}

// Unshare ends that an image is shared with a project.
func (c *Client) Unshare(ctx context.Context, id, project string) error {
	_, err := c.do(ctx, http.MethodDelete, []string{"v2", "images", id, "members", project}, nil, nil)
	return err
}

// Answer says for the caller's own project whether it accepts an image that is shared
// with it: accepted or rejected.
func (c *Client) Answer(ctx context.Context, id, status string) error {
	project, err := c.project()
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPut, []string{"v2", "images", id, "members", project}, nil, struct {
		Status string `json:"status"`
	}{status})
	return err
}

// EnterpriseProject groups images of a tenant.
type EnterpriseProject struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Status      int    `json:"status"` // 1 enabled, 2 disabled
	CreatedAt   string `json:"created_at"`
}

// EnterpriseEnabled is the Status of an enterprise project that takes images.
const EnterpriseEnabled = 1

// EnterpriseProjects lists them.
func (c *Client) EnterpriseProjects(ctx context.Context) ([]EnterpriseProject, error) {
	const page = 1000
	all := []EnterpriseProject{}
	for {
		query := url.Values{"limit": {strconv.Itoa(page)}, "offset": {strconv.Itoa(len(all))}}
		body, err := c.do(ctx, http.MethodGet, []string{"v1.0", "enterprise-projects"}, query, nil)
		if err != nil {
			return nil, err
		}
		var wire struct {
			Projects []EnterpriseProject `json:"enterprise_projects"`
		}
		if err := json.Unmarshal(body, &wire); err != nil {
			return nil, fmt.Errorf("read the enterprise projects: %w", err)
		}
		if all = append(all, wire.Projects...); len(wire.Projects) < page {
			return all, nil
		}
	}
}

// CreateEnterpriseProject makes one.
func (c *Client) CreateEnterpriseProject(ctx context.Context, name, description string) (EnterpriseProject, error) {
	body, err := c.do(ctx, http.MethodPost, []string{"v1.0", "enterprise-projects"}, nil, struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
	}{name, description})
	if err != nil {
		return EnterpriseProject{}, err
	}
	var wire struct {
		Project EnterpriseProject `json:"enterprise_project"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return EnterpriseProject{}, fmt.Errorf("read the enterprise project: %w", err)
	}
	return wire.Project, nil
}
