-- name: ensure_queues
INSERT INTO queues (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING RETURNING name;

-- name: queues
SELECT q.name, q.paused, q.max_backlog, q.due, q.delayed, q.between_attempts, q.processing, q.depth, q.measured_at,
       q.oldest_due_at, extract(epoch FROM now() - q.oldest_due_at)::double precision AS oldest_due_age_seconds,
       extract(epoch FROM now() - q.measured_at)::double precision AS measured_age_seconds
FROM queues AS q ORDER BY q.name;

-- name: set_queue
UPDATE queues SET paused = coalesce($2, paused),
    max_backlog = CASE WHEN $3::boolean THEN $4::bigint ELSE max_backlog END
WHERE name = $1 RETURNING name, pg_notify('bobrai_outbox', '') AS notified;

-- name: running_queues
SELECT name FROM queues WHERE NOT paused ORDER BY name;

-- name: take_measuring
-- Queues whose figures are older than the period; the lock leaves each to one dispatcher. The one that measured a queue
-- last keeps it, because the others wait for some of its periods.
SELECT name, waiting_measured_at IS NULL
             OR waiting_measured_at < now() - make_interval(secs => $4::double precision) AS waiting_too
FROM queues
WHERE measured_at IS NULL
   OR measured_at < now() - make_interval(secs => CASE WHEN name = ANY($1::text[]) THEN $2::double precision
                                                       ELSE measured_every * $3::double precision END)
FOR UPDATE SKIP LOCKED;

-- name: measure_due
-- What is due now, and what runs.
UPDATE queues AS q
SET due = d.due, oldest_due_at = d.oldest, processing = coalesce(p.processing, 0), measured_at = now(),
    depth = m.depth, measured_every = $3
FROM unnest($1::text[], $2::bigint[]) AS m (name, depth)
CROSS JOIN LATERAL (
    SELECT count(*) AS due, min(run_at) AS oldest FROM tasks
    WHERE status = 'pending' AND queue = m.name AND run_at <= now()
) AS d
LEFT JOIN (
    SELECT queue, count(*) AS processing FROM tasks WHERE status = 'processing' GROUP BY queue
) AS p ON p.queue = m.name
WHERE q.name = m.name
RETURNING q.name, q.due, q.processing, q.delayed, q.between_attempts, q.depth, q.paused,
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
