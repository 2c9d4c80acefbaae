SET LOCAL search_path = divvy;

-- A restore of an earlier release's backup leaves the table of a later schema.
DROP TABLE IF EXISTS lease_duration;

-- How long the lease of the coordinator that leads lasts after each renewal: coordinators may differ in that, and a coordinator
-- of an earlier release, whose leases last 1200 ms, does not note it. Not a column of the lease's table: a change of that table
-- waits for a backup that reads it, and renewals wait meanwhile.
CREATE TABLE lease_duration (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    ms bigint NOT NULL
) WITH (fillfactor = 20);

INSERT INTO lease_duration (ms) VALUES (1200);
