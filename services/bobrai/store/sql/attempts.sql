-- Rows are found by their primary key. The status is compared as an expression, because the planner would rather scan the
-- partial index of everything that is pending or processing than probe a hundred keys, whatever has piled up in there.

-- name: claim
-- Hints become claims. The key-share lock on the worker's row makes claim and expire_workers exclude each other: no task
-- is ever claimed for a worker that is gone, none after its deadline, and none for the first time after its expiry. A first
-- start that a shutdown gave back was none: started_at is NULL again. No row at all: the worker is gone. One row of NULLs: all hints were stale.
WITH me AS MATERIALIZED (
    SELECT id FROM workers WHERE id = $1 FOR KEY SHARE
), claimed AS (
    UPDATE tasks AS t
    SET status = 'processing', attempt = t.attempt + 1, worker_id = me.id, started_at = now(), updated_at = now(),
        progress = NULL
    FROM me, unnest($2::bigint[], $3::integer[]) AS hint (task_id, attempt)
    WHERE t.id = hint.task_id AND t.status || '' = 'pending' AND t.attempt = hint.attempt
      AND (t.deadline_at IS NULL OR t.deadline_at > now())
      AND (t.expires_at IS NULL OR t.expires_at > now() OR t.started_at IS NOT NULL)
    RETURNING t.id, t.attempt, t.type, t.queue, t.priority, t.payload, t.max_attempts,
              t.attempt - t.attempts_before - 1 AS failures, t.retry, t.timeout_seconds, t.request_id,
              t.trace_context,
              extract(epoch FROM now() - t.run_at)::double precision AS wait_seconds,
              extract(epoch FROM now() - t.created_at)::double precision AS age_seconds,
              t.losses, t.snoozes, t.client_id,
              extract(epoch FROM t.deadline_at - now())::double precision AS deadline_seconds
)
SELECT claimed.* FROM me LEFT JOIN claimed ON true;

-- name: claim_admitted
-- The same while anything is limited: what a limit holds back is claimed only with its admission, which is locked, so that
-- nobody counts it as over meanwhile. The limits are read here, because whoever publishes may not have known them yet.
WITH me AS MATERIALIZED (
    SELECT id FROM workers WHERE id = $1 FOR KEY SHARE
), admitted AS MATERIALIZED (
    SELECT a.task_id FROM admissions AS a
    JOIN unnest($2::bigint[], $3::integer[]) AS hint (task_id, attempt)
      ON a.task_id = hint.task_id AND a.attempt = hint.attempt
    FOR SHARE OF a
), claimed AS (
    UPDATE tasks AS t
    SET status = 'processing', attempt = t.attempt + 1, worker_id = me.id, started_at = now(), updated_at = now(),
        progress = NULL
    FROM me, unnest($2::bigint[], $3::integer[]) AS hint (task_id, attempt)
    WHERE t.id = hint.task_id AND t.status || '' = 'pending' AND t.attempt = hint.attempt
      AND (t.deadline_at IS NULL OR t.deadline_at > now())
      AND (t.expires_at IS NULL OR t.expires_at > now() OR t.started_at IS NOT NULL)
      AND (t.id IN (SELECT task_id FROM admitted)
           OR t.queue NOT IN (SELECT name FROM queues WHERE limits IS NOT NULL)
              AND t.type NOT IN (SELECT name FROM task_types WHERE limits IS NOT NULL))
    RETURNING t.id, t.attempt, t.type, t.queue, t.priority, t.payload, t.max_attempts,
              t.attempt - t.attempts_before - 1 AS failures, t.retry, t.timeout_seconds, t.request_id,
              t.trace_context,
              extract(epoch FROM now() - t.run_at)::double precision AS wait_seconds,
              extract(epoch FROM now() - t.created_at)::double precision AS age_seconds,
              t.losses, t.snoozes, t.client_id,
              extract(epoch FROM t.deadline_at - now())::double precision AS deadline_seconds
)
SELECT claimed.* FROM me LEFT JOIN claimed ON true;

-- name: claimed
-- What this worker holds of the hints: asked after a claim whose answer was lost on the way, for those that look stale.
SELECT t.id, t.attempt, t.type, t.queue, t.priority, t.payload, t.max_attempts,
       t.attempt - t.attempts_before - 1 AS failures, t.retry, t.timeout_seconds, t.request_id, t.trace_context,
       extract(epoch FROM now() - t.run_at)::double precision AS wait_seconds,
       extract(epoch FROM now() - t.created_at)::double precision AS age_seconds,
       t.losses, t.snoozes, t.client_id,
       extract(epoch FROM t.deadline_at - now())::double precision AS deadline_seconds
FROM tasks AS t JOIN unnest($2::bigint[], $3::integer[]) AS hint (task_id, attempt) ON t.id = hint.task_id
WHERE t.status || '' = 'processing' AND t.attempt = hint.attempt + 1 AND t.worker_id = $1;

-- name: complete
-- Results become final, each fenced by its attempt and its worker. A missing id: that claim was lost.
UPDATE tasks AS t
SET status = 'done', result = o.result, progress = coalesce(o.progress, t.progress), finished_at = now(),
    updated_at = now()
FROM unnest($2::bigint[], $3::integer[], $4::json[], $5::json[]) AS o (task_id, attempt, result, progress)
WHERE t.id = o.task_id AND t.status || '' = 'processing' AND t.attempt = o.attempt AND t.worker_id = $1
RETURNING t.id;

