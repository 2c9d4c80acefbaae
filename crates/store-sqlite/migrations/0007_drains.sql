-- Workers that an operator has drained. A worker that pulls names no process: its boot is zero.
CREATE TABLE drains (
    worker TEXT NOT NULL,
    boot BLOB NOT NULL CHECK (length(boot) = 16),
    at INTEGER NOT NULL,
    PRIMARY KEY (worker, boot)
) STRICT, WITHOUT ROWID;
