-- Public images: every project's lists ask for them.

-- +goose Up
CREATE INDEX images_public ON images (created_at, id) WHERE visibility = 'public' AND deleted_at IS NULL AND status <> 'killed';
