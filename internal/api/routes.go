package api

import (
	"net/http"
	"slices"

	"github.com/quickims/quickims/internal/ims"
)

// Scope is what a route's caller must act for.
type Scope int

// The scopes, each including what it takes to pass.
const (
	ScopeNone        Scope = iota // any credential
	ScopeDomain                   // a credential of a domain: every one with a role
	ScopeProject                  // a credential of a project
	ScopePathProject              // a credential of the project that the path names
)

// Route is one method of one path.
type Route struct {
	Method string
	// Path is the pattern; {name} stands for one segment.
	Path string
	// Public routes ask for no credentials.
	Public bool
	Scope  Scope
	// Actions are the rights of which the caller needs one; none: every caller may.
	Actions []ims.Action
	// face is how the answer is spelt.
	face face
	// Stream marks an answer that may take as long as it takes.
	Stream bool
	// Upload marks a request whose handler reads the body itself, however long it is.
	Upload bool

	// own handlers ask for the credentials themselves and write their own errors.
	own    bool
	handle func(*server, *call) error
}

// Routes is the table of all routes: what is not here is answered with a 404, or with
// a 405 where only the method is not. A GET answers HEAD as well, unless the table has
// a HEAD of its own.
func Routes() []Route {
	return slices.Concat(operationRoutes, discoveryRoutes, importRoutes, imageRoutes, glanceRoutes, memberRoutes, attachmentRoutes, tagRoutes, enterpriseRoutes, keystoneRoutes())
}

// rights is a list of actions of which one is enough.
func rights(a ...ims.Action) []ims.Action { return a }

var operationRoutes = []Route{
	{Method: http.MethodGet, Path: "/healthz", Public: true, handle: (*server).healthz},
	{Method: http.MethodGet, Path: "/readyz", Public: true, handle: (*server).readyz},
	{Method: http.MethodGet, Path: "/openapi.yaml", Public: true, handle: (*server).openAPI},
}

var discoveryRoutes = []Route{
	{Method: http.MethodGet, Path: "/image", Public: true, handle: (*server).imageVersions},
	{Method: http.MethodGet, Path: "/image/", Public: true, handle: (*server).imageVersions},
	{Method: http.MethodGet, Path: "/image/versions", Public: true, handle: (*server).imageVersions},
	{Method: http.MethodGet, Path: "/image/v2", Public: true, handle: (*server).imageVersions},
	{Method: http.MethodGet, Path: "/image/v2/", Public: true, handle: (*server).imageVersions},
	{Method: http.MethodGet, Path: "/versions", Public: true, handle: (*server).bareVersions},
	{Method: http.MethodGet, Path: "/v2", Public: true, handle: (*server).bareVersions},
	{Method: http.MethodGet, Path: "/v2/", Public: true, handle: (*server).bareVersions},
}

// importRoutes make images, and files of them. /v2.1 is the same as the version whose body it has.
var importRoutes = []Route{
	{Method: http.MethodPost, Path: "/v2/cloudimages/quickimport/action", Scope: ScopeProject, Actions: anyImport, handle: (*server).quickImport},
	{Method: http.MethodPost, Path: "/v2.1/cloudimages/quickimport/action", Scope: ScopeProject, Actions: anyImport, handle: (*server).quickImport},
	{Method: http.MethodPost, Path: "/v2/cloudimages/action", Scope: ScopeProject, Actions: anyImport, handle: (*server).commonImport},
	{Method: http.MethodPost, Path: "/v2.1/cloudimages/action", Scope: ScopeProject, Actions: anyImport, handle: (*server).commonImport},
	{Method: http.MethodPost, Path: "/v1/cloudimages/action", Scope: ScopeProject,
		Actions: rights(ims.ActionDataImagesCreate), handle: (*server).plainDataImport},
	{Method: http.MethodPost, Path: "/v1/cloudimages/dataimages/action", Scope: ScopeProject,
		Actions: rights(ims.ActionDataImagesCreate), handle: (*server).dataImport},
	{Method: http.MethodPost, Path: "/v2.1/cloudimages/dataimages/action", Scope: ScopeProject,
		Actions: rights(ims.ActionDataImagesCreate), handle: (*server).dataImport},
	{Method: http.MethodPost, Path: "/v1/cloudimages/wholeimages/action", Scope: ScopeProject,
		Actions: rights(ims.ActionWholeImagesCreate), handle: (*server).wholeImage},
	{Method: http.MethodPost, Path: "/v2/images", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesCreate), handle: (*server).createImage},
	{Method: http.MethodPut, Path: "/v2/images/{image_id}/file", Scope: ScopeProject, Stream: true, Upload: true,
		Actions: rights(ims.ActionImagesUpload), handle: (*server).uploadFile},
	{Method: http.MethodPut, Path: "/v1/cloudimages/{image_id}/upload", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesUpload), handle: (*server).register},
	{Method: http.MethodPost, Path: "/v1/cloudimages/{image_id}/copy", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesCopy), handle: (*server).copyImage},
	{Method: http.MethodPost, Path: "/v2.1/cloudimages/{image_id}/copy", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesCopy), handle: (*server).copyImage},
	{Method: http.MethodPost, Path: "/v1/cloudimages/{image_id}/cross_region_copy", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesCopy), handle: (*server).copyAcrossRegions},
	{Method: http.MethodPost, Path: "/v1/cloudimages/{image_id}/file", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesExport), handle: (*server).exportImage},
	{Method: http.MethodPost, Path: "/v2.1/cloudimages/{image_id}/file", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesExport), handle: (*server).exportImage},
}

