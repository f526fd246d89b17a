package wire

// Tag is a tag of an image. Value may be empty.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Tags are the tags of an image, by key.
type Tags struct {
	Tags []Tag `json:"tags"`
}

// TagValues is a key of tags with all its values.
type TagValues struct {
	Key    string   `json:"key"`
	Values []string `json:"values"`
}

// ProjectTags are the tags of a project's images.
type ProjectTags struct {
	Tags []TagValues `json:"tags"`
}

// TagTexts are tags as an image lists them: "key=value", or the bare key.
type TagTexts struct {
	Tags []string `json:"tags"`
}

// TaggedImages is a page of the images that conditions on tags select.
type TaggedImages struct {
	Resources []TaggedImage `json:"resources"`
	Total     int           `json:"total_count"` // on all pages
}

// TaggedImage is an image as a search by tags shows it.
type TaggedImage struct {
	ID     string            `json:"resource_id"`
	Name   string            `json:"resource_name"`
	Detail TaggedImageDetail `json:"resource_detail"`
	Tags   []Tag             `json:"tags"`
}

// TaggedImageDetail is what else such a search shows of an image.
type TaggedImageDetail struct {
	Status string `json:"status"`
}

// TaggedCount is the answer of a search by tags that only counts.
type TaggedCount struct {
	Total int `json:"total_count"`
}
