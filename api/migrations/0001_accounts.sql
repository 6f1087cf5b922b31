-- The whole schema, for SQLite and PostgreSQL alike: ids, hashes and scopes are TEXT, times are unix
-- seconds in BIGINT, and nothing else is needed. A migration that was released is never edited.

CREATE TABLE accounts (
    id TEXT NOT NULL PRIMARY KEY,
    org TEXT NOT NULL UNIQUE,
    created_s BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    label TEXT NOT NULL,
    scopes TEXT NOT NULL,
    -- Argon2id, as a PHC string.
    hash TEXT NOT NULL,
    created_s BIGINT NOT NULL,
    expires_s BIGINT,
    revoked_s BIGINT
);
CREATE INDEX api_keys_by_account ON api_keys (account, id);

-- The sequence numbers of the feeds. Their rows stay locked until the transaction that takes a number
-- ends: so numbers are dense, and become visible in order.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('revocations', 0), ('agent_revocations', 0);

CREATE TABLE revocations (
    sequence BIGINT NOT NULL PRIMARY KEY,
    api_key TEXT NOT NULL UNIQUE REFERENCES api_keys (id),
    revoked_s BIGINT NOT NULL
);

CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    bound_s BIGINT NOT NULL,
    seen_s BIGINT NOT NULL,
    ended_s BIGINT
);
CREATE INDEX agents_by_account ON agents (account, id);

CREATE TABLE agent_revocations (
    sequence BIGINT NOT NULL PRIMARY KEY,
    agent TEXT NOT NULL UNIQUE REFERENCES agents (id),
    ended_s BIGINT NOT NULL
);

-- Nonces that wait for their proof, by their BLAKE3 hash.
CREATE TABLE nonces (
    hash TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    agent TEXT NOT NULL,
    expires_s BIGINT NOT NULL
);
CREATE INDEX nonces_by_end ON nonces (expires_s);
CREATE INDEX nonces_by_account ON nonces (account, expires_s);

-- An org belongs to one account, so a name that begins with it does too.
CREATE TABLE channels (
    name TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    channel TEXT NOT NULL,
    created_s BIGINT NOT NULL
);
CREATE INDEX channels_by_account ON channels (account, name);

CREATE TABLE relays (
    endpoint TEXT NOT NULL PRIMARY KEY,
    -- A JSON list.
    addresses TEXT NOT NULL,
    region BIGINT NOT NULL,
    seen_s BIGINT NOT NULL
);

CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    public_key TEXT NOT NULL,
    -- XChaCha20-Poly1305 under the key encryption key; erased when the key is retired.
    sealed_seed TEXT,
    active BIGINT NOT NULL,
    created_s BIGINT NOT NULL,
    retired_s BIGINT
);
CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (active) WHERE active = 1;

CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT,
    at_s BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    request TEXT NOT NULL,
    code TEXT
);
CREATE INDEX audit_by_account ON audit (account, id);
CREATE INDEX audit_by_time ON audit (at_s);
