-- Uploaded programs. Their bytes are objects.
CREATE TABLE programs (
    sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    bytes INTEGER NOT NULL,
    kind TEXT NOT NULL,
    uploaded_at INTEGER NOT NULL,
    uploaded_by TEXT
) STRICT, WITHOUT ROWID;

-- The end of what attempts wrote to stderr.
CREATE TABLE logs (
    job INTEGER NOT NULL,
    task INTEGER NOT NULL,
    attempt BLOB NOT NULL CHECK (length(attempt) = 16),
    worker TEXT NOT NULL,
    ended_at INTEGER NOT NULL,
    omitted INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;

CREATE INDEX logs_by_task ON logs (job, task);
