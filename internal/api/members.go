package api

import (
	"errors"
	"net/http"
	"slices"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

func newMember(m ims.Member) wire.Member {
	return wire.Member{
		ImageID: m.ImageID, MemberID: m.ProjectID, Status: string(m.Status), Schema: "/v2/schemas/member",
		CreatedAt: seconds(m.CreatedAt), UpdatedAt: seconds(m.UpdatedAt),
	}
}

// memberFault turns the catalog's answers into the client's.
func memberFault(err error) error {
	if errors.Is(err, catalog.ErrNoMember) {
		return ims.NotFoundf(ims.CodeObjectUnknown, "the image is not shared with this project")
	}
	return imageFault(err)
}

// memberID is the member in the path. What can be no project's id is no member.
func memberID(c *call) (string, error) {
	id := c.PathValue("member_id")
	if !ims.ValidProjectID(id) {
		return "", memberFault(catalog.ErrNoMember)
	}
	return id, nil
}

// answerMember shows one member, or says why not.
func answerMember(c *call, m ims.Member, err error) error {
	if err != nil {
		return memberFault(err)
	}
	writeJSON(c.w, http.StatusOK, newMember(m))
	return nil
}

// ownerAlone is the fault of who sees the image, as a member or since it is public, and
// does what is the owner's. Who does not see the image is told that there is none.
func (s *server) ownerAlone(c *call) error {
	img, _, err := s.visibleImage(c)
	if err != nil || img.ProjectID == c.project() {
		return err
	}
	return ims.Faultf(ims.CodeOwnerOnly, "the image is another project's; this is for its owner alone").WithKind(ims.KindForbidden)
}

// listMembers is GET /v2/images/{image_id}/members: all for the owner, for a member
// itself.
func (s *server) listMembers(c *call) error {
	id, err := imageID(c)
	if err != nil {
		return err
	}
	members, err := s.Catalog.Members(c.Context(), c.project(), id)
	if err != nil {
		return memberFault(err)
	}
	list := []wire.Member{}
	for _, m := range members {
		list = append(list, newMember(m))
	}
	writeJSON(c.w, http.StatusOK, wire.Members{Members: list, Schema: membersSchema})
	return nil
}

const membersSchema = "/v2/schemas/members"

// projectMember is the type of a member: nothing else than projects are members here.
const projectMember = "project"

// pageOfMembers is GET /v1/{project_id}/cloudimages/{image_id}/members: who listMembers
// shows, by pages. The marker is a member's id.
func (s *server) pageOfMembers(c *call) error {
	q := readQuery(c.Request)
	limit, marker := q.number("limit", ims.MaxMembers, 1, ims.MaxListLimit), q.one("marker")
	if q.fault != nil {
		return q.fault
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	members, err := s.Catalog.Members(c.Context(), c.project(), id)
	if err != nil {
		return memberFault(err)
	}
	if marker != "" {
		i := slices.IndexFunc(members, func(m ims.Member) bool { return m.ProjectID == marker })
		if i < 0 {
			return ims.Faultf(ims.CodeBadFormat, "marker is %q; it must be the id of a member of the image", ims.Clip(marker))
		}
		members = members[i+1:]
	}
	page := wire.MemberPage{Members: []wire.TypedMember{}, Schema: membersSchema}
	if len(members) > limit {
		members = members[:limit]
		page.Page.NextMarker = &members[limit-1].ProjectID
	}
	for _, m := range members {
		page.Members = append(page.Members, wire.TypedMember{Member: newMember(m), Type: projectMember})
	}
	page.Page.Count = len(members)
	writeJSON(c.w, http.StatusOK, page)
	return nil
}

// showTypedMember is GET /v1/{project_id}/cloudimages/{image_id}/members/{member_id}.
func (s *server) showTypedMember(c *call) error {
	m, err := s.memberOfPath(c)
	if err != nil {
		return memberFault(err)
	}
	writeJSON(c.w, http.StatusOK, wire.TypedMember{Member: newMember(m), Type: projectMember})
	return nil
}

// memberOfPath is the member that the path names.
func (s *server) memberOfPath(c *call) (ims.Member, error) {
	id, err := imageID(c)
	if err != nil {
		return ims.Member{}, err
	}
	member, err := memberID(c)
	if err != nil {
		return ims.Member{}, err
	}
	return s.Catalog.Member(c.Context(), c.project(), id, member)
}

// addMember is POST /v2/images/{image_id}/members.
func (s *server) addMember(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	member := f.required("member", ims.CodeBadFormat)
	if err := f.failed(); err != nil {
		return err
	}
	if !ims.ValidProjectID(member) {
		return ims.Faultf(ims.CodeBadFormat, "member is %q, it must be the id of a project", ims.Clip(member))
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	m, err := s.Catalog.AddMember(c.Context(), c.project(), c.PathValue("image_id"), member, c.face == faceGlance)
	return answerMember(c, m, err)
}

// showMember is GET /v2/images/{image_id}/members/{member_id}.
func (s *server) showMember(c *call) error {
	m, err := s.memberOfPath(c)
	return answerMember(c, m, err)
}

// updateMember is PUT /v2/images/{image_id}/members/{member_id}. The answer to an offer is
// the member's alone.
func (s *server) updateMember(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	status := ims.MemberStatus(f.required("status", ims.CodeBadFormat))
	f.text("vault_id") // of backups, which are not here
	if err := f.failed(); err != nil {
		return err
	}
	switch status {
	case ims.MemberAccepted, ims.MemberRejected, ims.MemberPending:
	default:
		return ims.Faultf(ims.CodeBadFormat, "status is %q, it must be accepted, rejected or pending", ims.Clip(string(status)))
	}
	member, err := memberID(c)
	if err != nil {
		return err
	}
	img, self, err := s.visibleImage(c)
	if err != nil {
		return err
	}
	if self == nil && img.ProjectID != c.project() {
		return memberFault(catalog.ErrNoMember)
	}
	if self == nil {
		return ims.Faultf(ims.CodeNotAllowed, "whether it accepts an image is for the member to say, not for the image's owner").WithKind(ims.KindForbidden)
	}
	if member != self.ProjectID {
		return memberFault(catalog.ErrNoMember)
	}
	m, err := s.Catalog.SetMemberStatus(c.Context(), c.project(), c.PathValue("image_id"), status)
	return answerMember(c, m, err)
}

// deleteMember is DELETE /v2/images/{image_id}/members/{member_id}.
func (s *server) deleteMember(c *call) error {
	member, err := memberID(c)
	if err != nil {
		return err
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	if err := s.Catalog.DeleteMember(c.Context(), c.project(), c.PathValue("image_id"), member); err != nil {
		return memberFault(err)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
