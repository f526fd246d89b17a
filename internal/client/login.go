package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Login names a user who gets a token for the configuration's project with a password.
type Login struct {
	User     string
	Password Secret
	// DomainID or DomainName is the user's.
	DomainID, DomainName string
}

// The variables that a Login is read from.
const (
	EnvUser       = "QUICKIMS_USER"
	EnvPassword   = "QUICKIMS_PASSWORD"
	EnvDomainID   = "QUICKIMS_DOMAIN_ID"
	EnvDomainName = "QUICKIMS_DOMAIN_NAME"
)

// Body is the request for a token of a project; "" asks for one without a scope.
func (l Login) Body(projectID string) ([]byte, error) {
	type named map[string]string
	domain := named{"id": l.DomainID}
	if l.DomainID == "" {
		domain = named{"name": cmp.Or(l.DomainName, "Default")}
	}
	auth := map[string]any{"identity": map[string]any{
		"methods": []string{"password"},
		"password": map[string]any{"user": map[string]any{
			"name": l.User, "password": string(l.Password), "domain": domain,
		}},
	}}
	if projectID != "" {
		auth["scope"] = map[string]any{"project": named{"id": projectID}}
	}
	return json.Marshal(map[string]any{"auth": auth})
}

// GetToken logs in at the identity service at endpoint and gives a token. The error is an
// *Error if the service refuses.
func GetToken(ctx context.Context, config Config, opts Options) (Secret, error) {
	config.Token = "anonymous" // New asks for some credentials; none are sent
	c, err := New(config, opts)
	if err != nil {
		return "", err
	}
	body, err := config.Login.Body(config.ProjectID)
	if err != nil {
		return "", err
	}
	a, err := c.Call(ctx, Call{Method: http.MethodPost, Path: "/v3/auth/tokens", Body: body, Anonymous: true})
	if err != nil {
		return "", err
	}
	if a.Status != http.StatusCreated {
		return "", readError("POST /v3/auth/tokens", &http.Response{StatusCode: a.Status, Status: http.StatusText(a.Status), Header: a.Header}, a.Body)
	}
	token := a.Header.Get("X-Subject-Token")
	if token == "" {
		return "", errors.New("POST /v3/auth/tokens: the answer has no X-Subject-Token")
	}
	return Secret(token), nil
}
