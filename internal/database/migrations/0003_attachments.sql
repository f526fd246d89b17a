-- Attachments: who may read an image's disk as a block device, and until when. While an
-- image is saving, its data is its pinned source.

-- +goose Up
-- the bucket of the pinned source while the image is saving, '' for the image area
ALTER TABLE images ADD COLUMN data_bucket TEXT NOT NULL DEFAULT '' CHECK (status <> 'active' OR data_bucket = '');
-- the version of the source's object in a bucket with versions
ALTER TABLE images ADD COLUMN data_version TEXT NOT NULL DEFAULT '';

CREATE TABLE attachments (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL, -- of who attached
    image_id   TEXT NOT NULL REFERENCES images (id),
    token_hash TEXT NOT NULL UNIQUE, -- hex SHA-256 of the token, which is kept nowhere
    user_id    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX attachments_by_project ON attachments (project_id, created_at, id);
CREATE INDEX attachments_by_image ON attachments (image_id);
CREATE INDEX attachments_by_expiry ON attachments (expires_at);
