-- The name of the bytes that an image was pinned to.

-- +goose Up
-- 32 hex digits, drawn when the source is pinned and kept through adoption: pages of the
-- image's objects are cached under it. '' while there is nothing to read. The id of an
-- image will not do: a database that is restored may pin it to other bytes. It does for
-- the images of before this column, of which nothing was cached.
ALTER TABLE images ADD COLUMN generation TEXT NOT NULL DEFAULT '';
UPDATE images SET generation = replace(id, '-', '') WHERE data_key <> '';
