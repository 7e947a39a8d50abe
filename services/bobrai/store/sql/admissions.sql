-- Limits: what they hold back, and what they let through. What counts as running is read from the tasks' own rows, so that
-- whatever dies, no place is lost. All of it but confirm_admissions runs while the caller holds the lock of admit_lock.

-- name: hold
-- Those of these hints whose queue or type is limited go to their lanes; the caller has just taken them from the outbox.
INSERT INTO held (task_id, attempt, queue, lane, type, queue_key, type_key, rules, priority, due_at)
SELECT t.id, h.attempt, h.queue, l.lane, t.type, l.queue_key, l.type_key, l.rules, h.priority, h.due_at
FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::smallint[], $5::timestamptz[])
     AS h (task_id, attempt, queue, priority, due_at)
JOIN tasks AS t ON t.id = h.task_id
LEFT JOIN queues AS q ON q.name = h.queue
LEFT JOIN task_types AS y ON y.name = t.type
CROSS JOIN LATERAL bobrai_lane(t.payload, t.type, q.limits, y.limits) AS l
WHERE q.limits IS NOT NULL OR y.limits IS NOT NULL
ON CONFLICT (task_id) DO UPDATE
SET attempt = excluded.attempt, queue = excluded.queue, lane = excluded.lane, type = excluded.type,
    queue_key = excluded.queue_key, type_key = excluded.type_key, rules = excluded.rules, priority = excluded.priority,
    due_at = excluded.due_at
RETURNING task_id;

-- name: sort_due
-- Due hints of limited queues go to their lanes, the most urgent first, about so many: all of these queues are for lanes.
WITH due AS MATERIALIZED (
    SELECT d.task_id
    FROM queues AS q
    CROSS JOIN LATERAL (
        SELECT o.task_id
        FROM generate_series(10, 0, -1) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT task_id FROM outbox
            WHERE queue = q.name AND priority = p.priority AND due_at <= now()
            ORDER BY due_at, task_id LIMIT $2::bigint FOR UPDATE SKIP LOCKED
        ) AS o
        LIMIT greatest(1, $2::bigint / cardinality($1::text[]))
    ) AS d
    WHERE q.name = ANY ($1::text[]) AND q.limits IS NOT NULL AND NOT q.paused AND q.removed_at IS NULL
), taken AS (
    DELETE FROM outbox AS o USING due WHERE o.task_id = due.task_id
    RETURNING o.task_id, o.attempt, o.queue, o.priority, o.due_at
), stored AS (
    INSERT INTO held (task_id, attempt, queue, lane, type, queue_key, type_key, rules, priority, due_at)
    SELECT t.id, h.attempt, h.queue, l.lane, t.type, l.queue_key, l.type_key, l.rules, h.priority, h.due_at
    FROM taken AS h
    JOIN tasks AS t ON t.id = h.task_id
    JOIN queues AS q ON q.name = h.queue
    LEFT JOIN task_types AS y ON y.name = t.type
    CROSS JOIN LATERAL bobrai_lane(t.payload, t.type, q.limits, y.limits) AS l
    ON CONFLICT (task_id) DO UPDATE
    SET attempt = excluded.attempt, queue = excluded.queue, lane = excluded.lane, type = excluded.type,
        queue_key = excluded.queue_key, type_key = excluded.type_key, rules = excluded.rules,
        priority = excluded.priority, due_at = excluded.due_at
    RETURNING 1
)
SELECT count(*) AS sorted FROM stored;

-- name: are_awaited
-- Whether a decision is awaited: something waits in a lane of these queues, or is due in one of the limited ones ($2).
SELECT EXISTS (
    SELECT FROM unnest($1::text[]) AS q (name)
    CROSS JOIN LATERAL (SELECT FROM held WHERE queue = q.name LIMIT 1) AS h
) OR EXISTS (
    SELECT FROM unnest($2::text[]) AS q (name)
    CROSS JOIN generate_series(0, 10) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT FROM outbox WHERE queue = q.name AND priority = p.priority AND due_at <= now() LIMIT 1
    ) AS o
) AS awaited;

-- name: admit_lock
-- One dispatcher at a time decides what may start; the others come back.
SELECT pg_try_advisory_xact_lock(7_028_111_045) AS ours;

-- name: adopt
-- What runs without an admission, because a limit is younger than it, gets one: it counts.
INSERT INTO admissions (task_id, attempt, queue, type, queue_key, type_key, rules, priority, due_at, confirmed)
SELECT t.id, t.attempt - 1, t.queue, t.type, l.queue_key, l.type_key, l.rules, t.priority, t.run_at, true
FROM tasks AS t
LEFT JOIN queues AS q ON q.name = t.queue
LEFT JOIN task_types AS y ON y.name = t.type
CROSS JOIN LATERAL bobrai_lane(t.payload, t.type, q.limits, y.limits) AS l
WHERE t.status = 'processing' AND (q.limits IS NOT NULL OR y.limits IS NOT NULL)
  AND NOT EXISTS (SELECT FROM admissions AS a WHERE a.task_id = t.id)
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id;

