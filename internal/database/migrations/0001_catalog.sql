-- What the service keeps: images with their tags, jobs, enterprise projects, buckets.
-- Times are milliseconds since 1970 UTC. The statements are the same for SQLite and
-- PostgreSQL.

-- +goose Up
CREATE TABLE images (
    id                    TEXT PRIMARY KEY,
    project_id            TEXT NOT NULL,
    enterprise_project_id TEXT NOT NULL,
    name                  TEXT NOT NULL,
    description           TEXT NOT NULL,
    -- a deleted image keeps the status it had, so that it stays a page's marker
    status                TEXT NOT NULL CHECK (status IN ('queued', 'saving', 'active', 'killed')),
    env                   TEXT NOT NULL,
    os_version            TEXT NOT NULL,
    os_type               TEXT NOT NULL,
    os_bit                TEXT NOT NULL,
    platform              TEXT NOT NULL,
    architecture          TEXT NOT NULL,
    firmware              TEXT NOT NULL,
    license_type          TEXT NOT NULL,
    min_disk_gib          INTEGER NOT NULL,
    min_ram_mib           INTEGER NOT NULL,
    max_ram_mib           TEXT NOT NULL,
    protected             BOOLEAN NOT NULL,
    attributes            TEXT NOT NULL, -- JSON object
    source_url            TEXT NOT NULL,
    file_size             BIGINT NOT NULL,
    -- where the bytes lie in the image area; all empty until the image is active
    data_key              TEXT NOT NULL,
    data_etag             TEXT NOT NULL,
    data_format           TEXT NOT NULL,
    data_size             BIGINT NOT NULL,
    data_virtual_size     BIGINT NOT NULL,
    data_bitmap_key       TEXT NOT NULL,
    data_bitmap_etag      TEXT NOT NULL,
    data_bitmap_size      BIGINT NOT NULL,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    active_at             BIGINT,
    deleted_at            BIGINT,
    -- never active without data
    CHECK (status <> 'active' OR (data_key <> '' AND active_at IS NOT NULL))
);
CREATE INDEX images_by_project ON images (project_id, created_at, id);

CREATE TABLE image_tags (
    image_id   TEXT NOT NULL REFERENCES images (id),
    project_id TEXT NOT NULL,
    tag_key    TEXT NOT NULL,
    tag_value  TEXT NOT NULL,
    PRIMARY KEY (image_id, tag_key)
);
CREATE INDEX image_tags_by_project ON image_tags (project_id, tag_key, tag_value);

CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,
    project_id  TEXT NOT NULL,
    type        TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('INIT', 'RUNNING', 'SUCCESS', 'FAIL')),
    step        TEXT NOT NULL,
    percent     INTEGER NOT NULL,
    attempt     BIGINT NOT NULL, -- the fence: who writes names it
    faults      INTEGER NOT NULL,
    image_id    TEXT NOT NULL REFERENCES images (id),
    image_name  TEXT NOT NULL,
    source      TEXT NOT NULL, -- JSON object
    error_code  TEXT NOT NULL,
    fail_reason TEXT NOT NULL,
    begin_time  BIGINT NOT NULL,
    end_time    BIGINT,
    -- until when the newest attempt holds the job; NULL: nobody holds it
    lease_until BIGINT,
    -- since when nobody holds it
    free_since  BIGINT NOT NULL,
    CHECK ((end_time IS NOT NULL) = (status IN ('SUCCESS', 'FAIL')))
);
CREATE INDEX jobs_by_image ON jobs (image_id);
CREATE INDEX jobs_going_on ON jobs (project_id, id) WHERE end_time IS NULL;

-- Attempts of ended jobs and of deleted images whose bytes are to be removed.
CREATE TABLE garbage (
    prefix   TEXT PRIMARY KEY, -- of keys in the image area: image/attempt/
    found_at BIGINT NOT NULL
);
CREATE INDEX garbage_by_age ON garbage (found_at, prefix);

-- A project's row is written by whoever counts what the project has before adding to
-- it, so that one does so at a time.
CREATE TABLE project_turns (
    project_id TEXT PRIMARY KEY,
    turn       BIGINT NOT NULL
);

CREATE TABLE enterprise_projects (
    id          TEXT PRIMARY KEY,
    domain_id   TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    enabled     BOOLEAN NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

CREATE TABLE buckets (
    name       TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    claimed_at BIGINT NOT NULL
);
CREATE INDEX buckets_by_project ON buckets (project_id, name);
