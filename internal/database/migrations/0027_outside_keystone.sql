-- An outside Keystone says who callers are: of its domains, projects, users and tokens
-- there are rows here, made when a token is first seen, so that access ends as it does for
-- the service's own.

-- +goose Up
-- the row came from the outside Keystone, which decides its name
ALTER TABLE identity_domains ADD COLUMN outside BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE identity_projects ADD COLUMN outside BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE identity_users ADD COLUMN outside BOOLEAN NOT NULL DEFAULT FALSE;

-- when Keystone was last asked about the token, NULL for the service's own
ALTER TABLE identity_tokens ADD COLUMN checked_at BIGINT;
-- the roles here that the token carries, joined by commas; of the service's own tokens
-- the grants say it
ALTER TABLE identity_tokens ADD COLUMN roles TEXT NOT NULL DEFAULT '';
-- by what Keystone names the token, and the chain of tokens it is of, when it revokes them
ALTER TABLE identity_tokens ADD COLUMN audit_id TEXT NOT NULL DEFAULT '';
ALTER TABLE identity_tokens ADD COLUMN audit_chain_id TEXT NOT NULL DEFAULT '';
CREATE INDEX identity_tokens_by_audit ON identity_tokens (audit_id);
CREATE INDEX identity_tokens_by_chain ON identity_tokens (audit_chain_id);
