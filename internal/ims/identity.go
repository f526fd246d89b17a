package ims

import (
	"slices"
	"time"
)

// Role is what a user is in a project.
type Role string

// The roles, weakest last.
const (
	RoleAdmin  Role = "admin"
	RoleMember Role = "member"
	RoleReader Role = "reader"
)

// ValidRole reports whether r is one of the roles.
func ValidRole(r Role) bool { return r == RoleAdmin || r == RoleMember || r == RoleReader }

// Action is a right that a route asks for, in the service's published spelling.
type Action string

// The actions of the routes.
const (
	ActionImagesList   Action = "ims:images:list"
	ActionImagesGet    Action = "ims:images:get"
	ActionImagesUpdate Action = "ims:images:update"
	ActionImagesDelete Action = "ims:images:delete"
	ActionImagesCreate Action = "ims:images:create"
	ActionImagesUpload Action = "ims:images:upload"
	// ActionImagesDeactivate takes an image out of use, and back.
	ActionImagesDeactivate   Action = "ims:images:deactivate"
	ActionServerImagesCreate Action = "ims:serverImages:create"
	ActionDataImagesCreate   Action = "ims:dataImages:create"
	ActionWholeImagesCreate  Action = "ims:wholeImages:create"
	ActionImagesCopy         Action = "ims:images:copy"
	ActionImagesExport       Action = "ims:images:export"
	ActionMembersAdd         Action = "ims:images:addMember"
	ActionMembersUpdate      Action = "ims:images:updateMember"
	ActionMembersDelete      Action = "ims:images:deleteMember"
	// ActionImagesShare is about the members of many images at once.
	ActionImagesShare Action = "ims:images:share"
	ActionQuotasGet   Action = "ims:quotas:get"
	ActionJobsGet     Action = "ims:jobs:get"
	ActionTagsList    Action = "ims:tags:list"
	ActionTagsUpdate  Action = "ims:tags:update"
	ActionEPSList     Action = "eps:enterpriseProjects:list"
	ActionEPSUpdate   Action = "eps:enterpriseProjects:update"
	// ActionNone marks a route that any authenticated caller may use.
	ActionNone Action = ""
)

// readerActions is what looking without touching takes.
var readerActions = []Action{
	ActionImagesList, ActionImagesGet, ActionQuotasGet, ActionJobsGet, ActionTagsList, ActionEPSList,
}

// memberActions is what a project's daily work takes besides.
var memberActions = []Action{
	ActionImagesUpdate, ActionImagesDelete, ActionImagesCreate, ActionImagesUpload, ActionServerImagesCreate, ActionDataImagesCreate, ActionWholeImagesCreate, ActionImagesCopy, ActionImagesExport, ActionTagsUpdate,
	ActionMembersAdd, ActionMembersUpdate, ActionMembersDelete, ActionImagesShare,
}

// Allows reports whether the role carries the action. An admin has every right in
// its project, enterprise projects among them.
func (r Role) Allows(a Action) bool {
	switch r {
	case RoleAdmin:
		return true
	case RoleMember:
		return a == ActionNone || slices.Contains(readerActions, a) || slices.Contains(memberActions, a)
	case RoleReader:
		return a == ActionNone || slices.Contains(readerActions, a)
	}
	return false
}

// Weaker reports whether the role lacks a right that the other has.
func (r Role) Weaker(other Role) bool {
	order := []Role{RoleReader, RoleMember, RoleAdmin}
	return slices.Index(order, r) < slices.Index(order, other)
}

// Principal is an authenticated caller in the scope of its credential.
type Principal struct {
	UserID, UserName     string
	DomainID, DomainName string
	// Tenant is whose enterprise projects the caller shares: the domain's or, where
	// projects share a domain that is none of theirs, the project's; "" for none.
	Tenant string
	// ProjectID is the project in scope, "" for a domain-scoped or unscoped token.
	ProjectID, ProjectName string
	Roles                  []Role
	// Credential is what the caller proved itself with.
	Credential Credential
}

// Credential names what opened an access: a token or an access key. It holds no secret.
type Credential struct {
	TokenHash    string // "" for a signed request
	TokenExpires time.Time
	AccessKey    string // "" for a request with a token
	Application  string // the application credential that a token was made with, "" for none
	Outside      bool   // an outside Keystone issued the token
}

// Ended names accesses whose grant has ended: those for which all of the fields that are
// set are true. At least one is set.
type Ended struct {
	UserID, ProjectID string
	// AccessKey is the key that they were opened with.
	AccessKey string
	// TokenHashes are the tokens that they were opened with, one of them each.
	TokenHashes []string
}

// IsAdmin reports whether the caller is an admin of its project.
func (p Principal) IsAdmin() bool { return slices.Contains(p.Roles, RoleAdmin) }

// May reports whether one of the caller's roles carries the action.
func (p Principal) May(a Action) bool {
	return slices.ContainsFunc(p.Roles, func(r Role) bool { return r.Allows(a) })
}

// Party is whose share of connections, places and memory the caller uses: the project
// in scope or, without one, the user.
func (p Principal) Party() string {
	if p.ProjectID == "" {
		return "user " + p.UserID
	}
	return p.ProjectID
}

// MaxEnterpriseProjects is how many enterprise projects a tenant may make.
const MaxEnterpriseProjects = 100

// EnterpriseProject groups images of a tenant.
type EnterpriseProject struct {
	ID          string // UUID, or DefaultEnterpriseProject
	DomainID    string // the tenant, see Principal.Tenant
	Name        string // 1-64 characters
	Description string // at most 512 characters
	Enabled     bool
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// DefaultEnterpriseProject is the one that every domain has.
const DefaultEnterpriseProject = "0"

// AllEnterpriseProjects as a filter means no filter.
const AllEnterpriseProjects = "all_granted_eps"
