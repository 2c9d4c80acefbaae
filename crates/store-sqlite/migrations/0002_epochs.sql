-- The owner's epoch, and the last batch of it that was committed. `store` tells this store's objects from those of others
-- in the same place.
CREATE TABLE fence (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    store BLOB NOT NULL CHECK (length(store) = 16)
) STRICT;

INSERT INTO fence (one, epoch, batch, store) VALUES (1, 0, 0, randomblob(16));

-- Attempts of a job that have ended.
ALTER TABLE jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN retried_at INTEGER;

-- How many failures before this one are not kept.
ALTER TABLE attempts ADD COLUMN omitted INTEGER;

-- Objects that no row of results names any more.
CREATE TABLE dropped_objects (
    object TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE INDEX results_by_object ON results (object) WHERE object IS NOT NULL;

-- A result of a job that is gone stayed under its job's id, under which another job may have stored one since.
INSERT OR IGNORE INTO dropped_objects (object)
SELECT object FROM results WHERE object IS NOT NULL AND job IN (SELECT job FROM swept)
AND object NOT IN (SELECT object FROM results WHERE object IS NOT NULL AND job IN (SELECT key FROM jobs));

DELETE FROM results WHERE job IN (SELECT job FROM swept);

-- Rows of individual tasks are all that the first release has kept of attempts.
UPDATE jobs SET attempts = (SELECT count(*) FROM attempts WHERE attempts.job = jobs.key)
WHERE kind IN ('tasks', 'sleep');

-- The first release has counted neither indexes nor tags, names and keys.
UPDATE jobs SET bytes = bytes + 320
    + 2 * coalesce(length(idempotency_key), 0)
    + 2 * coalesce(length(output), 0)
    + coalesce((SELECT sum(110 + 3 * (length(name) + length(value))) FROM tags WHERE tags.job = jobs.key), 0);
