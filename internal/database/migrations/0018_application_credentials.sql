-- Application credentials: a secret that stands for a user in one project, with some of
-- its roles.

-- +goose Up
CREATE TABLE identity_application_credentials (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES identity_users (id),
    project_id   TEXT NOT NULL REFERENCES identity_projects (id),
    name         TEXT NOT NULL,
    description  TEXT NOT NULL,
    secret_hash  TEXT NOT NULL, -- argon2id, as a password's
    roles        TEXT NOT NULL, -- joined by commas; the user must have them, too
    unrestricted BOOLEAN NOT NULL, -- it may make and delete others
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT, -- NULL: never
    UNIQUE (user_id, name)
);
CREATE INDEX identity_application_credentials_by_project ON identity_application_credentials (project_id);

-- the application credential that a token was made with, '' for none
ALTER TABLE identity_tokens ADD COLUMN application_credential TEXT NOT NULL DEFAULT '';
CREATE INDEX identity_tokens_by_application_credential ON identity_tokens (application_credential);
