SET LOCAL search_path = divvy;

-- A restore of an earlier release's backup leaves the table and the functions of a later schema.
DROP TABLE IF EXISTS finished;

-- The bytes of all jobs that are over together, for retention: a sum over the rows would read the whole table each time. The
-- triggers keep it, so that it is right whichever release writes. Each coordinator corrects it before it first deletes jobs: a
-- damaged row that is deleted takes other bytes away than it had brought.
CREATE TABLE finished (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    bytes numeric NOT NULL
) WITH (fillfactor = 20);

-- No statement changes a job between the sum and the triggers. The whole table is read, soonest in its own order.
SET LOCAL enable_seqscan = on;
LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO finished (bytes) SELECT coalesce(sum(bytes), 0) FROM jobs WHERE finished_at IS NOT NULL;

CREATE OR REPLACE FUNCTION count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    more numeric;
BEGIN
    SELECT (SELECT coalesce(sum(bytes), 0) FROM new_jobs WHERE finished_at IS NOT NULL)
        - (SELECT coalesce(sum(bytes), 0) FROM old_jobs WHERE finished_at IS NOT NULL) INTO more;
    IF more <> 0 THEN
        UPDATE divvy.finished SET bytes = bytes + more;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    less numeric;
BEGIN
    SELECT coalesce(sum(bytes), 0) FROM old_jobs WHERE finished_at IS NOT NULL INTO less;
    IF less <> 0 THEN
        UPDATE divvy.finished SET bytes = bytes - less;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER jobs_updated AFTER UPDATE ON jobs REFERENCING OLD TABLE AS old_jobs NEW TABLE AS new_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION count_updated();
CREATE OR REPLACE TRIGGER jobs_deleted AFTER DELETE ON jobs REFERENCING OLD TABLE AS old_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION count_deleted();