-- name: recount
-- What was let through under other limits counts under those of now.
UPDATE admissions AS a
SET queue_key = l.queue_key, type_key = l.type_key, rules = l.rules
FROM tasks AS t
LEFT JOIN queues AS q ON q.name = t.queue
LEFT JOIN task_types AS y ON y.name = t.type
CROSS JOIN LATERAL bobrai_lane(t.payload, t.type, q.limits, y.limits) AS l
WHERE t.id = a.task_id AND a.rules <> coalesce(l.rules, '')
  AND (q.limits IS NOT NULL OR y.limits IS NOT NULL)
RETURNING a.task_id;

-- name: admitted
-- What is let through, by lane; how much of it has not started, and which attempts are over: they hold no place any more.
-- Who waits in the outbox again, or in a lane, was given back. LIMIT 1: a probe for each of a few, whatever the planner
-- thinks of how few they are.
SELECT a.queue, a.type, a.queue_key, a.type_key,
       count(*) FILTER (WHERE s.waits OR s.runs) AS admitted, count(*) FILTER (WHERE s.waits) AS waiting,
       array_agg(a.task_id) FILTER (WHERE NOT s.waits AND NOT s.runs) AS over
FROM admissions AS a
LEFT JOIN LATERAL (SELECT status, attempt FROM tasks WHERE id = a.task_id LIMIT 1) AS t ON true
CROSS JOIN LATERAL (
    SELECT coalesce(t.status = 'processing' AND t.attempt = a.attempt + 1, false) AS runs,
           coalesce(t.status = 'pending' AND t.attempt = a.attempt
                    AND (SELECT o.task_id FROM outbox AS o WHERE o.task_id = a.task_id) IS NULL
                    AND (SELECT h.task_id FROM held AS h WHERE h.task_id = a.task_id) IS NULL, false) AS waits
) AS s
GROUP BY a.queue, a.type, a.queue_key, a.type_key;

-- name: lock_over
-- A worker that claims with one of these just now has it locked; then it is not over.
SELECT task_id FROM admissions WHERE task_id = ANY($1::bigint[]) ORDER BY task_id FOR UPDATE SKIP LOCKED;

-- name: drop_over
-- Looked at again with the rows locked: from here on nobody claims with one of them.
DELETE FROM admissions AS a
WHERE a.task_id = ANY($1::bigint[])
  AND NOT EXISTS (
      SELECT FROM tasks AS t
      WHERE t.id = a.task_id
        AND (t.status = 'processing' AND t.attempt = a.attempt + 1
             OR t.status = 'pending' AND t.attempt = a.attempt
                AND NOT EXISTS (SELECT FROM outbox AS o WHERE o.task_id = a.task_id)
                AND NOT EXISTS (SELECT FROM held AS h WHERE h.task_id = a.task_id)))
RETURNING task_id;

-- name: lanes
-- Lanes of running queues in which something waits, each queue's from after the given one on, and how much waits there,
-- counted no further than needed. One index probe per lane, however much waits in it. is_old: the limits have changed.
WITH RECURSIVE found AS (
    SELECT s.queue, h.lane, 1 AS position
    FROM unnest($1::text[], $2::bytea[]) AS s (queue, after)
    CROSS JOIN LATERAL (
        SELECT lane FROM held WHERE queue = s.queue AND lane > s.after ORDER BY lane LIMIT 1
    ) AS h
    UNION ALL
    SELECT f.queue, h.lane, f.position + 1
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT lane FROM held WHERE queue = f.queue AND lane > f.lane ORDER BY lane LIMIT 1
    ) AS h
    WHERE f.position < $3::integer
)
SELECT f.queue, f.lane, h.type, h.queue_key, h.type_key,
       h.rules IS DISTINCT FROM bobrai_rules(q.limits, y.limits) AS is_old,
       (SELECT count(*) FROM (
           SELECT FROM held AS w WHERE w.queue = f.queue AND w.lane = f.lane
           LIMIT greatest(1, $4::integer / (SELECT count(*) FROM found))) AS counted) AS waiting
FROM found AS f
CROSS JOIN LATERAL (
    SELECT type, queue_key, type_key, rules FROM held WHERE queue = f.queue AND lane = f.lane LIMIT 1
) AS h
JOIN queues AS q ON q.name = f.queue
LEFT JOIN task_types AS y ON y.name = h.type
ORDER BY f.queue, f.lane;

-- name: waiting_lanes
-- How much waits in each lane, and since when, for the figures: at most so many lanes.
SELECT queue, type, queue_key, type_key, count(*) AS waiting, min(due_at) AS oldest_due_at
FROM held GROUP BY queue, type, queue_key, type_key LIMIT $1;

