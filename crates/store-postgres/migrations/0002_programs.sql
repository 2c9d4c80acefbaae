SET LOCAL search_path = divvy;

-- Uploaded programs. Their bytes are objects.
CREATE TABLE programs (
    sha256 bytea PRIMARY KEY CHECK (length(sha256) = 32),
    bytes bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    uploaded_at bigint NOT NULL,
    uploaded_by text
);

-- The end of what attempts wrote to stderr.
CREATE TABLE logs (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    job bigint NOT NULL,
    task bigint NOT NULL,
    attempt uuid NOT NULL,
    worker text NOT NULL,
    ended_at bigint NOT NULL,
    omitted bigint NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (job, task, seq)
);
