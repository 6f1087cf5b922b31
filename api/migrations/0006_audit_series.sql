-- What a program does all day is one row a day, with a count: a token for an agent, and a refused proof.
ALTER TABLE audit ADD COLUMN count BIGINT NOT NULL DEFAULT 1;
ALTER TABLE audit ADD COLUMN last_s BIGINT;
-- What the row counts; null for a row that is one event.
ALTER TABLE audit ADD COLUMN series TEXT;
CREATE UNIQUE INDEX audit_by_series ON audit (series);
