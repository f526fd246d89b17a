package wire

// Member is a project that an image is shared with. Times are RFC 3339 in UTC.
type Member struct {
	ImageID   string `json:"image_id"`
	MemberID  string `json:"member_id"`
	Status    string `json:"status"`
	Schema    string `json:"schema"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

// Members are the projects that an image is shared with.
type Members struct {
	Members []Member `json:"members"`
	Schema  string   `json:"schema"`
}

// TypedMember is a member as the list by project shows it.
type TypedMember struct {
	Member
	Type string `json:"member_type"`
}

// MemberPage is a page of the list by project.
type MemberPage struct {
	Members []TypedMember  `json:"members"`
	Schema  string         `json:"schema"`
	Page    MemberPageInfo `json:"page_info"`
}

// MemberPageInfo says where the list goes on.
type MemberPageInfo struct {
	NextMarker *string `json:"next_marker"` // null on the last page
	Count      int     `json:"current_count"`
}
