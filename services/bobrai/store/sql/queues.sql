-- name: ensure_queues
-- Makes what is not there, and takes back what was removed. Rows of living queues are left out before the insert, because
-- it would wait for whoever measures them.
INSERT INTO queues (name)
SELECT DISTINCT w.name FROM unnest($1::text[]) AS w (name)
WHERE NOT EXISTS (SELECT FROM queues AS q WHERE q.name = w.name AND q.removed_at IS NULL)
ORDER BY w.name
ON CONFLICT (name) DO UPDATE SET removed_at = NULL, created_at = now(), used_at = now()
    WHERE queues.removed_at IS NOT NULL
RETURNING name;

-- name: put_queue
-- Makes a queue that is kept, or changes one and keeps it from now on. No row: there would be more than the limit. The
-- lock has the audit tell what was there in truth; whoever measures the queue holds it for a moment.
WITH before AS MATERIALIZED (
    SELECT kept, paused, max_backlog, limits FROM queues WHERE name = $1 AND removed_at IS NULL FOR UPDATE
), changed AS (
    INSERT INTO queues (name, kept, paused, max_backlog, limits)
    SELECT $1, true, coalesce($2::boolean, false), $4::bigint, $6::json
    WHERE EXISTS (SELECT FROM before)
       OR (SELECT count(*) FROM queues WHERE removed_at IS NULL) < $11::integer
    ON CONFLICT (name) DO UPDATE
    SET kept = true, paused = coalesce($2::boolean, queues.paused),
        max_backlog = CASE WHEN $3::boolean THEN $4::bigint ELSE queues.max_backlog END,
        limits = CASE WHEN $5::boolean THEN $6::json ELSE queues.limits END, used_at = now(),
        created_at = CASE WHEN queues.removed_at IS NULL THEN queues.created_at ELSE now() END, removed_at = NULL
    RETURNING kept, paused, max_backlog, limits
), compared AS (
    SELECT (SELECT to_jsonb(b) FROM before AS b) AS before, to_jsonb(c) AS after FROM changed AS c
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $7, $8, $9, $10, CASE WHEN before IS NULL THEN 'queue.create' ELSE 'queue.change' END, 'queue:' || $1,
           before, after
    FROM compared WHERE before IS DISTINCT FROM after
    RETURNING id
)
SELECT before IS NULL AS made, (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_outbox', '') AS notified
FROM compared;

-- name: remove_queue
-- Marks a queue as removed when nothing waits or runs in it and no living worker consumes it; says what there is if not.
-- From the mark on it is as good as gone: its row is as a new one's, should it come back before RabbitMQ's has gone.
WITH target AS MATERIALIZED (
    SELECT name, kept, paused, max_backlog, limits FROM queues WHERE name = $1 AND removed_at IS NULL FOR UPDATE
), found AS MATERIALIZED (
    SELECT name, EXISTS (SELECT FROM tasks WHERE status = 'pending' AND queue = $1) AS waits,
           (SELECT count(*) FROM tasks WHERE status = 'processing' AND queue = $1) AS running,
           (SELECT count(*) FROM workers WHERE expires_at > now() AND $1 = ANY (queues)) AS workers
    FROM target
), removed AS (
    UPDATE queues AS q
    SET removed_at = now(), kept = false, paused = false, max_backlog = NULL, limits = NULL, due = 0, held = 0,
        delayed = 0, between_attempts = 0, processing = 0, oldest_due_at = NULL, depth = NULL, measured_at = NULL,
        waiting_measured_at = NULL
    FROM found AS f WHERE q.name = f.name AND NOT f.waits AND f.running = 0 AND f.workers = 0
    RETURNING q.name
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before)
    SELECT $2, $3, $4, $5, 'queue.remove', 'queue:' || t.name, to_jsonb(t) - 'name'
    FROM target AS t WHERE EXISTS (SELECT FROM removed)
    RETURNING id
)
SELECT waits, running, workers, EXISTS (SELECT FROM removed) AS removed, (SELECT id FROM recorded) AS audit_id
FROM found;

