-- name: take_due
-- Removes due hints, per queue at most its room, the most urgent first, no more than the limit over all; queues are asked
-- in the order given. Inside a transaction that commits after the broker's confirm: a crash before that puts every row
-- back. One index probe per priority, so that a million delayed urgent tasks cost nothing. A pause holds from its commit
-- on, whatever list of queues the caller still has.
WITH due AS MATERIALIZED (
    SELECT d.task_id
    FROM unnest($1::text[], $2::integer[]) AS w (queue, room)
    CROSS JOIN LATERAL (
        SELECT o.task_id
        FROM generate_series(10, 0, -1) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT task_id FROM outbox
            WHERE queue = w.queue AND priority = p.priority AND due_at <= now()
            ORDER BY due_at, task_id LIMIT w.room FOR UPDATE SKIP LOCKED
        ) AS o
        LIMIT w.room
    ) AS d
    WHERE (SELECT NOT q.paused AND q.removed_at IS NULL FROM queues AS q WHERE q.name = w.queue)
    LIMIT $3
)
DELETE FROM outbox AS o USING due WHERE o.task_id = due.task_id
RETURNING o.task_id, o.attempt, o.queue, o.priority, o.due_at,
          extract(epoch FROM now() - o.due_at)::double precision AS waited_seconds;

-- name: return_hints
-- Puts hints back that the broker refused.
INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::smallint[], $5::timestamptz[])
ON CONFLICT (task_id) DO NOTHING;

-- name: next_due
-- Seconds until the next hint of a running queue falls due; negative when one is due now, NULL when nothing waits.
SELECT extract(epoch FROM min(o.due_at) - now())::double precision AS seconds
FROM queues AS q
CROSS JOIN generate_series(0, 10) AS p (priority)
CROSS JOIN LATERAL (
    SELECT due_at FROM outbox WHERE queue = q.name AND priority = p.priority ORDER BY due_at LIMIT 1
) AS o
WHERE NOT q.paused AND q.removed_at IS NULL;

-- name: release_hints
-- A worker gives back hints that it has not claimed: they are published again for whoever is free.
INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
SELECT t.id, t.attempt, t.queue, t.priority, t.run_at
FROM tasks AS t JOIN unnest($1::bigint[], $2::integer[]) AS h (task_id, attempt) ON t.id = h.task_id
WHERE t.status = 'pending' AND t.attempt = h.attempt
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id, pg_notify('bobrai_outbox', '') AS notified;

-- name: unheld
-- Pending tasks of a queue without an outbox row, due for longer than the grace, that no limit keeps back: a message holds
-- them, or nothing does. The outbox is probed by key: a join would read it all, with every delayed task in it.
SELECT t.id, t.attempt
FROM tasks AS t
WHERE t.status = 'pending' AND t.queue = $1 AND t.run_at < now() - make_interval(secs => $2::double precision)
  AND (SELECT o.task_id FROM outbox AS o WHERE o.task_id = t.id) IS NULL
  AND (SELECT h.task_id FROM held AS h WHERE h.task_id = t.id) IS NULL
ORDER BY t.run_at LIMIT $3;

-- name: sweep
-- Gives those of these attempts that are still waiting a new outbox row.
WITH lost AS (
    SELECT t.id, t.attempt, t.queue, t.priority
    FROM tasks AS t JOIN unnest($1::bigint[], $2::integer[]) AS h (task_id, attempt) ON t.id = h.task_id
    WHERE t.status = 'pending' AND t.attempt = h.attempt
    FOR UPDATE OF t SKIP LOCKED
)
INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
SELECT id, attempt, queue, priority, now() FROM lost
ON CONFLICT (task_id) DO NOTHING
RETURNING task_id, pg_notify('bobrai_outbox', '') AS notified;

-- name: trace_contexts
-- Where tasks that are published come from, for their spans: asked only while traces are on.
SELECT trace_context, extract(epoch FROM now() - min(created_at))::double precision AS age_seconds
FROM tasks WHERE id = ANY($1::bigint[]) AND trace_context <> '' GROUP BY trace_context;

-- name: wake_relay
SELECT pg_notify('bobrai_outbox', '') AS notified;

-- name: due_waits
-- Whether a queue has due hints that wait for the relay.
SELECT EXISTS (
    SELECT FROM generate_series(0, 10) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT FROM outbox WHERE queue = $1 AND priority = p.priority AND due_at <= now() LIMIT 1
    ) AS o
) AS waits;
