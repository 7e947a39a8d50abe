-- One row per key. The secret is nowhere: a hash of 256 random bits tells nothing of them.
CREATE TABLE api_keys (
    id             text        PRIMARY KEY CHECK (id ~ '^[a-z0-9]{1,32}$'),
    name           text        NOT NULL CHECK (name <> ''),
    secret_hash    bytea       NOT NULL CHECK (length(secret_hash) = 32),
    previous_hash  bytea       CHECK (length(previous_hash) = 32),   -- of the secret before the latest rotation
    previous_until timestamptz,                                      -- until when that one works as well
    scopes         text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    queues         text[]      NOT NULL DEFAULT '{}',                -- patterns; none: every queue
    types          text[]      NOT NULL DEFAULT '{}',                -- patterns; none: every type
    own_tasks      boolean     NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    created_by     text        NOT NULL,
    rotated_at     timestamptz,
    expires_at     timestamptz,                                      -- NULL: never
    revoked_at     timestamptz,
    last_used_at   timestamptz,                                      -- to a minute
    CONSTRAINT api_keys_previous_has_end CHECK ((previous_hash IS NULL) = (previous_until IS NULL)),
    CONSTRAINT api_keys_admin_is_whole
        CHECK (NOT 'admin' = ANY (scopes) OR (cardinality(queues) = 0 AND cardinality(types) = 0 AND NOT own_tasks))
);
-- Two keys that are not revoked never have the same name.
CREATE UNIQUE INDEX api_keys_name ON api_keys (name) WHERE revoked_at IS NULL;