-- name: remove_idle_queues
-- Removes queues that a task made and none has used for so long, unless somebody has given them a wish of their own.
UPDATE queues
SET removed_at = now(), due = 0, held = 0, delayed = 0, between_attempts = 0, processing = 0, oldest_due_at = NULL,
    depth = NULL, measured_at = NULL, waiting_measured_at = NULL
WHERE name = ANY (ARRAY(
    SELECT q.name FROM queues AS q
    WHERE q.removed_at IS NULL AND NOT q.kept AND NOT q.paused AND q.max_backlog IS NULL AND q.limits IS NULL
      AND q.name <> 'default'
      AND greatest(q.used_at, q.created_at) < now() - make_interval(secs => $1::double precision)
      AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.status = 'pending' AND t.queue = q.name)
      AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.status = 'processing' AND t.queue = q.name)
      AND NOT EXISTS (SELECT FROM workers AS w WHERE w.expires_at > now() AND q.name = ANY (w.queues))
    FOR UPDATE SKIP LOCKED))
RETURNING name;

-- name: restore_queues
-- Makes the row of every queue in which a task waits, or that a living worker consumes: whoever stored such a task may not
-- have known yet that the queue was removed. One index probe per queue, however much waits.
WITH RECURSIVE waiting AS (
    (SELECT queue FROM tasks WHERE status = 'pending' ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT t.queue FROM tasks AS t WHERE t.status = 'pending' AND t.queue > w.queue ORDER BY t.queue LIMIT 1)
    FROM waiting AS w WHERE w.queue IS NOT NULL
), published AS (
    (SELECT queue FROM outbox ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT o.queue FROM outbox AS o WHERE o.queue > p.queue ORDER BY o.queue LIMIT 1)
    FROM published AS p WHERE p.queue IS NOT NULL
), needed AS (
    SELECT queue FROM waiting UNION SELECT queue FROM published
    UNION SELECT unnest(queues) FROM workers WHERE expires_at > now()
), made AS (
    INSERT INTO queues (name)
    SELECT n.queue FROM needed AS n
    WHERE n.queue IS NOT NULL
      AND NOT EXISTS (SELECT FROM queues AS q WHERE q.name = n.queue AND q.removed_at IS NULL)
    ORDER BY n.queue
    ON CONFLICT (name) DO UPDATE SET removed_at = NULL, created_at = now(), used_at = now()
        WHERE queues.removed_at IS NOT NULL
    RETURNING name
)
SELECT name, pg_notify('bobrai_outbox', '') AS notified FROM made;

-- name: touch_queues
-- Notes that these queues are used; a minute is exact enough, and spares the row a write for every look.
UPDATE queues SET used_at = now() WHERE name = ANY (ARRAY(
    SELECT name FROM queues
    WHERE name = ANY ($1::text[]) AND used_at < now() - interval '1 min' FOR UPDATE SKIP LOCKED));

-- name: removed_queue
-- One queue that was removed long enough ago for everybody to know, locked, so that nobody brings it back meanwhile.
SELECT q.name FROM queues AS q
WHERE q.removed_at < now() - make_interval(secs => $1::double precision) AND q.name <> ALL ($2::text[])
  AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.status = 'pending' AND t.queue = q.name)
ORDER BY q.removed_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: forget_queue
DELETE FROM queues WHERE name = $1 AND removed_at IS NOT NULL;

-- name: queues
SELECT q.name, q.paused, q.max_backlog, q.limits, q.due, q.held, q.delayed, q.between_attempts, q.processing, q.depth,
       q.measured_at, q.oldest_due_at, extract(epoch FROM now() - q.oldest_due_at)::double precision AS oldest_due_age_seconds,
       extract(epoch FROM now() - q.measured_at)::double precision AS measured_age_seconds
FROM queues AS q WHERE q.removed_at IS NULL ORDER BY q.name;

