-- Tables of a few hundred rows: each is locked for a moment only.
ALTER TABLE queues ADD COLUMN limits json;                                -- NULL: none
ALTER TABLE queues ADD COLUMN held bigint NOT NULL DEFAULT 0;             -- of what is due: kept back by a limit
ALTER TABLE task_types ADD COLUMN declared_limits json;                   -- by its handler; NULL: none
ALTER TABLE task_types ADD COLUMN limits json;                            -- in force; NULL: none
ALTER TABLE task_types ADD COLUMN limits_set boolean NOT NULL DEFAULT false; -- by a person: what is declared does not count

-- A hint of a limited task that is due: it has left the outbox for its lane, where it waits for its turn. A lane is what
-- limits treat alike: a queue, a type and their keys. At most one row per task.
CREATE TABLE held (
    task_id   bigint      PRIMARY KEY,
    attempt   integer     NOT NULL CHECK (attempt >= 0),
    queue     text        NOT NULL,
    lane      bytea       NOT NULL,
    type      text        NOT NULL,
    queue_key text        NOT NULL,
    type_key  text        NOT NULL,
    rules     text        NOT NULL, -- by which the lane was found: others, once somebody has changed the limits
    priority  smallint    NOT NULL CHECK (priority BETWEEN 0 AND 10),
    due_at    timestamptz NOT NULL
);
CREATE INDEX held_lanes ON held (queue, lane, priority DESC, due_at, task_id);

-- What limits have let through, until its attempt is over: the task's own row says when that is. A worker claims a limited
-- task only with its admission.
CREATE TABLE admissions (
    task_id     bigint      PRIMARY KEY,
    attempt     integer     NOT NULL CHECK (attempt >= 0),
    queue       text        NOT NULL,
    type        text        NOT NULL,
    queue_key   text        NOT NULL,
    type_key    text        NOT NULL,
    rules       text        NOT NULL,
    priority    smallint    NOT NULL CHECK (priority BETWEEN 0 AND 10),
    due_at      timestamptz NOT NULL,
    confirmed   boolean     NOT NULL DEFAULT false, -- by the broker; if not, its hint is published again
    admitted_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- What is left of a rate. No row: all of it.
CREATE TABLE rate_buckets (
    scope     text             NOT NULL CHECK (scope IN ('queue', 'queue_key', 'type', 'type_key')),
    name      text             NOT NULL, -- of the queue or type
    key       text             NOT NULL,
    tokens    double precision NOT NULL,
    waiting   integer          NOT NULL, -- tasks that were let through and had not started: their places do not fill
    filled_at timestamptz      NOT NULL,
    full_at   timestamptz      NOT NULL, -- from then on the row says nothing
    PRIMARY KEY (scope, name, key)
) WITH (fillfactor = 70);
CREATE INDEX rate_buckets_full ON rate_buckets (full_at);

-- The value of a JSON Pointer in a payload, as text; empty without one. No payload that a row can hold makes it fail.
CREATE FUNCTION bobrai_key(payload json, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    path text[] := ARRAY(
        SELECT replace(replace(part, '~1', '/'), '~0', '~')
        FROM unnest(string_to_array(substr(pointer, 2), '/')) WITH ORDINALITY AS p (part, position) ORDER BY position);
    found text;
BEGIN
    BEGIN
        found := payload #>> path;
    EXCEPTION WHEN others THEN -- \u0000, which no text can hold, wherever it stands
        found := replace(payload::text, '\u0000', '\ufffd')::json #>> path;
    END;
    RETURN CASE WHEN length(found) > 128 THEN left(found, 64) || encode(sha256(convert_to(found, 'UTF8')), 'hex')
                ELSE coalesce(found, '') END;
EXCEPTION WHEN others THEN
    RETURN '';
END
$$;

-- By what the tasks of a queue and a type are told apart; NULL: nothing limits them.
CREATE FUNCTION bobrai_rules(queue_limits json, type_limits json) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN queue_limits IS NOT NULL OR type_limits IS NOT NULL
                THEN coalesce(queue_limits #>> '{per_key,key}', '') || E'\n'
                     || CASE WHEN type_limits IS NULL THEN '' ELSE '=' || coalesce(type_limits #>> '{per_key,key}', '') END
           END
$$;

-- The lane of a task that something limits.
CREATE FUNCTION bobrai_lane(
    payload json, type text, queue_limits json, type_limits json,
    OUT rules text, OUT queue_key text, OUT type_key text, OUT lane bytea
) LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    rules := bobrai_rules(queue_limits, type_limits);
    queue_key := CASE WHEN queue_limits #>> '{per_key,key}' IS NULL THEN ''
                      ELSE bobrai_key(payload, queue_limits #>> '{per_key,key}') END;
    type_key := CASE WHEN type_limits #>> '{per_key,key}' IS NULL THEN ''
                     ELSE bobrai_key(payload, type_limits #>> '{per_key,key}') END;
    lane := substring(sha256(convert_to(jsonb_build_array(
        rules, CASE WHEN type_limits IS NULL THEN '' ELSE type END, queue_key, type_key)::text, 'UTF8')) FOR 16);
END
$$;

-- Rows of these come and go as those of the outbox do.
ALTER TABLE held SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                      autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
                      autovacuum_vacuum_cost_delay = 0);
ALTER TABLE admissions SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                            autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
                            autovacuum_vacuum_cost_delay = 0);
ALTER TABLE rate_buckets SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                              autovacuum_vacuum_cost_delay = 0);
