SET LOCAL search_path = divvy;

-- How far streams outside have been dealt with. `mark` has 64 bits.
CREATE TABLE positions (
    stream text COLLATE "C" PRIMARY KEY,
    next bigint NOT NULL,
    mark bigint NOT NULL
) WITH (fillfactor = 50);

-- The record that submitted the job, as JSON, in the job's first event.
ALTER TABLE events ADD COLUMN source text;
