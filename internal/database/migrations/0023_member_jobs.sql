-- What requests about many images and members at once did.

-- +goose Up
-- A request has a row without image and member, and one for each pair of them. It was
-- carried out in the transaction that wrote them.
CREATE TABLE member_jobs (
    id         TEXT PRIMARY KEY,
    parent_id  TEXT NOT NULL, -- the request's, '' in its own row
    project_id TEXT NOT NULL, -- who sent it
    type       TEXT NOT NULL,
    image_id   TEXT NOT NULL,
    member_id  TEXT NOT NULL,
    number     BIGINT NOT NULL, -- of the pair in its request
    ended_at   BIGINT NOT NULL
);
CREATE INDEX member_jobs_by_parent ON member_jobs (parent_id, number);
CREATE INDEX member_jobs_by_project ON member_jobs (project_id, ended_at);
CREATE INDEX member_jobs_by_end ON member_jobs (ended_at);
