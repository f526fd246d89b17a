-- What opened an access is kept with it, so that it ends with that: of a token the token
-- that it was made from, of an attachment the token or access key that it was made with.

-- +goose Up
-- hash of the token that this one was made from, '' for one made with a password
ALTER TABLE identity_tokens ADD COLUMN parent TEXT NOT NULL DEFAULT '';
CREATE INDEX identity_tokens_by_parent ON identity_tokens (parent);

-- what the caller showed: the hash of a token, or an access key
ALTER TABLE attachments ADD COLUMN by_token TEXT NOT NULL DEFAULT '';
ALTER TABLE attachments ADD COLUMN by_key TEXT NOT NULL DEFAULT '';
-- whoever may only look made it
ALTER TABLE attachments ADD COLUMN by_reader BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX attachments_by_user ON attachments (user_id, project_id);
CREATE INDEX attachments_by_token ON attachments (by_token);

-- A user that was removed kept its roles, and its attachments went on.
DELETE FROM identity_tokens WHERE user_id IN (SELECT id FROM identity_users WHERE enabled = 0);
DELETE FROM identity_access_keys WHERE user_id IN (SELECT id FROM identity_users WHERE enabled = 0);
DELETE FROM identity_grants WHERE user_id IN (SELECT id FROM identity_users WHERE enabled = 0);
DELETE FROM attachments WHERE NOT EXISTS (SELECT 1 FROM identity_grants g
    WHERE g.user_id = attachments.user_id AND g.project_id = attachments.project_id);
