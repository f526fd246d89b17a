package wire

// Quotas are the limits of a project.
type Quotas struct {
	Quotas struct {
		Resources []Quota `json:"resources"`
	} `json:"quotas"`
}

// Quota is a limit and what of it is used.
type Quota struct {
	Type  string `json:"type"`
	Used  int    `json:"used"`
	Quota int    `json:"quota"`
	Min   int    `json:"min"`
	Max   int    `json:"max"`
}
