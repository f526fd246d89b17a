-- What machines read of an image when they start, as each project's did.

-- +goose Up
CREATE TABLE boot_profiles (
    image_id   TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL,
    profile    TEXT NOT NULL, -- base64
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (image_id, project_id)
);
