-- The bytes of all jobs that are over together, for retention: a sum over the rows takes longer the more there are. A damaged
-- row changes the sum by as much as it says, within the bounds of an integer, until the next start sums the rows up.
CREATE TABLE finished (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO finished (one, bytes)
SELECT 1, CAST(max(0, min(total(bytes), 9e18)) AS INTEGER) FROM jobs WHERE finished_at IS NOT NULL;

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs WHEN NEW.finished_at IS NOT NULL
BEGIN
    UPDATE finished SET bytes = max(0, min(bytes + NEW.bytes, 9000000000000000000));
END;

CREATE TRIGGER jobs_updated AFTER UPDATE OF bytes, finished_at ON jobs
WHEN OLD.finished_at IS NOT NULL OR NEW.finished_at IS NOT NULL
BEGIN
    UPDATE finished SET bytes = max(0, min(bytes
        + CASE WHEN NEW.finished_at IS NULL THEN 0 ELSE NEW.bytes END
        - CASE WHEN OLD.finished_at IS NULL THEN 0 ELSE OLD.bytes END, 9000000000000000000));
END;

CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs WHEN OLD.finished_at IS NOT NULL
BEGIN
    UPDATE finished SET bytes = max(0, min(bytes - OLD.bytes, 9000000000000000000));
END;
