-- name: task_by_id
SELECT id, type, queue, priority, payload, status, attempt, max_attempts, losses, snoozes, timeout_seconds, run_at,
       deadline_at, expires_at, result, errors, progress, cancel_requested, client_id, request_id, parent_id, created_at, updated_at, started_at, finished_at
FROM tasks WHERE id = $1;

-- name: read_tasks
-- Many tasks that are asked for at the same moment: one query for the readers of a process.
SELECT id, type, queue, priority, payload, status, attempt, max_attempts, losses, snoozes, timeout_seconds, run_at,
       deadline_at, expires_at, result, errors, progress, cancel_requested, client_id, request_id, parent_id, created_at, updated_at, started_at, finished_at
FROM tasks WHERE id = ANY($1::bigint[]);

-- name: explain_task
-- A task with what decides when it starts: its queue, its hint, the limits that hold it, its worker. ahead: what is due in
-- its queue and goes first, counted no further than $2.
SELECT t.id, t.type, t.queue, t.status, t.priority, t.attempt, t.attempt - t.attempts_before AS failures, t.max_attempts,
       t.losses, t.snoozes, t.run_at, t.deadline_at, t.expires_at, t.started_at, t.finished_at, t.timeout_seconds,
       t.cancel_requested, t.client_id, t.errors -> -1 AS last_error, t.run_at > now() AS is_early,
       extract(epoch FROM now() - t.run_at)::double precision AS due_for_seconds,
       coalesce(q.paused, false) AS is_paused, q.name IS NULL OR q.removed_at IS NOT NULL AS lacks_queue,
       extract(epoch FROM now() - q.measured_at)::double precision AS measured_age_seconds,
       o.task_id IS NOT NULL AS has_hint, h.task_id IS NOT NULL AS is_held, a.task_id IS NOT NULL AS is_admitted,
       q.limits AS queue_limits, y.limits AS type_limits, w.id AS worker_id, w.host AS worker_host,
       coalesce(w.expires_at <= now(), t.status = 'processing') AS lacks_worker,
       CASE WHEN o.task_id IS NOT NULL AND o.due_at <= now() THEN (SELECT count(*) FROM (
           SELECT FROM outbox AS b
           WHERE b.queue = o.queue AND b.due_at <= now()
             AND (b.priority > o.priority OR b.priority = o.priority AND (b.due_at, b.task_id) < (o.due_at, o.task_id))
           LIMIT $2) AS counted) END AS ahead
FROM tasks AS t
LEFT JOIN queues AS q ON q.name = t.queue
LEFT JOIN task_types AS y ON y.name = t.type
LEFT JOIN outbox AS o ON o.task_id = t.id
LEFT JOIN held AS h ON h.task_id = t.id
LEFT JOIN admissions AS a ON a.task_id = t.id
LEFT JOIN workers AS w ON w.id = t.worker_id
WHERE t.id = $1;

-- name: tasks_by_ids
-- Those of many waited-for tasks that are final: one query for every waiter of a process.
SELECT id FROM tasks WHERE id = ANY($1::bigint[]) AND finished_at IS NOT NULL;

-- name: list_tasks
-- Newest first; the id is the key of the page, so pages neither skip nor repeat while tasks arrive. There is no index by
-- type or queue: over a million rows a page of a rare type takes 0.1 s without one, and both together would make every
-- submit, claim and completion a third to a half dearer.
SELECT id, type, queue, priority, payload, status, attempt, max_attempts, losses, snoozes, timeout_seconds, run_at,
       deadline_at, expires_at, result, errors, progress, cancel_requested, client_id, request_id, parent_id, created_at, updated_at, started_at, finished_at
FROM tasks
WHERE ($1::bigint IS NULL OR id < $1)
  AND ($2::text IS NULL OR status = $2)
  AND ($3::text IS NULL OR type = $3)
  AND ($4::text IS NULL OR queue = $4)
  AND ($5::timestamptz IS NULL OR created_at > $5)
  AND ($6::timestamptz IS NULL OR created_at < $6)
  AND ($7::text[] IS NULL OR queue LIKE ANY ($7))
  AND ($8::text[] IS NULL OR type LIKE ANY ($8))
  AND ($9::text IS NULL OR client_id = $9)
  AND ($10::bigint IS NULL OR parent_id = $10)
ORDER BY id DESC LIMIT $11;

-- name: cancel
-- Pending: final at once, and no longer due. Processing: a wish that the worker's heartbeat reads. No row: the task is
-- final or unknown, or it was wished before. The columns are decided from the row that is updated, never from one that was
-- locked before: CHECKs see a row made from the statement's snapshot, even if a newer one is then written.
WITH changed AS (
    UPDATE tasks
    SET cancel_requested = true, updated_at = now(),
        status = CASE WHEN status = 'pending' THEN 'cancelled' ELSE status END,
        finished_at = CASE WHEN status = 'pending' THEN now() ELSE NULL END
    WHERE id = $1 AND (status = 'pending' OR status = 'processing' AND NOT cancel_requested)
    RETURNING id, CASE WHEN status = 'cancelled' THEN 'pending' ELSE status END AS status_before
), not_due AS (
    DELETE FROM outbox WHERE task_id IN (SELECT id FROM changed WHERE status_before = 'pending')
), not_held AS (
    DELETE FROM held WHERE task_id IN (SELECT id FROM changed WHERE status_before = 'pending')
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $2, $3, $4, $5, 'task.cancel', 'task:' || id, jsonb_build_object('status', status_before),
           CASE status_before WHEN 'pending' THEN '{"status": "cancelled"}'::jsonb
                              ELSE '{"status": "processing", "cancel_requested": true}' END
    FROM changed
    RETURNING id
)
SELECT status_before, (SELECT id FROM recorded) AS audit_id FROM changed;