// anyImport are the rights of which an import takes one; which of them, its body says.
var anyImport = rights(ims.ActionServerImagesCreate, ims.ActionDataImagesCreate)

var imageRoutes = []Route{
	{Method: http.MethodGet, Path: "/v1/{project_id}/jobs/{job_id}", Scope: ScopePathProject,
		Actions: rights(ims.ActionJobsGet), handle: (*server).job},
	{Method: http.MethodGet, Path: "/v1/{project_id}/jobs", Scope: ScopePathProject,
		Actions: rights(ims.ActionJobsGet), handle: (*server).listJobs},
	{Method: http.MethodGet, Path: "/v1/cloudimages/job/{job_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionJobsGet), handle: (*server).job},
	{Method: http.MethodGet, Path: "/v2/cloudimages", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesList), handle: (*server).listImages},
	{Method: http.MethodPatch, Path: "/v2/cloudimages/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesUpdate), handle: (*server).patchImage},
	{Method: http.MethodPatch, Path: "/v2/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesUpdate), handle: (*server).patchNative},
	{Method: http.MethodGet, Path: "/v2/images", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesList), handle: (*server).pageOfImages},
	{Method: http.MethodGet, Path: "/v2/schemas/{schema}", handle: (*server).schema},
	{Method: http.MethodGet, Path: "/v2/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).showImage},
	{Method: http.MethodDelete, Path: "/v2/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesDelete), handle: (*server).deleteImage},
	{Method: http.MethodGet, Path: "/v2/images/{image_id}/file", Scope: ScopeProject, Stream: true,
		Actions: rights(ims.ActionImagesGet), handle: (*server).imageFile},
	{Method: http.MethodGet, Path: "/v1.1/images/detail", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesList), handle: (*server).listOldImages},
	{Method: http.MethodHead, Path: "/v1/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).headImage},
	{Method: http.MethodDelete, Path: "/v1.1/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesDelete), handle: (*server).deleteImage},
	{Method: http.MethodGet, Path: "/v1/cloudimages/quota", Scope: ScopeProject,
		Actions: rights(ims.ActionQuotasGet), handle: (*server).quota},
	{Method: http.MethodGet, Path: "/v1/cloudimages/os_version", handle: (*server).osVersions},
}

// glanceRoutes are the OpenStack Image API. The calls that are the same in IMS stand here
// again: their answers differ.
var glanceRoutes = onFace(faceGlance, []Route{
	{Method: http.MethodGet, Path: "/image/v2/images", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesList), handle: (*server).pageOfImages},
	{Method: http.MethodPost, Path: "/image/v2/images", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesCreate), handle: (*server).createGlanceImage},
	{Method: http.MethodPatch, Path: "/image/v2/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesUpdate), handle: (*server).patchGlanceImage},
	{Method: http.MethodPut, Path: "/image/v2/images/{image_id}/tags/{tag}", Scope: ScopeProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).putGlanceTag},
	{Method: http.MethodDelete, Path: "/image/v2/images/{image_id}/tags/{tag}", Scope: ScopeProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).deleteTag},
	{Method: http.MethodPost, Path: "/image/v2/images/{image_id}/actions/deactivate", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesDeactivate), handle: (*server).deactivateImage},
	{Method: http.MethodPost, Path: "/image/v2/images/{image_id}/actions/reactivate", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesDeactivate), handle: (*server).reactivateImage},
	{Method: http.MethodPut, Path: "/image/v2/images/{image_id}/file", Scope: ScopeProject, Stream: true, Upload: true,
		Actions: rights(ims.ActionImagesUpload), handle: (*server).uploadFile},
	{Method: http.MethodPut, Path: "/image/v2/images/{image_id}/stage", Scope: ScopeProject, Stream: true, Upload: true,
		Actions: rights(ims.ActionImagesUpload), handle: (*server).stageFile},
	{Method: http.MethodPost, Path: "/image/v2/images/{image_id}/import", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesUpload), handle: (*server).importGlance},
	{Method: http.MethodGet, Path: "/image/v2/images/{image_id}/tasks", Scope: ScopeProject,
		Actions: rights(ims.ActionJobsGet), handle: (*server).imageTasks},
	{Method: http.MethodGet, Path: "/image/v2/tasks", Scope: ScopeProject,
		Actions: rights(ims.ActionJobsGet), handle: (*server).listTasks},
	{Method: http.MethodGet, Path: "/image/v2/tasks/{task_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionJobsGet), handle: (*server).showTask},
	{Method: http.MethodGet, Path: "/image/v2/info/import", handle: (*server).importInfo},
	{Method: http.MethodGet, Path: "/image/v2/info/stores", handle: (*server).storesInfo},
	{Method: http.MethodGet, Path: "/image/v2/info/usage", Scope: ScopeProject,
		Actions: rights(ims.ActionQuotasGet), handle: (*server).usageInfo},
	{Method: http.MethodGet, Path: "/image/v2/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).showImage},
	{Method: http.MethodDelete, Path: "/image/v2/images/{image_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesDelete), handle: (*server).deleteImage},
	{Method: http.MethodGet, Path: "/image/v2/images/{image_id}/file", Scope: ScopeProject, Stream: true,
		Actions: rights(ims.ActionImagesGet), handle: (*server).imageFile},
	{Method: http.MethodGet, Path: "/image/v2/images/{image_id}/members", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).listMembers},
	{Method: http.MethodPost, Path: "/image/v2/images/{image_id}/members", Scope: ScopeProject,
		Actions: rights(ims.ActionMembersAdd), handle: (*server).addMember},
	{Method: http.MethodGet, Path: "/image/v2/images/{image_id}/members/{member_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).showMember},
	{Method: http.MethodPut, Path: "/image/v2/images/{image_id}/members/{member_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionMembersUpdate), handle: (*server).updateMember},
	{Method: http.MethodDelete, Path: "/image/v2/images/{image_id}/members/{member_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionMembersDelete), handle: (*server).deleteMember},
	{Method: http.MethodGet, Path: "/image/v2/schemas/{schema}", handle: (*server).schema},
	{Method: http.MethodGet, Path: "/image/v2/schemas/metadefs/{schema}", handle: (*server).metadefSchema},
	{Method: http.MethodGet, Path: "/image/v2/metadefs/namespaces", handle: (*server).metadefNamespaces},
	{Method: http.MethodGet, Path: "/image/v2/metadefs/resource_types", handle: (*server).metadefResourceTypes},
})

// onFace gives the routes their face.
func onFace(f face, routes []Route) []Route {
	for i := range routes {
		routes[i].face = f
	}
	return routes
}

var memberRoutes = []Route{
	{Method: http.MethodGet, Path: "/v2/images/{image_id}/members", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).listMembers},
	{Method: http.MethodPost, Path: "/v2/images/{image_id}/members", Scope: ScopeProject,
		Actions: rights(ims.ActionMembersAdd), handle: (*server).addMember},
	{Method: http.MethodGet, Path: "/v2/images/{image_id}/members/{member_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).showMember},
	{Method: http.MethodPut, Path: "/v2/images/{image_id}/members/{member_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionMembersUpdate), handle: (*server).updateMember},
	{Method: http.MethodDelete, Path: "/v2/images/{image_id}/members/{member_id}", Scope: ScopeProject,
		Actions: rights(ims.ActionMembersDelete), handle: (*server).deleteMember},
	{Method: http.MethodPost, Path: "/v1/cloudimages/members", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesShare), handle: (*server).addMembers},
	{Method: http.MethodPut, Path: "/v1/cloudimages/members", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesShare), handle: (*server).updateMembers},
	{Method: http.MethodDelete, Path: "/v1/cloudimages/members", Scope: ScopeProject,
		Actions: rights(ims.ActionImagesShare), handle: (*server).deleteMembers},
	{Method: http.MethodGet, Path: "/v1/{project_id}/cloudimages/{image_id}/members", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).pageOfMembers},
	{Method: http.MethodGet, Path: "/v1/{project_id}/cloudimages/{image_id}/members/{member_id}", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).showTypedMember},
}

