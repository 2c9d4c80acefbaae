-- What belongs to a job names it by `key`, which is never used again. Only small tables do so as a foreign key with a
-- cascade: the rows of a large job are swept piece by piece after its row is gone.

CREATE TABLE jobs (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    kind TEXT NOT NULL,
    work TEXT NOT NULL,
    params TEXT NOT NULL,
    options TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    idempotency_key TEXT UNIQUE,
    output TEXT,
    state TEXT NOT NULL,
    tasks INTEGER NOT NULL,
    tasks_done INTEGER NOT NULL,
    tasks_failed INTEGER NOT NULL,
    -- An unsigned number of 128 bits, in decimal.
    value TEXT NOT NULL,
    -- What the job takes up here and in its result's object, as an estimate for retention.
    bytes INTEGER NOT NULL,
    -- Times are nanoseconds since 1970.
    submitted_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    error TEXT
) STRICT;

CREATE INDEX jobs_by_time ON jobs (submitted_at, id);
CREATE INDEX jobs_by_state ON jobs (state, kind, submitted_at, id);
CREATE INDEX jobs_by_end ON jobs (finished_at, bytes) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_by_output ON jobs (output, finished_at) WHERE output IS NOT NULL;

CREATE TABLE tags (
    job INTEGER NOT NULL REFERENCES jobs (key) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    submitted_at INTEGER NOT NULL,
    id BLOB NOT NULL,
    PRIMARY KEY (name, value, submitted_at, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_by_name ON tags (name, submitted_at, id);
CREATE INDEX tags_by_job ON tags (job);

-- Runs of tasks that share a fate: what 0 = succeeded, 1 = out of attempts, 2 = to be tried again after `failures`.
CREATE TABLE spans (
    job INTEGER NOT NULL,
    what INTEGER NOT NULL,
    first INTEGER NOT NULL,
    beyond INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    PRIMARY KEY (job, what, first)
) STRICT, WITHOUT ROWID;

-- Blocks of payloads of individual tasks, each a JSON array.
CREATE TABLE payloads (
    job INTEGER NOT NULL,
    first INTEGER NOT NULL,
    beyond INTEGER NOT NULL,
    list TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX payloads_by_task ON payloads (job, first);

-- Attempts at individual tasks. One that succeeded has `completed_at` and, unless nothing was said, `results` as a JSON
-- array; one that failed has `error_at`, `error` and `failures`, and `given_up` where it was the last.
CREATE TABLE attempts (
    job INTEGER NOT NULL,
    first INTEGER NOT NULL,
    beyond INTEGER NOT NULL,
    attempt BLOB,
    worker TEXT NOT NULL,
    allocated_at INTEGER,
    running_at INTEGER,
    completed_at INTEGER,
    results TEXT,
    error_at INTEGER,
    error TEXT,
    failures INTEGER,
    given_up INTEGER
) STRICT;

CREATE INDEX attempts_by_task ON attempts (job, first);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    tasks_done INTEGER NOT NULL,
    tasks_total INTEGER NOT NULL,
    error TEXT
) STRICT;

CREATE INDEX events_by_job ON events (job);

-- Either `json`, or the name of an object with its length and hash.
CREATE TABLE results (
    job INTEGER PRIMARY KEY,
    json TEXT,
    object TEXT,
    bytes INTEGER NOT NULL,
    sha256 BLOB CHECK (length(sha256) = 32),
    CHECK ((json IS NULL) <> (object IS NULL))
) STRICT;

-- Jobs that are gone, while what belonged to them is being swept.
CREATE TABLE swept (
    job INTEGER PRIMARY KEY,
    id BLOB NOT NULL
) STRICT;