-- name: waiting_of
-- How many tasks wait of each of these principals, counted no further than beyond its maximum.
SELECT w.client_id, (SELECT count(*) FROM (
    SELECT FROM tasks AS t WHERE t.status = 'pending' AND t.client_id <> '' AND t.client_id = w.client_id
    LIMIT w.most + 1) AS counted) AS waiting
FROM unnest($1::text[], $2::bigint[]) AS w (client_id, most);

-- name: cancel_waiting
-- Some of what waits in a queue, cancelled as above. What somebody else holds is left for the next batch.
WITH waiting AS MATERIALIZED (
    SELECT id FROM tasks WHERE status = 'pending' AND queue = $1 ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE tasks
    SET cancel_requested = true, updated_at = now(), status = 'cancelled', finished_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM waiting)) AND status || '' = 'pending'
    RETURNING id, type
), not_due AS (
    DELETE FROM outbox WHERE task_id = ANY (ARRAY(SELECT id FROM changed))
), not_held AS (
    DELETE FROM held WHERE task_id = ANY (ARRAY(SELECT id FROM changed))
)
SELECT type, count(*) AS tasks FROM changed GROUP BY type;

-- name: cancel_running
-- Wishes that some of what runs in a queue be stopped, as above; the workers' heartbeats read it.
UPDATE tasks SET cancel_requested = true, updated_at = now()
WHERE id = ANY (ARRAY(
    SELECT id FROM tasks WHERE status = 'processing' AND queue = $1 AND NOT cancel_requested
    ORDER BY worker_id LIMIT $2))
  AND status || '' = 'processing' AND NOT cancel_requested
RETURNING 1;

-- name: replay
-- A fresh set of attempts for a final task. The attempt number goes on counting, because it is the fencing token. What was
-- lost stays a suspect: it may have failed for killing its workers. Who wants it once more does so whatever times it had.
WITH target AS (
    SELECT id, status FROM tasks WHERE id = $1 FOR UPDATE
), changed AS (
    UPDATE tasks AS t
    SET status = 'pending', attempts_before = t.attempt, max_attempts = t.attempt + t.max_attempts - t.attempts_before,
        losses = least(t.losses, 1), snoozes = 0, run_at = now(), worker_id = NULL, result = NULL, progress = NULL,
        cancel_requested = false, retry_until = NULL, deadline_at = NULL, expires_at = NULL, started_at = NULL, finished_at = NULL, updated_at = now()
    FROM target
    WHERE t.id = target.id AND target.status IN ('done', 'failed', 'cancelled')
    RETURNING t.id, t.attempt, t.queue, t.priority, t.run_at, target.status AS status_before
), again AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, attempt, queue, priority, run_at FROM changed
    ON CONFLICT (task_id) DO UPDATE SET attempt = excluded.attempt, due_at = excluded.due_at
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $2, $3, $4, $5, 'task.replay', 'task:' || id, jsonb_build_object('status', status_before),
           '{"status": "pending"}'
    FROM changed
    RETURNING id
)
SELECT target.status AS status_before, (SELECT id FROM recorded) AS audit_id,
       (SELECT pg_notify('bobrai_outbox', '')) AS notified
FROM target;

-- name: overdue
-- What waits and may not start any more: past its deadline, or past its expiry and never started.
SELECT id FROM tasks
WHERE status = 'pending' AND least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END) <= now()
ORDER BY least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END) LIMIT $1;

-- name: end_overdue
-- Ends these of them, for what came first. The error is of the attempt before, 0 when there was none. Why is decided from
-- the row that is updated, as in cancel.
WITH late AS MATERIALIZED (
    SELECT id FROM tasks
    WHERE id = ANY ($1::bigint[]) AND status || '' = 'pending'
      AND least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END) <= now()
    ORDER BY id FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE tasks AS t
    SET status = why.status, finished_at = now(), updated_at = now(),
        errors = (CASE WHEN jsonb_array_length(t.errors) >= $2 THEN t.errors - 0 ELSE t.errors END)
                 || jsonb_build_object('attempt', t.attempt, 'type', why.type, 'reason', why.reason,
                                       'message', why.message, 'traceback', '',
                                       'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM (VALUES (true, 'cancelled', 'Expired', 'expired', 'the task expired before it had started'),
                 (false, 'failed', 'Deadline', 'deadline', 'the task''s deadline passed while it waited')
         ) AS why (is_expiry, status, type, reason, message)
    WHERE t.id = ANY (ARRAY(SELECT id FROM late)) AND t.status || '' = 'pending'
      AND why.is_expiry = coalesce(t.started_at IS NULL AND t.expires_at <= least(t.deadline_at, now()), false)
    RETURNING t.id, t.attempt, t.status, t.type, t.queue, t.request_id
), not_due AS (
    DELETE FROM outbox WHERE task_id = ANY (ARRAY(SELECT id FROM ended))
), not_held AS (
    DELETE FROM held WHERE task_id = ANY (ARRAY(SELECT id FROM ended))
)
SELECT id, attempt, status, type, queue, request_id FROM ended;

-- name: prune_tasks
-- Finished tasks past their retention, in a small batch; as an array, so that no plan joins them with the whole table.
DELETE FROM tasks WHERE id = ANY (ARRAY(
    SELECT id FROM tasks WHERE finished_at < now() - make_interval(secs => $1::double precision)
    ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING 1;
