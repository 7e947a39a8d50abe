-- name: announce_types
-- Limits that a person has set stay in force.
INSERT INTO task_types (name, queue, description, payload_schema, result_schema, retry, timeout_seconds,
                        deadline_seconds, unique_rule, declared_limits, limits, runs_in, memory_mb)
SELECT a.name, a.queue, a.description, a.payload_schema, a.result_schema, a.retry, a.timeout_seconds,
       a.deadline_seconds, a.unique_rule, a.limits, a.limits, a.runs_in, a.memory_mb
FROM unnest($1::text[], $2::text[], $3::text[], $4::json[], $5::json[], $6::json[], $7::double precision[],
            $8::double precision[], $9::json[], $10::json[], $11::text[], $12::integer[])
     AS a (name, queue, description, payload_schema, result_schema, retry, timeout_seconds, deadline_seconds,
           unique_rule, limits, runs_in, memory_mb)
ON CONFLICT (name) DO UPDATE
SET queue = excluded.queue, description = excluded.description, payload_schema = excluded.payload_schema,
    result_schema = excluded.result_schema, retry = excluded.retry, timeout_seconds = excluded.timeout_seconds,
    deadline_seconds = excluded.deadline_seconds, unique_rule = excluded.unique_rule,
    declared_limits = excluded.declared_limits,
    limits = CASE WHEN task_types.limits_set THEN task_types.limits ELSE excluded.limits END,
    runs_in = excluded.runs_in, memory_mb = excluded.memory_mb, announced_at = now(), seen_at = now();

-- name: task_types
SELECT name, queue, description, payload_schema, result_schema, retry, timeout_seconds, deadline_seconds, unique_rule,
       announced_at, declared_limits, limits, limits_set, runs_in, memory_mb
FROM task_types ORDER BY name;

-- name: set_type_limits
-- Sets a type's limits, or has the declared ones hold again. The lock has the audit tell what was there in truth.
WITH before AS MATERIALIZED (
    SELECT limits, limits_set FROM task_types WHERE name = $1 FOR UPDATE
), changed AS (
    UPDATE task_types SET limits = CASE WHEN $2::boolean THEN $3::json ELSE declared_limits END, limits_set = $2::boolean
    WHERE name = $1 AND EXISTS (SELECT FROM before)
    RETURNING limits, limits_set
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $4, $5, $6, $7, 'type.change', 'type:' || $1, to_jsonb(b), to_jsonb(c)
    FROM before AS b, changed AS c WHERE to_jsonb(b) <> to_jsonb(c)
    RETURNING id
)
SELECT (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_outbox', '') AS notified FROM changed;

-- name: touch_types
-- Notes which types living workers have; a worker that does not say may have any of them.
UPDATE task_types SET seen_at = now() WHERE name = ANY (ARRAY(
    SELECT y.name FROM task_types AS y
    WHERE y.seen_at < now() - interval '1 min'
      AND EXISTS (SELECT FROM workers AS w
                  WHERE w.expires_at > now() AND (w.types IS NULL OR y.name = ANY (w.types)))
    FOR UPDATE SKIP LOCKED));

-- name: forget_types
-- Forgets types that no worker has had for so long. What waits or runs of a type counts as its use: it is looked for only
-- when the time is over, and then not again before it is over once more, because it may mean to read all that waits.
WITH late AS MATERIALIZED (
    SELECT y.name FROM task_types AS y
    WHERE y.seen_at < now() - make_interval(secs => $1::double precision)
      AND NOT EXISTS (SELECT FROM workers AS w
                      WHERE w.expires_at > now() AND (w.types IS NULL OR y.name = ANY (w.types)))
    ORDER BY y.name FOR UPDATE SKIP LOCKED
), used AS MATERIALIZED (
    SELECT name FROM late AS l
    WHERE EXISTS (SELECT FROM tasks AS t WHERE t.status = 'processing' AND t.type = l.name)
       OR EXISTS (SELECT FROM tasks AS t WHERE t.status = 'pending' AND t.type = l.name)
), kept AS (
    UPDATE task_types SET seen_at = now() WHERE name IN (SELECT name FROM used)
)
DELETE FROM task_types WHERE name IN (SELECT name FROM late EXCEPT SELECT name FROM used) RETURNING name;
