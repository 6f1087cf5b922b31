-- Relay nodes that are enrolled: each with a key of its own, bound to one endpoint for good.
CREATE TABLE enrolments (
    id TEXT NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    -- Argon2id, as a PHC string.
    hash TEXT NOT NULL,
    endpoint TEXT,
    created_s BIGINT NOT NULL,
    revoked_s BIGINT
);
-- An endpoint has one enrolment in force.
CREATE UNIQUE INDEX enrolments_one_endpoint ON enrolments (endpoint) WHERE revoked_s IS NULL;

-- The last heartbeat of each.
CREATE TABLE fleet_relays (
    endpoint TEXT NOT NULL PRIMARY KEY,
    enrolment TEXT NOT NULL UNIQUE REFERENCES enrolments (id),
    -- A JSON list.
    addresses TEXT NOT NULL,
    region BIGINT NOT NULL,
    version TEXT NOT NULL,
    draining BIGINT NOT NULL,
    agents BIGINT NOT NULL,
    agents_max BIGINT NOT NULL,
    appends_per_second BIGINT NOT NULL,
    reads_per_second BIGINT NOT NULL,
    -- A JSON list, and the most that stands in it.
    lag TEXT NOT NULL,
    lag_max BIGINT NOT NULL,
    seen_s BIGINT NOT NULL
);
CREATE INDEX fleet_relays_by_time ON fleet_relays (seen_s);
