-- Who calls: domains hold projects and users, users have roles in projects and hold
-- access keys and tokens. Times are milliseconds since 1970 UTC. The statements are
-- the same for SQLite and PostgreSQL.

-- +goose Up
-- One row once the first start has made its domain, project, user and access key:
-- what every later start, and every other process, goes by.
CREATE TABLE identity_setup (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    domain_id  TEXT NOT NULL,
    project_id TEXT NOT NULL,
    region     TEXT NOT NULL,
    done_at    BIGINT NOT NULL
);

CREATE TABLE identity_domains (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE identity_projects (
    id         TEXT PRIMARY KEY,
    domain_id  TEXT NOT NULL REFERENCES identity_domains (id),
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

CREATE TABLE identity_users (
    id            TEXT PRIMARY KEY,
    domain_id     TEXT NOT NULL REFERENCES identity_domains (id),
    name          TEXT NOT NULL,
    -- argon2id with its parameters and salt; empty: no password, no login with one
    password_hash TEXT NOT NULL,
    enabled       INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at    BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

CREATE TABLE identity_grants (
    user_id    TEXT NOT NULL REFERENCES identity_users (id),
    project_id TEXT NOT NULL REFERENCES identity_projects (id),
    role       TEXT NOT NULL CHECK (role IN ('admin', 'member', 'reader')),
    PRIMARY KEY (user_id, project_id, role)
);
CREATE INDEX identity_grants_by_project ON identity_grants (project_id);

CREATE TABLE identity_access_keys (
    access_key    TEXT PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES identity_users (id),
    -- the project of a request that names none
    project_id    TEXT NOT NULL REFERENCES identity_projects (id),
    -- sealed with a key that is not in the database: verifying an HMAC takes the secret
    secret_sealed TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);
CREATE INDEX identity_access_keys_by_user ON identity_access_keys (user_id);

CREATE TABLE identity_tokens (
    hash       TEXT PRIMARY KEY, -- hex SHA-256 of the token
    user_id    TEXT NOT NULL REFERENCES identity_users (id),
    project_id TEXT NOT NULL,    -- '' for a token without a project
    domain_id  TEXT NOT NULL,    -- set for a token scoped to a domain, else ''
    methods    TEXT NOT NULL,    -- joined by commas
    issued_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX identity_tokens_by_user ON identity_tokens (user_id, issued_at);
CREATE INDEX identity_tokens_by_expiry ON identity_tokens (expires_at);

-- +goose Down
DROP TABLE identity_tokens;
DROP TABLE identity_access_keys;
DROP TABLE identity_grants;
DROP TABLE identity_users;
DROP TABLE identity_projects;
DROP TABLE identity_domains;
DROP TABLE identity_setup;