var attachmentRoutes = []Route{
	{Method: http.MethodPost, Path: "/v1/{project_id}/attachments", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).attach},
	{Method: http.MethodGet, Path: "/v1/{project_id}/attachments", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).listAttachments},
	{Method: http.MethodGet, Path: "/v1/{project_id}/attachments/{attachment_id}", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).showAttachment},
	{Method: http.MethodPatch, Path: "/v1/{project_id}/attachments/{attachment_id}", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).renewAttachment},
	{Method: http.MethodDelete, Path: "/v1/{project_id}/attachments/{attachment_id}", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesGet), handle: (*server).detach},
}

var tagRoutes = []Route{
	{Method: http.MethodGet, Path: "/v2/{project_id}/images/{image_id}/tags", Scope: ScopePathProject,
		Actions: rights(ims.ActionTagsList), handle: (*server).imageTags},
	{Method: http.MethodPost, Path: "/v2/{project_id}/images/{image_id}/tags", Scope: ScopePathProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).addImageTag},
	{Method: http.MethodPost, Path: "/v2/{project_id}/images/{image_id}/tags/action", Scope: ScopePathProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).batchImageTags},
	{Method: http.MethodDelete, Path: "/v2/{project_id}/images/{image_id}/tags/{key}", Scope: ScopePathProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).deleteImageTag},
	{Method: http.MethodGet, Path: "/v2/{project_id}/images/tags", Scope: ScopePathProject,
		Actions: rights(ims.ActionTagsList), handle: (*server).projectTags},
	{Method: http.MethodPost, Path: "/v2/{project_id}/images/resource_instances/action", Scope: ScopePathProject,
		Actions: rights(ims.ActionImagesList), handle: (*server).searchByTags},
	{Method: http.MethodGet, Path: "/v1/cloudimages/tags", Scope: ScopeProject,
		Actions: rights(ims.ActionTagsList), handle: (*server).listTags},
	{Method: http.MethodPut, Path: "/v1/cloudimages/tags", Scope: ScopeProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).setTag},
	{Method: http.MethodDelete, Path: "/v1/{project_id}/cloudimages/{image_id}/tags/delete", Scope: ScopePathProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).deleteImageTags},
	{Method: http.MethodPut, Path: "/v2/images/{image_id}/tags/{tag}", Scope: ScopeProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).putImageTag},
	{Method: http.MethodDelete, Path: "/v2/images/{image_id}/tags/{tag}", Scope: ScopeProject,
		Actions: rights(ims.ActionTagsUpdate), handle: (*server).deleteTag},
}

