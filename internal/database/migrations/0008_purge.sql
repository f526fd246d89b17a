-- Rows that nothing needs any more are removed in batches, and lists are as fast with
-- them as without.

-- +goose Up
CREATE INDEX images_living ON images (project_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_deleted ON images (deleted_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX images_killed ON images (project_id, updated_at, id) WHERE deleted_at IS NULL AND status = 'killed';
CREATE INDEX images_killed_by_age ON images (updated_at) WHERE deleted_at IS NULL AND status = 'killed';
CREATE INDEX jobs_ended ON jobs (project_id, end_time, id) WHERE end_time IS NOT NULL;
CREATE INDEX jobs_ended_by_age ON jobs (end_time) WHERE end_time IS NOT NULL;
