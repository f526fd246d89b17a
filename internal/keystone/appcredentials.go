package keystone

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// appCredentialEntry is an application credential as clients read it. Secret is there
// once, in the answer to its creation.
type appCredentialEntry struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Description  string            `json:"description"`
	ProjectID    string            `json:"project_id"`
	UserID       string            `json:"user_id"`
	Roles        []named           `json:"roles"`
	Unrestricted bool              `json:"unrestricted"`
	ExpiresAt    *string           `json:"expires_at"`
	Secret       string            `json:"secret,omitempty"`
	Links        map[string]string `json:"links"`
}

func (h *Handlers) appCredentialEntry(r *http.Request, a identity.ApplicationCredential) appCredentialEntry {
	e := appCredentialEntry{
		ID: a.ID, Name: a.Name, Description: a.Description, ProjectID: a.ProjectID, UserID: a.UserID, Unrestricted: a.Unrestricted,
		Links: map[string]string{"self": h.Root(r) + "/v3/users/" + a.UserID + "/application_credentials/" + a.ID},
	}
	for _, role := range a.Roles {
		e.Roles = append(e.Roles, named{ID: string(role), Name: string(role)})
	}
	if !a.ExpiresAt.IsZero() {
		text := a.ExpiresAt.UTC().Format("2006-01-02T15:04:05.000000") // clients read it without a zone, as Keystone writes it
		e.ExpiresAt = &text
	}
	return e
}

// own runs f for the user that the path names, which must be the caller.
func (h *Handlers) own(w http.ResponseWriter, r *http.Request, f func(ctx context.Context, caller ims.Principal, body []byte) (answer, error)) {
	h.withBody(w, r, func(ctx context.Context, caller ims.Principal, body []byte) (answer, error) {
		if r.PathValue("user_id") != caller.UserID {
			return answer{}, ims.Faultf(ims.CodeForbidden, "Application credentials are their own user's alone.").WithKind(ims.KindForbidden)
		}
		a, err := f(ctx, caller, body)
		switch {
		case errors.Is(err, identity.ErrNotFound):
			err = notFound("application credential")
		case errors.Is(err, identity.ErrExists):
			err = ims.Faultf(ims.CodeConflict, "The user has an application credential of this name.").WithKind(ims.KindConflict)
		case errors.Is(err, identity.ErrInvalid):
			err = badRequestf("%s.", err.Error())
		}
		return a, err
	})
}

// CreateAppCredential answers POST /v3/users/{user_id}/application_credentials.
func (h *Handlers) CreateAppCredential(w http.ResponseWriter, r *http.Request) {
	h.own(w, r, func(ctx context.Context, caller ims.Principal, body []byte) (answer, error) {
		var a identity.ApplicationCredential
		var secret, expires string
		err := readBody(body, map[string]value{"application_credential": object(map[string]value{
			"name": text(&a.Name), "description": text(&a.Description), "secret": text(&secret), "expires_at": text(&expires),
			"unrestricted": boolean(&a.Unrestricted), "roles": roleList(&a.Roles), "access_rules": noRules,
		})})
		if err != nil {
			return answer{}, err
		}
		if expires != "" {
			if a.ExpiresAt, err = parseTime(expires); err != nil {
				return answer{}, badRequestf("application_credential.expires_at must be a time such as 2030-01-31T08:00:00.")
			}
		}
		a, secret, err = h.identity.CreateApplicationCredential(ctx, caller, a, secret)
		if err != nil {
			return answer{}, err
		}
		e := h.appCredentialEntry(r, a)
		e.Secret = secret
		return answer{status: http.StatusCreated, body: map[string]any{"application_credential": e}}, nil
	})
}

// AppCredentials answers GET /v3/users/{user_id}/application_credentials, filtered by name.
func (h *Handlers) AppCredentials(w http.ResponseWriter, r *http.Request) {
	h.own(w, r, func(ctx context.Context, caller ims.Principal, _ []byte) (answer, error) {
		all, err := h.identity.ApplicationCredentials(ctx, caller.UserID)
		if err != nil {
			return answer{}, err
		}
		list := []appCredentialEntry{}
		for _, a := range all {
			if admits(r.URL.Query(), map[string]string{"name": a.Name}) {
				list = append(list, h.appCredentialEntry(r, a))
			}
		}
		return answer{status: http.StatusOK, body: map[string]any{"application_credentials": list, "links": h.links(r, r.URL.Path)}}, nil
	})
}

// AppCredential answers GET /v3/users/{user_id}/application_credentials/{credential_id}.
func (h *Handlers) AppCredential(w http.ResponseWriter, r *http.Request) {
	h.own(w, r, func(ctx context.Context, caller ims.Principal, _ []byte) (answer, error) {
		a, err := h.identity.ApplicationCredential(ctx, caller.UserID, r.PathValue("credential_id"))
		if err != nil {
			return answer{}, err
		}
		return answer{status: http.StatusOK, body: map[string]any{"application_credential": h.appCredentialEntry(r, a)}}, nil
	})
}

// DeleteAppCredential answers DELETE /v3/users/{user_id}/application_credentials/{credential_id}.
func (h *Handlers) DeleteAppCredential(w http.ResponseWriter, r *http.Request) {
	h.own(w, r, func(ctx context.Context, caller ims.Principal, _ []byte) (answer, error) {
		err := h.identity.DeleteApplicationCredential(ctx, caller, r.PathValue("credential_id"))
		return answer{status: http.StatusNoContent}, err
	})
}

// parseTime reads the forms in which clients write a time, in UTC where no zone is given.
func parseTime(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("no time")
}

// roleList reads an array of {id} or {name}, which are the same here.
func roleList(into *[]ims.Role) value {
	return func(r reader, name string) error {
		t, err := r.token()
		if err != nil || t == nil {
			return err
		}
		if t != json.Delim('[') {
			return mismatch(name, "an array of roles")
		}
		for r.dec.More() {
			var id, called string
			if err := object(map[string]value{"id": text(&id), "name": text(&called)})(r, name); err != nil {
				return err
			}
			if id == "" {
				id = called
			}
			if *into = append(*into, ims.Role(id)); len(*into) > 8 {
				return badRequestf("%s holds more than 8.", name)
			}
		}
		_, err = r.token()
		return err
	}
}

// noRules refuses access rules, which restrict a credential to some requests: without
// them the credential would be good for more than the client asked for.
func noRules(r reader, name string) error {
	var rules []any
	if err := r.dec.Decode(&rules); err != nil {
		return mismatch(name, "an array")
	}
	if len(rules) > 0 {
		return badRequestf("%s are not supported here: leave them out, or give the credential fewer roles.", name)
	}
	return nil
}