var enterpriseRoutes = []Route{
	{Method: http.MethodGet, Path: "/v1.0/enterprise-projects", Scope: ScopeDomain,
		Actions: rights(ims.ActionEPSList), handle: (*server).listEnterpriseProjects},
	{Method: http.MethodPost, Path: "/v1.0/enterprise-projects", Scope: ScopeDomain,
		Actions: rights(ims.ActionEPSUpdate), handle: (*server).createEnterpriseProject},
	{Method: http.MethodGet, Path: "/v1.0/enterprise-projects/{enterprise_project_id}", Scope: ScopeDomain,
		Actions: rights(ims.ActionEPSList), handle: (*server).showEnterpriseProject},
	{Method: http.MethodPut, Path: "/v1.0/enterprise-projects/{enterprise_project_id}", Scope: ScopeDomain,
		Actions: rights(ims.ActionEPSUpdate), handle: (*server).updateEnterpriseProject},
	{Method: http.MethodPost, Path: "/v1.0/enterprise-projects/{enterprise_project_id}/resources-migrate", Scope: ScopeDomain,
		Actions: rights(ims.ActionImagesUpdate), handle: (*server).migrateResource},
	{Method: http.MethodPost, Path: "/v1.0/enterprise-projects/{enterprise_project_id}/resources/filter", Scope: ScopeDomain,
		Actions: rights(ims.ActionEPSList), handle: (*server).filterResources},
}

// admit checks that the caller acts for what the route is about and has a right to
// it. The caller's project comes first: a right in another project counts nothing.
func (r *Route) admit(c *call) error {
	p := c.principal
	switch {
	case r.Scope == ScopePathProject && (p.ProjectID == "" || c.PathValue("project_id") != p.ProjectID):
		return ims.Faultf(ims.CodeProjectMismatch, "the project in the path is not the project of the credentials")
	case r.Scope == ScopeProject && p.ProjectID == "":
		return ims.Faultf(ims.CodeProjectMismatch, "the credentials are not for a project: ask for a token with a project as its scope")
	case r.Scope == ScopeDomain && p.Tenant == "":
		return ims.Faultf(ims.CodeProjectMismatch, "the credentials do not say whose enterprise projects are meant: ask for a token with a project as its scope")
	case len(r.Actions) > 0 && !slices.ContainsFunc(r.Actions, p.May):
		return forbidden(r.Actions[0])
	}
	return nil
}

func forbidden(a ims.Action) error {
	return ims.Faultf(ims.CodeForbidden, "no role of the caller carries the action %s", a)
}