-- name: dissolve
-- Some of a lane's hints go back to the outbox, because the limits that made the lane are gone.
WITH gone AS (
    DELETE FROM held WHERE task_id = ANY (ARRAY(
        SELECT task_id FROM held WHERE queue = $1 AND lane = $2 ORDER BY priority DESC, due_at, task_id LIMIT $3))
    RETURNING task_id, attempt, queue, priority, due_at
)
INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
SELECT task_id, attempt, queue, priority, due_at FROM gone
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id;

-- name: buckets
-- What was left of these rates, and for how long they have filled since.
SELECT b.scope, b.name, b.key, b.tokens, b.waiting, extract(epoch FROM now() - b.filled_at)::double precision AS age_seconds
FROM rate_buckets AS b
JOIN unnest($1::text[], $2::text[], $3::text[]) AS w (scope, name, key)
  ON b.scope = w.scope AND b.name = w.name AND b.key = w.key;

-- name: fill_buckets
INSERT INTO rate_buckets (scope, name, key, tokens, waiting, filled_at, full_at)
SELECT scope, name, key, tokens, waiting, now(), now() + make_interval(secs => full_after)
FROM unnest($1::text[], $2::text[], $3::text[], $4::double precision[], $5::integer[], $6::double precision[])
     AS b (scope, name, key, tokens, waiting, full_after)
ON CONFLICT (scope, name, key) DO UPDATE
SET tokens = excluded.tokens, waiting = excluded.waiting, filled_at = excluded.filled_at, full_at = excluded.full_at
RETURNING scope;

-- name: prune_buckets
DELETE FROM rate_buckets WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rate_buckets WHERE full_at < now() ORDER BY full_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING scope;

-- name: admit
-- Lets the most urgent hints of these lanes through, each lane at most its room. What was cancelled or claimed meanwhile
-- is dropped.
WITH taken AS (
    DELETE FROM held AS h
    WHERE h.task_id = ANY (ARRAY(
        SELECT d.task_id
        FROM unnest($1::text[], $2::bytea[], $3::integer[]) AS w (queue, lane, room)
        CROSS JOIN LATERAL (
            SELECT task_id FROM held WHERE queue = w.queue AND lane = w.lane
            ORDER BY priority DESC, due_at, task_id LIMIT w.room FOR UPDATE SKIP LOCKED
        ) AS d))
    RETURNING h.*
), live AS (
    SELECT taken.* FROM taken
    CROSS JOIN LATERAL (SELECT status, attempt FROM tasks WHERE id = taken.task_id LIMIT 1) AS t
    WHERE t.status = 'pending' AND t.attempt = taken.attempt
)
INSERT INTO admissions (task_id, attempt, queue, type, queue_key, type_key, rules, priority, due_at)
SELECT task_id, attempt, queue, type, queue_key, type_key, rules, priority, due_at FROM live
ON CONFLICT (task_id) DO UPDATE
SET attempt = excluded.attempt, queue = excluded.queue, type = excluded.type, queue_key = excluded.queue_key,
    type_key = excluded.type_key, rules = excluded.rules, priority = excluded.priority, due_at = excluded.due_at,
    confirmed = false, admitted_at = now()
RETURNING task_id, attempt, queue, priority, due_at, type, queue_key, type_key,
          extract(epoch FROM now() - due_at)::double precision AS waited_seconds;

-- name: confirm_admissions
-- The broker has the messages of these.
UPDATE admissions SET confirmed = true
WHERE task_id = ANY($1::bigint[]) AND NOT confirmed
RETURNING task_id;

-- name: unstarted
-- What was let through so long ago, still waits, and perhaps was never published, because its dispatcher ended or its broker
-- did not answer; or it was, and is not in the broker's queue any more ($4), so that somebody has it who does nothing.
UPDATE admissions SET admitted_at = now()
WHERE task_id = ANY (ARRAY(
    SELECT a.task_id FROM admissions AS a JOIN tasks AS t ON t.id = a.task_id
    WHERE (NOT a.confirmed OR a.queue = ANY ($4::text[]))
      AND a.admitted_at < now() - make_interval(secs => $1::double precision)
      AND t.status || '' = 'pending' AND t.attempt = a.attempt AND a.queue = ANY ($3::text[])
    ORDER BY a.admitted_at LIMIT $2))
RETURNING task_id, attempt, queue, priority, due_at;

-- name: limited_names
SELECT ARRAY(SELECT name FROM queues WHERE limits IS NOT NULL) AS queues,
       ARRAY(SELECT name FROM task_types WHERE limits IS NOT NULL) AS types;

-- name: limited
-- What is limited now, and whether anything of it is under way.
SELECT (SELECT coalesce(json_object_agg(name, limits), '{}') FROM queues
        WHERE limits IS NOT NULL AND removed_at IS NULL) AS queues,
       (SELECT coalesce(json_object_agg(name, limits), '{}') FROM task_types WHERE limits IS NOT NULL) AS types,
       EXISTS (SELECT FROM held) OR EXISTS (SELECT FROM admissions) AS under_way;
