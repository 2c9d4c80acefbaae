SET LOCAL search_path = divvy;

-- Workers that an operator has drained. A worker that pulls names no process: its boot is zero.
CREATE TABLE drains (
    worker text COLLATE "C" NOT NULL,
    boot uuid NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (worker, boot)
);
