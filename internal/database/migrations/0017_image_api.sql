-- What the OpenStack Image API knows of an image besides.

-- +goose Up
-- who sees it; 'private' counts as shared while it has members
ALTER TABLE images ADD COLUMN visibility TEXT NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'shared', 'community', 'public'));
-- left out of lists that do not ask for it
ALTER TABLE images ADD COLUMN hidden BOOLEAN NOT NULL DEFAULT FALSE;
-- the state that clients see in place of the status, '' for none: an upload on its way
-- into a queued image, an active image that was taken out of use
ALTER TABLE images ADD COLUMN phase TEXT NOT NULL DEFAULT '' CHECK (phase IN ('', 'uploading', 'importing', 'deactivated'));
-- what downloads deliver, as clients named it; '' for not said
ALTER TABLE images ADD COLUMN disk_format TEXT NOT NULL DEFAULT 'raw';
ALTER TABLE images ADD COLUMN container_format TEXT NOT NULL DEFAULT 'bare';
-- JSON object of keys that clients made up
ALTER TABLE images ADD COLUMN properties TEXT NOT NULL DEFAULT '{}';
-- hex, of the bytes that downloads deliver; '' for not known
ALTER TABLE images ADD COLUMN md5 TEXT NOT NULL DEFAULT '';
ALTER TABLE images ADD COLUMN sha512 TEXT NOT NULL DEFAULT '';
