-- Attempts: what this installation wrote to the image area and no image has yet or any
-- more. The clean-up removes bytes because a row here says so, and for no other reason.

-- +goose Up
CREATE TABLE attempts (
    prefix   TEXT PRIMARY KEY, -- of its keys in the image area: image/attempt/
    image_id TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    -- when the attempt was given up or its image deleted; NULL: it may still be published
    ended_at BIGINT,
    -- when the clean-up removes its bytes, again if looks is not 0
    due_at   BIGINT,
    looks    INTEGER NOT NULL,
    CHECK ((ended_at IS NULL) = (due_at IS NULL))
);
CREATE INDEX attempts_by_image ON attempts (image_id);
CREATE INDEX attempts_due ON attempts (due_at, prefix) WHERE due_at IS NOT NULL;

-- The multipart uploads that an attempt began in an S3 store.
CREATE TABLE attempt_uploads (
    prefix    TEXT NOT NULL REFERENCES attempts (prefix),
    object_key TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    PRIMARY KEY (prefix, upload_id)
);

-- Attempts of jobs that have not ended: any of them may have written something. The
-- newest may still be published.
INSERT INTO attempts (prefix, image_id, began_at, ended_at, due_at, looks)
WITH RECURSIVE numbers (n) AS (
    SELECT 1 UNION ALL
    SELECT n + 1 FROM numbers WHERE n < (SELECT COALESCE(MAX(attempt), 0) FROM jobs WHERE end_time IS NULL)
)
SELECT image_id || '/' || n || '/', image_id, begin_time,
    CASE WHEN n < attempt THEN begin_time END, CASE WHEN n < attempt THEN begin_time END, 0
FROM jobs JOIN numbers ON n <= attempt WHERE end_time IS NULL;

-- What was recorded as to be removed. Of an active image the images table tells where
-- its bytes lie.
INSERT INTO attempts (prefix, image_id, began_at, ended_at, due_at, looks)
SELECT prefix, substr(prefix, 1, 36), found_at, found_at, found_at, 0 FROM garbage
WHERE NOT EXISTS (SELECT 1 FROM attempts a WHERE a.prefix = garbage.prefix);

DROP TABLE garbage;
