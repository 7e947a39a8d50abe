-- name: announce_types
INSERT INTO task_types (name, queue, description, payload_schema, result_schema, retry, timeout_seconds,
                        deadline_seconds, unique_rule)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::json[], $5::json[], $6::json[], $7::double precision[],
                     $8::double precision[], $9::json[])
ON CONFLICT (name) DO UPDATE
SET queue = excluded.queue, description = excluded.description, payload_schema = excluded.payload_schema,
    result_schema = excluded.result_schema, retry = excluded.retry, timeout_seconds = excluded.timeout_seconds,
    deadline_seconds = excluded.deadline_seconds, unique_rule = excluded.unique_rule, announced_at = now(),
    seen_at = now();

-- name: task_types
SELECT name, queue, description, payload_schema, result_schema, retry, timeout_seconds, deadline_seconds, unique_rule,
       announced_at
FROM task_types ORDER BY name;

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
