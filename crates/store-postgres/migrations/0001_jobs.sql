SET LOCAL search_path = divvy;

-- What belongs to a job names it by `key`, which is never used again. Times of jobs are nanoseconds since 1970, as the
-- coordinator gives them; times of leases and members are those of the database's clock.

-- The lease of the coordinator that leads.
CREATE TABLE lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder uuid,
    epoch bigint NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 20);

INSERT INTO lease (epoch, expires_at) VALUES (0, 'epoch');

-- The leader's epoch and the last batch of it that was committed: what every batch passes first. `store` tells this
-- store's objects from those of others in the same place.
CREATE TABLE fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL,
    batch bigint NOT NULL,
    store uuid NOT NULL
) WITH (fillfactor = 20);

INSERT INTO fence (epoch, batch, store) VALUES (0, 0, gen_random_uuid());

-- The number of the newest event. Locked last by whoever writes events, so that they are numbered in the order of commits.
CREATE TABLE counter (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    event bigint NOT NULL
) WITH (fillfactor = 20);

INSERT INTO counter (event) VALUES (0);

CREATE TABLE members (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    public_address text NOT NULL,
    internal_address text NOT NULL,
    version text NOT NULL,
    started_at bigint NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Each number stands for 2^10 jobs,
CREATE SEQUENCE job_blocks;
-- each for 2^20 attempts.
CREATE SEQUENCE attempt_blocks;

CREATE TABLE jobs (
    key bigint PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    kind text COLLATE "C" NOT NULL,
    work text NOT NULL,
    params text NOT NULL,
    options text NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    idempotency_key text COLLATE "C" UNIQUE,
    output text COLLATE "C",
    state text COLLATE "C" NOT NULL,
    tasks bigint NOT NULL,
    tasks_done bigint NOT NULL,
    tasks_failed bigint NOT NULL,
    -- An unsigned number of 128 bits, in decimal, and behind a slash the one that is compared with it, unless that is 0.
    value text NOT NULL,
    -- What the job takes up here and in its result's object, as an estimate for retention. In no index: an update of
    -- progress alone then touches none.
    bytes bigint NOT NULL,
    attempts bigint NOT NULL,
    submitted_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    retried_at bigint,
    error text,
    -- The name of the job's tasks; what has happened since its last event, for the next one to count, as JSON.
    task text,
    uncounted text
) WITH (fillfactor = 70);

CREATE INDEX jobs_by_time ON jobs (submitted_at, id);
CREATE INDEX jobs_by_state ON jobs (state, kind, submitted_at, id);
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_by_output ON jobs (output, finished_at) WHERE output IS NOT NULL;

CREATE TABLE tags (
    job bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    submitted_at bigint NOT NULL,
    id uuid NOT NULL,
    PRIMARY KEY (name, value, submitted_at, id)
);

CREATE INDEX tags_by_name ON tags (name, submitted_at, id);
CREATE INDEX tags_by_job ON tags (job);

-- Runs of tasks that share a fate: what 0 = succeeded, 1 = out of attempts, 2 = to be tried again after `failures`.
CREATE TABLE spans (
    job bigint NOT NULL,
    what smallint NOT NULL,
    first bigint NOT NULL,
    beyond bigint NOT NULL,
    failures bigint NOT NULL,
    PRIMARY KEY (job, what, first)
) WITH (fillfactor = 60);

-- Blocks of payloads of individual tasks, each a JSON array.
CREATE TABLE payloads (
    job bigint NOT NULL,
    first bigint NOT NULL,
    beyond bigint NOT NULL,
    list text NOT NULL,
    PRIMARY KEY (job, first)
);

-- Attempts at individual tasks, `id` in the order in which they ended. One that succeeded has `completed_at` and, unless
-- nothing was said, `results` as a JSON array; one that failed has `error_at`, `error` and `failures`, `given_up` where it
-- was the last, and in `omitted` how many failures before it are not kept.
CREATE TABLE attempts (
    job bigint NOT NULL,
    first bigint NOT NULL,
    id bigint NOT NULL,
    beyond bigint NOT NULL,
    attempt uuid,
    worker text NOT NULL,
    allocated_at bigint,
    running_at bigint,
    completed_at bigint,
    results text,
    error_at bigint,
    error text,
    failures bigint,
    given_up boolean,
    omitted bigint,
    PRIMARY KEY (job, first, id)
);

CREATE TABLE events (
    seq bigint PRIMARY KEY,
    job bigint NOT NULL,
    kind text NOT NULL,
    at bigint NOT NULL,
    tasks_done bigint NOT NULL,
    tasks_total bigint NOT NULL,
    error text,
    -- What it counts in the statistics, as JSON.
    counts text
);

CREATE INDEX events_by_job ON events (job, seq);

-- Either `json`, or the name of an object with its length and hash.
CREATE TABLE results (
    job bigint PRIMARY KEY,
    json text,
    object text COLLATE "C",
    bytes bigint NOT NULL,
    sha256 bytea CHECK (octet_length(sha256) = 32),
    CHECK ((json IS NULL) <> (object IS NULL))
);

CREATE INDEX results_by_object ON results (object) WHERE object IS NOT NULL;

-- Jobs that are gone, while what belonged to them is being swept.
CREATE TABLE swept (
    job bigint PRIMARY KEY,
    id uuid NOT NULL
);

-- Objects that no row of results names any more.
CREATE TABLE dropped_objects (
    object text COLLATE "C" PRIMARY KEY
);

-- Figures by period, in UTC, and by kind of job, which change in the transaction of the event that they count. `grain` is
-- 'minute', 'hour' or 'day'; `start` is in seconds since 1970. `jobs_pending` and `tasks_pending` are what was open after
-- the period's last event; the other figures are sums. Durations are in microseconds.
CREATE TABLE statistics (
    grain text COLLATE "C" NOT NULL,
    start bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    jobs_submitted bigint NOT NULL,
    jobs_started bigint NOT NULL,
    jobs_succeeded bigint NOT NULL,
    jobs_failed bigint NOT NULL,
    jobs_canceled bigint NOT NULL,
    jobs_retried bigint NOT NULL,
    tasks_submitted bigint NOT NULL,
    tasks_started bigint NOT NULL,
    tasks_succeeded bigint NOT NULL,
    tasks_failed bigint NOT NULL,
    tasks_canceled bigint NOT NULL,
    tasks_retried bigint NOT NULL,
    task_starts bigint NOT NULL,
    attempts bigint NOT NULL,
    attempts_failed bigint NOT NULL,
    jobs_pending bigint NOT NULL,
    tasks_pending bigint NOT NULL,
    waiting_us bigint NOT NULL,
    running_us bigint NOT NULL,
    computing_us bigint NOT NULL,
    PRIMARY KEY (grain, start, kind)
) WITH (fillfactor = 50);

-- How many durations were above the bound before and not above `up_to_us`. `what` is 'waiting', 'running' or 'computing'.
CREATE TABLE statistics_durations (
    grain text COLLATE "C" NOT NULL,
    start bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    what text COLLATE "C" NOT NULL,
    up_to_us bigint NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (grain, start, kind, what, up_to_us)
) WITH (fillfactor = 50);

-- Starts of tasks by name.
CREATE TABLE statistics_tasks (
    grain text COLLATE "C" NOT NULL,
    start bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    starts bigint NOT NULL,
    PRIMARY KEY (grain, start, kind, task)
) WITH (fillfactor = 50);

-- What is open now. Its rows are locked first of all statistics, in the order of the kinds.
CREATE TABLE statistics_pending (
    kind text COLLATE "C" PRIMARY KEY,
    jobs bigint NOT NULL,
    tasks bigint NOT NULL
) WITH (fillfactor = 20);
