-- An attachment's time counts while nobody is connected. expires_at is when it ends
-- unless somebody is: who serves a connection moves it on, ttl after now and some beats.
-- 9223372036854775807 is never.

-- +goose Up
-- milliseconds without a connection until it ends, 0 for no such end
ALTER TABLE attachments ADD COLUMN ttl BIGINT NOT NULL DEFAULT 0;
-- when it ends though somebody is connected
ALTER TABLE attachments ADD COLUMN max_at BIGINT NOT NULL DEFAULT 9223372036854775807;
ALTER TABLE attachments ADD COLUMN bytes_read BIGINT NOT NULL DEFAULT 0;
-- 0 for never
ALTER TABLE attachments ADD COLUMN last_read_at BIGINT NOT NULL DEFAULT 0;
UPDATE attachments SET ttl = expires_at - created_at;

-- Who is connected: what each process that serves the attachment said last. A row that
-- no process renews counts no longer.
CREATE TABLE attachment_uses (
    attachment_id TEXT NOT NULL REFERENCES attachments (id) ON DELETE CASCADE,
    process       TEXT NOT NULL,
    connections   BIGINT NOT NULL,
    addresses     TEXT NOT NULL, -- JSON list, not of all when there are many
    seen_at       BIGINT NOT NULL,
    PRIMARY KEY (attachment_id, process)
);
CREATE INDEX attachment_uses_by_time ON attachment_uses (seen_at);
