-- The folder of a bucket that has no owner belongs to nobody. In installations that were
-- made before it was so, such a folder belonged to the first project: one row there, until
-- the next start with the directory store has written that project down as the owner of
-- each. An installation that is made later never has the row.

-- +goose Up
CREATE TABLE unowned_buckets (id INTEGER PRIMARY KEY CHECK (id = 1));
INSERT INTO unowned_buckets (id) SELECT 1 FROM identity_setup WHERE id = 1;
