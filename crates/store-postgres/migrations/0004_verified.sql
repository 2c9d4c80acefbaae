SET LOCAL search_path = divvy;

-- How the verification of a job has gone, as JSON; nothing where nothing was compared.
ALTER TABLE jobs ADD COLUMN verified text;

CREATE INDEX jobs_by_verified ON jobs (key) WHERE verified IS NOT NULL;