-- name: set_queue
WITH before AS MATERIALIZED (
    SELECT kept, paused, max_backlog, limits FROM queues WHERE name = $1 AND removed_at IS NULL FOR UPDATE
), changed AS (
    UPDATE queues
    SET paused = coalesce($2, paused), max_backlog = CASE WHEN $3::boolean THEN $4::bigint ELSE max_backlog END,
        limits = CASE WHEN $5::boolean THEN $6::json ELSE limits END
    WHERE name = $1 AND removed_at IS NULL AND EXISTS (SELECT FROM before)
    RETURNING kept, paused, max_backlog, limits
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $7, $8, $9, $10, 'queue.change', 'queue:' || $1, to_jsonb(b), to_jsonb(c)
    FROM before AS b, changed AS c WHERE to_jsonb(b) <> to_jsonb(c)
    RETURNING id
)
SELECT (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_outbox', '') AS notified FROM changed;

-- name: live_queues
SELECT name, paused FROM queues WHERE removed_at IS NULL ORDER BY name;

-- name: take_measuring
-- Queues whose figures are older than the period; the lock leaves each to one dispatcher. The one that measured a queue
-- last keeps it, because the others wait for some of its periods.
SELECT name, waiting_measured_at IS NULL
             OR waiting_measured_at < now() - make_interval(secs => $4::double precision) AS waiting_too
FROM queues
WHERE removed_at IS NULL
  AND (measured_at IS NULL
       OR measured_at < now() - make_interval(secs => CASE WHEN name = ANY($1::text[]) THEN $2::double precision
                                                           ELSE measured_every * $3::double precision END))
FOR UPDATE SKIP LOCKED;

-- name: measure_due
-- What is due now, apart from what limits hold back, and what runs. Where they do, the oldest that may run waits in the
-- outbox or in a lane.
UPDATE queues AS q
SET due = d.due - least(m.held, d.due), held = least(m.held, d.due), processing = coalesce(p.processing, 0),
    oldest_due_at = CASE WHEN m.held = 0 THEN d.oldest ELSE least(m.oldest_due_at, (
        SELECT min(o.due_at)
        FROM generate_series(0, 10) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT due_at FROM outbox WHERE queue = m.name AND priority = p.priority AND due_at <= now()
            ORDER BY due_at LIMIT 1
        ) AS o)) END,
    measured_at = now(), depth = m.depth, measured_every = $3
FROM unnest($1::text[], $2::bigint[], $4::bigint[], $5::timestamptz[]) AS m (name, depth, held, oldest_due_at)
CROSS JOIN LATERAL (
    SELECT count(*) AS due, min(run_at) AS oldest FROM tasks
    WHERE status = 'pending' AND queue = m.name AND run_at <= now()
) AS d
LEFT JOIN (
    SELECT queue, count(*) AS processing FROM tasks WHERE status = 'processing' GROUP BY queue
) AS p ON p.queue = m.name
WHERE q.name = m.name
RETURNING q.name, q.due, q.held, q.processing, q.delayed, q.between_attempts, q.depth, q.paused,
          extract(epoch FROM now() - q.oldest_due_at)::double precision AS oldest_due_age_seconds,
          (SELECT extract(epoch FROM now() - min(o.due_at))::double precision
           FROM generate_series(0, 10) AS p (priority)
           CROSS JOIN LATERAL (
               SELECT due_at FROM outbox WHERE queue = q.name AND priority = p.priority AND due_at <= now()
               ORDER BY due_at LIMIT 1
           ) AS o) AS outbox_lag_seconds;

-- name: set_measuring_period
-- Counting took longer or shorter than before: when its dispatcher comes again.
UPDATE queues SET measured_every = $2 WHERE name = ANY($1::text[]);

-- name: measure_waiting
-- What is not due yet. With a million delayed tasks this counts a million index entries, so it runs less often.
UPDATE queues AS q
SET delayed = w.delayed, between_attempts = w.between_attempts, waiting_measured_at = now()
FROM unnest($1::text[]) AS m (name)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE attempt = attempts_before) AS delayed,
           count(*) FILTER (WHERE attempt > attempts_before) AS between_attempts
    FROM tasks WHERE status = 'pending' AND queue = m.name AND run_at > now()
) AS w
WHERE q.name = m.name
RETURNING q.name;
