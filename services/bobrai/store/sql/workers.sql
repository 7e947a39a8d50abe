-- name: register_worker
INSERT INTO workers (queues, host, concurrency, expires_at, types)
VALUES ($1, $2, $3, now() + make_interval(secs => $4::double precision), $5)
RETURNING id;

-- name: heartbeat
-- Renews the lease; no row: it expired and was removed. cancels: the claimed tasks whose users want them stopped.
UPDATE workers AS w
SET expires_at = now() + make_interval(secs => $2::double precision), running = $3
WHERE w.id = $1
RETURNING coalesce((
    SELECT array_agg(t.id) FROM tasks AS t
    WHERE t.status = 'processing' AND t.worker_id = w.id AND t.cancel_requested), '{}') AS cancels;

-- name: report_speeds
-- How many tasks of each queue this worker finishes in a second: the dispatcher sizes bundles by it.
UPDATE workers SET speeds = $2 WHERE id = $1 RETURNING id;

-- name: unregister_worker
DELETE FROM workers WHERE id = $1 RETURNING id;

-- name: live_workers
SELECT id, queues, host, concurrency, running, speeds, started_at, types FROM workers WHERE expires_at > now();

-- name: expire_workers
-- Only because a worker is gone, never because a task is old. After a restart of PostgreSQL every worker gets one lease to
-- come back.
DELETE FROM workers
WHERE id IN (SELECT id FROM workers WHERE expires_at < now() ORDER BY id FOR UPDATE SKIP LOCKED)
  AND pg_postmaster_start_time() < now() - make_interval(secs => $1::double precision)
RETURNING id, host, queues;

-- name: lost_workers
-- Ids that hold tasks but have no row.
SELECT DISTINCT t.worker_id AS id FROM tasks AS t
WHERE t.status = 'processing' AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = t.worker_id);

-- name: lost_tasks
-- Some of what these workers hold, by id.
SELECT t.id FROM tasks AS t
WHERE t.status = 'processing' AND t.worker_id = ANY($1::bigint[]) AND t.id <> ALL($3::bigint[])
LIMIT $2;

-- name: take_back
-- What lost workers were processing: pending again, or final when a cancel was wished or it was lost too often. A loss is
-- no attempt: it moves the bounds that attempts count between, while the number itself, which is the fence, goes on, and
-- so does the retry policy's time, though no loss ends a task for it. Who is lost again and again waits up to 10 s, because
-- it may be what its workers die of. $5: only these tasks. No order: it would be had by reading the table from its oldest
-- row, and nothing here waits for a lock.
WITH lost AS (
    SELECT t.id,
           CASE WHEN t.cancel_requested THEN 'cancelled'
                WHEN t.losses + 1 >= $4 THEN 'failed'
                ELSE 'pending' END AS status
    FROM tasks AS t
    WHERE t.status = 'processing' AND t.worker_id = ANY($1::bigint[])
      AND ($5::bigint[] IS NULL OR t.id = ANY($5::bigint[]))
    LIMIT $2 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE tasks AS t
    SET status = next.status,
        losses = t.losses + 1,
        attempts_before = CASE WHEN next.status = 'pending' THEN t.attempts_before + 1 ELSE t.attempts_before END,
        max_attempts = CASE WHEN next.status = 'pending' THEN t.max_attempts + 1 ELSE t.max_attempts END,
        run_at = CASE WHEN next.status = 'pending'
                      THEN now() + make_interval(secs => least(10, power(2, least(t.losses, 10)) - 1)) ELSE t.run_at END,
        retry_until = coalesce(t.retry_until, t.started_at + make_interval(
            secs => (t.retry ->> 'retry_for_seconds')::double precision)),
        worker_id = CASE WHEN next.status = 'pending' THEN NULL ELSE t.worker_id END,
        errors = (CASE WHEN jsonb_array_length(t.errors) >= $3 THEN t.errors - 0 ELSE t.errors END)
                 || jsonb_build_object('attempt', t.attempt, 'type', 'WorkerLost', 'reason', 'worker_lost',
                                       'message', 'the worker that ran this attempt is gone (worker_lost)',
                                       'traceback', '',
                                       'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
        finished_at = CASE WHEN next.status = 'pending' THEN NULL ELSE now() END,
        updated_at = now()
    FROM lost AS next WHERE t.id = next.id
    RETURNING t.id, t.attempt, t.type, t.status, t.queue, t.priority, t.run_at, t.request_id, t.losses
), again AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, attempt, queue, priority, run_at FROM taken WHERE status = 'pending'
    ON CONFLICT (task_id) DO UPDATE SET attempt = excluded.attempt, due_at = excluded.due_at
)
SELECT id, attempt, type, status, queue, request_id, losses,
       (SELECT pg_notify('bobrai_outbox', '')) AS notified FROM taken;
