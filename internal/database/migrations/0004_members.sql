-- Members: the projects that an image is shared with.

-- +goose Up
-- how many there are
ALTER TABLE images ADD COLUMN members INTEGER NOT NULL DEFAULT 0;

CREATE TABLE image_members (
    image_id   TEXT NOT NULL REFERENCES images (id),
    member_id  TEXT NOT NULL, -- a project's id; it need not exist
    status     TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected')),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (image_id, member_id)
);
CREATE INDEX image_members_by_member ON image_members (member_id, status, image_id);
