package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// The schemas tell clients what keys an image has. glanceclient validates against them
// what it is about to send and what it read; a key that they do not declare must be a
// string. Keys such as hw_disk_bus are not declared: a client would take them for keys
// of the image itself.

// property describes a key.
type property map[string]any

func describe(kind, text string) property { return property{"type": kind, "description": text} }

// nullable describes a key that may be null.
func nullable(kind, text string) property {
	return property{"type": []string{"null", kind}, "description": text}
}

func (p property) with(key string, value any) property { p[key] = value; return p }

func (p property) readOnly() property { return p.with("readOnly", true) }

func (p property) oneOf(values []string) property {
	enum := []any{}
	if _, ok := p["type"].([]string); ok {
		enum = append(enum, nil)
	}
	for _, v := range values {
		enum = append(enum, v)
	}
	return p.with("enum", enum)
}

func list(items property, text string) property {
	return property{"type": "array", "items": items, "description": text}
}

// Values that the Image API names.
var (
	visibilities   = []string{"community", "public", "private", "shared"}
	glanceStatuses = []string{"queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"}
)

// glanceProperties are the keys of glanceImage.
func glanceProperties() map[string]property {
	return map[string]property{
		"id":               describe("string", "The image's id, a UUID.").with("pattern", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
		"name":             nullable("string", "The name.").with("maxLength", 255),
		"status":           describe("string", "The state.").oneOf(glanceStatuses).readOnly(),
		"visibility":       describe("string", "Who sees the image.").oneOf(visibilities),
		"protected":        describe("boolean", "Whether the image can not be deleted."),
		"os_hidden":        describe("boolean", "Whether lists leave the image out unless they ask for it."),
		"owner":            nullable("string", "The project that the image belongs to.").with("maxLength", 255),
		"disk_format":      nullable("string", "The format of the disk.").oneOf(ims.DiskFormats),
		"container_format": nullable("string", "The format of the container.").oneOf(ims.ContainerFormats),
		"size":             nullable("integer", "Bytes of a download.").readOnly(),
		"virtual_size":     nullable("integer", "Bytes of the disk.").readOnly(),
		"checksum":         nullable("string", "MD5 of a download, in hexadecimal digits.").with("maxLength", 32).readOnly(),
		"os_hash_algo":     nullable("string", "The algorithm of os_hash_value.").with("maxLength", 64).readOnly(),
		"os_hash_value":    nullable("string", "Hash of a download, in hexadecimal digits.").with("maxLength", 128).readOnly(),
		"min_disk":         describe("integer", "The least disk of a machine, GiB."),
		"min_ram":          describe("integer", "The least memory of a machine, MiB."),
		"tags":             list(describe("string", "A tag.").with("maxLength", ims.MaxOpenStackTag), "Texts by which images can be found."),
		"created_at":       describe("string", "When the image was made, UTC.").readOnly(),
		"updated_at":       describe("string", "When the image was changed last, UTC.").readOnly(),
		"self":             describe("string", "The path of the image.").readOnly(),
		"file":             describe("string", "The path of the image's data.").readOnly(),
		"schema":           describe("string", "The path of this schema.").readOnly(),
	}
}

// imsProperties are the keys of wire.Image.
func imsProperties() map[string]property {
	all := glanceProperties()
	for _, name := range []string{"os_hidden", "os_hash_algo", "os_hash_value"} {
		delete(all, name)
	}
	for _, a := range ims.Attributes {
		p := nullable(a.JSONType, "An attribute of the image.")
		switch old, ok := all[a.Name]; {
		case a.JSONType == "array of strings":
			continue
		case ok && a.Name != "disk_format": // it is the stored format, which no enumeration of OpenStack's has
			p = old
		case !a.Patchable:
			p.readOnly()
		}
		all[a.Name] = p
	}
	all["license_type"] = nullable("string", "The licence of the system.").readOnly()
	return all
}

func memberProperties() map[string]property {
	return map[string]property{
		"image_id":   describe("string", "The image."),
		"member_id":  describe("string", "The project that it is shared with."),
		"status":     describe("string", "What the project answered.").oneOf([]string{"pending", "accepted", "rejected"}),
		"created_at": describe("string", "When the image was shared, UTC."),
		"updated_at": describe("string", "When the status changed last, UTC."),
		"schema":     describe("string", "The path of this schema.").readOnly(),
	}
}

func taskProperties() map[string]property {
	return map[string]property{
		"id":         describe("string", "The task's id."),
		"type":       describe("string", "What it does.").oneOf([]string{"import", "api_image_import"}),
		"status":     describe("string", "How far it is.").oneOf([]string{"pending", "processing", "success", "failure"}),
		"owner":      describe("string", "The project that it belongs to."),
		"input":      nullable("object", "What it was asked for."),
		"result":     nullable("object", "What came of it."),
		"message":    describe("string", "Why it failed."),
		"image_id":   nullable("string", "The image that it makes."),
		"created_at": describe("string", "When it began, UTC."),
		"updated_at": describe("string", "When it changed last, UTC."),
		"expires_at": nullable("string", "When it is forgotten, UTC."),
		"self":       describe("string", "The path of the task.").readOnly(),
		"schema":     describe("string", "The path of this schema.").readOnly(),
	}
}

// schemaOf writes the schema of one thing, or of a list of them.
func schemaOf(name string, properties map[string]property, extend bool) map[string]any {
	s := map[string]any{"name": name, "properties": properties}
	if extend {
		s["additionalProperties"] = map[string]string{"type": "string"}
		s["links"] = []map[string]string{{"href": "{self}", "rel": "self"}, {"href": "{file}", "rel": "enclosure"}, {"href": "{schema}", "rel": "describedby"}}
	}
	return s
}

func schemaOfList(name string, item map[string]any) map[string]any {
	return map[string]any{
		"name": name,
		"properties": map[string]any{
			name:     map[string]any{"type": "array", "items": item},
			"schema": map[string]string{"type": "string"}, "first": map[string]string{"type": "string"}, "next": map[string]string{"type": "string"},
		},
		"links": []map[string]string{{"href": "{first}", "rel": "first"}, {"href": "{next}", "rel": "next"}, {"href": "{schema}", "rel": "describedby"}},
	}
}

// schema is GET /v2/schemas/{schema}, of both faces.
func (s *server) schema(c *call) error {
	images := imsProperties
	if c.face == faceGlance {
		images = glanceProperties
	}
	var doc map[string]any
	switch name := c.PathValue("schema"); name {
	case "image":
		doc = schemaOf(name, images(), true)
	case "images":
		doc = schemaOfList(name, schemaOf("image", images(), true))
	case "member":
		doc = schemaOf(name, memberProperties(), false)
	case "members":
		doc = schemaOfList(name, schemaOf("member", memberProperties(), false))
	case "task":
		doc = schemaOf(name, taskProperties(), false)
	case "tasks":
		doc = schemaOfList(name, schemaOf("task", taskProperties(), false))
	default:
		return unknownSchema()
	}
	writeJSON(c.w, http.StatusOK, doc)
	return nil
}

func unknownSchema() *ims.Error {
	return ims.NotFoundf(ims.CodeObjectUnknown, "there is no schema of this name")
}

// metadefSchemas are those of the catalogue of metadata definitions, which is empty here:
// the list's name for a list, "" for a thing.
var metadefSchemas = map[string]string{
	"namespace": "", "namespaces": "namespaces", "resource_type": "", "resource_types": "resource_type_associations",
	"property": "", "properties": "properties", "object": "", "objects": "objects", "tag": "", "tags": "tags",
}

// metadefSchema is GET /image/v2/schemas/metadefs/{schema}.
func (s *server) metadefSchema(c *call) error {
	name := c.PathValue("schema")
	items, ok := metadefSchemas[name]
	if !ok {
		return unknownSchema()
	}
	thing := map[string]property{
		"name":       describe("string", "The name.").with("maxLength", 80),
		"created_at": describe("string", "When it was made, UTC.").readOnly(),
		"updated_at": describe("string", "When it was changed last, UTC.").readOnly(),
	}
	if name == "namespace" || name == "namespaces" {
		thing["namespace"] = thing["name"]
		delete(thing, "name")
		maps.Copy(thing, map[string]property{
			"display_name": describe("string", "The name to show."), "description": describe("string", "What it is for."),
			"visibility": describe("string", "Who sees it.").oneOf([]string{"public", "private"}),
			"protected":  describe("boolean", "Whether it can not be deleted."), "owner": describe("string", "The project that it belongs to."),
			"schema": describe("string", "The path of this schema.").readOnly(), "self": describe("string", "The path.").readOnly(),
		})
	}
	called := strings.Replace(name, "resource_type", "resource_type_association", 1)
	doc := schemaOf(called, thing, false)
	if items != "" {
		doc = schemaOfList(items, doc)
		doc["name"] = called
	}
	writeJSON(c.w, http.StatusOK, doc)
	return nil
}

// metadefNamespaces is GET /image/v2/metadefs/namespaces: there are none.
func (s *server) metadefNamespaces(c *call) error {
	writeJSON(c.w, http.StatusOK, map[string]any{
		"namespaces": []any{}, "schema": "/v2/schemas/metadefs/namespaces", "first": "/v2/metadefs/namespaces",
	})
	return nil
}

// metadefResourceTypes is GET /image/v2/metadefs/resource_types: there are none.
func (s *server) metadefResourceTypes(c *call) error {
	writeJSON(c.w, http.StatusOK, map[string]any{"resource_types": []any{}})
	return nil
}

// declaredKeys are the names of glanceImage's fields, sorted.
var declaredKeys = slices.Sorted(maps.Keys(glanceProperties()))
