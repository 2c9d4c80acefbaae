-- Figures by period, in UTC, and by kind of job, which change in the transaction of the event that they count. `grain` is
-- 'minute', 'hour' or 'day'; `start` is in seconds since 1970. `jobs_pending` and `tasks_pending` are what was open after
-- the period's last event; the other figures are sums. Durations are in microseconds.
CREATE TABLE statistics (
    grain TEXT NOT NULL,
    start INTEGER NOT NULL,
    kind TEXT NOT NULL,
    jobs_submitted INTEGER NOT NULL,
    jobs_started INTEGER NOT NULL,
    jobs_succeeded INTEGER NOT NULL,
    jobs_failed INTEGER NOT NULL,
    jobs_canceled INTEGER NOT NULL,
    jobs_retried INTEGER NOT NULL,
    tasks_submitted INTEGER NOT NULL,
    tasks_started INTEGER NOT NULL,
    tasks_succeeded INTEGER NOT NULL,
    tasks_failed INTEGER NOT NULL,
    tasks_canceled INTEGER NOT NULL,
    tasks_retried INTEGER NOT NULL,
    task_starts INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    attempts_failed INTEGER NOT NULL,
    jobs_pending INTEGER NOT NULL,
    tasks_pending INTEGER NOT NULL,
    waiting_us INTEGER NOT NULL,
    running_us INTEGER NOT NULL,
    computing_us INTEGER NOT NULL,
    PRIMARY KEY (grain, start, kind)
) STRICT, WITHOUT ROWID;

-- How many durations were above the bound before and not above `up_to_us`. `what` is 'waiting', 'running' or 'computing'.
CREATE TABLE statistics_durations (
    grain TEXT NOT NULL,
    start INTEGER NOT NULL,
    kind TEXT NOT NULL,
    what TEXT NOT NULL,
    up_to_us INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (grain, start, kind, what, up_to_us)
) STRICT, WITHOUT ROWID;

-- Starts of tasks by name.
CREATE TABLE statistics_tasks (
    grain TEXT NOT NULL,
    start INTEGER NOT NULL,
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    starts INTEGER NOT NULL,
    PRIMARY KEY (grain, start, kind, task)
) STRICT, WITHOUT ROWID;

-- What is open now.
CREATE TABLE statistics_pending (
    kind TEXT PRIMARY KEY,
    jobs INTEGER NOT NULL,
    tasks INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the event counts, as JSON.
ALTER TABLE events ADD COLUMN counts TEXT;

-- The name of the job's tasks; what has happened since its last event, for the next one to count, as JSON.
ALTER TABLE jobs ADD COLUMN task TEXT;
ALTER TABLE jobs ADD COLUMN uncounted TEXT;

-- Statistics begin here. A job that is open is counted with its next event, so that what is pending is right from then on.
UPDATE jobs SET uncounted = json_object(
    'jobs_submitted', 1,
    'jobs_started', started_at IS NOT NULL,
    'jobs_pending', 1,
    'tasks_submitted', tasks,
    'tasks_started', tasks_done + tasks_failed
        + coalesce((SELECT sum(beyond - first) FROM spans WHERE spans.job = jobs.key AND what = 2), 0),
    'tasks_succeeded', tasks_done,
    'tasks_failed', tasks_failed,
    'tasks_pending', tasks - tasks_done - tasks_failed)
WHERE finished_at IS NULL;
