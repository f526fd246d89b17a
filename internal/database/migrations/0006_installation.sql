-- The installation: the id that ties this database to its image area, and a generation
-- that grows before anything is written to or removed from that area.

-- +goose Up
CREATE TABLE installation (
    singleton  INTEGER PRIMARY KEY CHECK (singleton = 1),
    id         TEXT NOT NULL,
    generation BIGINT NOT NULL,
    made_at    BIGINT NOT NULL
);

-- The owner marks that were put, or were about to be put, into the image area. A mark
-- that is not among them comes from a copy of this database.
CREATE TABLE installation_marks (
    generation BIGINT PRIMARY KEY,
    nonce      TEXT NOT NULL,
    made_at    BIGINT NOT NULL
);