-- name: end_attempts
-- Every other end of an attempt: failed, cancelled, retry (pending after a delay), snooze (the same, but no attempt: it
-- moves the bounds that attempts count between, as a loss does, while the number goes on), interrupted (pending, not
-- counted: due at once, though its hint may come after a delay, for another worker).
-- A wish to cancel wins over another attempt, and so does the last attempt: a row that nobody could claim would refuse
-- its whole batch. The retry policy's time counts from the first start, which is the latest one when the first end of a
-- set of attempts is written: the end of that time is kept from then on. A start that was given back is none.
WITH o AS (
    SELECT * FROM unnest($2::bigint[], $3::integer[], $4::text[], $5::jsonb[], $6::double precision[], $7::json[])
        AS o (task_id, attempt, kind, error, delay_seconds, progress)
), fenced AS (
    -- The row lock keeps cancel_requested as read here until the update.
    SELECT t.id, o.kind, o.error, o.delay_seconds, o.progress, t.cancel_requested,
           t.attempt >= t.max_attempts AS is_last, now() + make_interval(secs => o.delay_seconds) AS due_at,
           CASE WHEN o.kind IN ('retry', 'snooze') AND t.retry_until IS NULL
                THEN t.started_at + make_interval(secs => (t.retry ->> 'retry_for_seconds')::double precision)
                ELSE t.retry_until END AS retry_until
    FROM tasks AS t JOIN o ON t.id = o.task_id
    WHERE t.status || '' = 'processing' AND t.attempt = o.attempt AND t.worker_id = $1
    ORDER BY t.id FOR UPDATE OF t
), decided AS (
    SELECT *, CASE WHEN kind NOT IN ('retry', 'snooze', 'interrupted') THEN kind
                   WHEN cancel_requested THEN 'cancelled'
                   WHEN kind = 'retry' AND is_last THEN 'failed'
                   WHEN kind <> 'interrupted' AND due_at > retry_until THEN 'failed'
                   ELSE 'pending' END AS status
    FROM fenced
), ended AS (
    UPDATE tasks AS t
    SET status = next.status,
        attempts_before = t.attempts_before + next.free,
        max_attempts = t.max_attempts + next.free,
        snoozes = t.snoozes + next.free,
        retry_until = next.retry_until,
        attempt = CASE WHEN next.kind = 'interrupted' AND next.status = 'pending' THEN t.attempt - 1 ELSE t.attempt END,
        started_at = CASE WHEN next.kind = 'interrupted' AND next.status = 'pending' AND t.attempt = 1 THEN NULL
                          ELSE t.started_at END,
        run_at = CASE WHEN next.status <> 'pending' THEN t.run_at
                      WHEN next.kind = 'interrupted' THEN now()
                      ELSE next.due_at END,
        worker_id = CASE WHEN next.status = 'pending' THEN NULL ELSE t.worker_id END,
        errors = CASE WHEN next.error IS NULL THEN t.errors
                      ELSE (CASE WHEN jsonb_array_length(t.errors) >= $8 THEN t.errors - 0 ELSE t.errors END)
                           || jsonb_set(next.error, '{at}', to_jsonb(
                               to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))) END,
        progress = coalesce(next.progress, t.progress),
        finished_at = CASE WHEN next.status = 'pending' THEN NULL ELSE now() END,
        updated_at = now()
    FROM (SELECT *, CASE WHEN kind = 'snooze' AND status = 'pending' THEN 1 ELSE 0 END AS free FROM decided) AS next
    WHERE t.id = next.id
    RETURNING t.id, t.attempt, t.status, t.queue, t.priority, next.due_at
), again AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, attempt, queue, priority, due_at FROM ended WHERE status = 'pending'
    ON CONFLICT (task_id) DO UPDATE SET attempt = excluded.attempt, due_at = excluded.due_at
)
SELECT id, status, (SELECT pg_notify('bobrai_outbox', '')) AS notified FROM ended;

-- name: settled
-- What these attempts of this worker have already written: for outcomes whose answer was lost on the way. The lock waits
-- for a commit that is still under way. Only take_back ends the attempt of another, and the error that it leaves says so.
-- 'processing': it is still this attempt's, and yet the write has not changed it, because somebody's trigger has a say.
WITH seen AS (
    SELECT t.id, t.status, o.kind, t.attempt = o.attempt AND t.worker_id = $1 AS ours,
           t.errors @> jsonb_build_array(jsonb_build_object('attempt', o.attempt, 'type', 'WorkerLost')) AS taken_back
    FROM tasks AS t JOIN unnest($2::bigint[], $3::integer[], $4::text[]) AS o (task_id, attempt, kind) ON t.id = o.task_id
    ORDER BY t.id FOR SHARE OF t
)
SELECT id, CASE WHEN ours THEN status ELSE 'pending' END AS status
FROM seen
WHERE NOT taken_back AND (kind IN ('retry', 'snooze', 'interrupted') OR ours AND status IN (kind, 'processing'));

-- name: orphans
-- What this worker is said to be processing, but for these: nobody else would ever look for it.
SELECT t.id, t.attempt FROM tasks AS t
WHERE t.status = 'processing' AND t.worker_id = $1 AND t.id <> ALL($2::bigint[])
LIMIT 1000;

-- name: progress
-- Shows how far an attempt has come; silently nothing when the claim is lost.
UPDATE tasks AS t SET progress = o.progress, updated_at = now()
FROM unnest($2::bigint[], $3::integer[], $4::json[]) AS o (task_id, attempt, progress)
WHERE t.id = o.task_id AND t.status || '' = 'processing' AND t.attempt = o.attempt AND t.worker_id = $1
RETURNING t.id;
