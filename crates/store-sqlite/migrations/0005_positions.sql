-- How far streams outside have been dealt with. `mark` has 64 bits.
CREATE TABLE positions (
    stream TEXT PRIMARY KEY,
    next INTEGER NOT NULL,
    mark INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The record that submitted the job, as JSON, in the job's first event.
ALTER TABLE events ADD COLUMN source TEXT;
