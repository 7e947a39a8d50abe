-- Submissions of tasks of which there is one at a time. Each statement has a snapshot of its own: what `take_hashes` has
-- waited for is seen by those after it, in the same transaction.

-- name: take_hashes
-- Makes the rows that are not there, and locks those that are until the end of the transaction, in one order for all. The
-- tasks of those that come back are still to be stored, under the ids that they have here.
INSERT INTO unique_tasks AS u (hash, task_id, holds, expires_at, check_at)
SELECT i.hash, nextval('tasks_id_seq'), i.holds, now() + make_interval(secs => i.seconds),
       least(now() + make_interval(secs => i.seconds), now() + interval '5 min')
FROM unnest($1::bytea[], $2::text[], $3::double precision[]) AS i (hash, holds, seconds)
ORDER BY i.hash
ON CONFLICT (hash) DO UPDATE SET holds = u.holds WHERE false
RETURNING hash, task_id;

-- name: lock_replaced
-- Locks what waits of these, that is to get other contents. Nothing is waited for, because others lock tasks in other
-- orders.
SELECT t.id
FROM tasks AS t
WHERE t.id = ANY (ARRAY(SELECT u.task_id FROM unique_tasks AS u WHERE u.hash = ANY ($1::bytea[])))
  AND t.status || '' = 'pending'
ORDER BY t.id FOR UPDATE SKIP LOCKED;

-- name: lock_hints
-- Locks the hints of these tasks that are still to be published; waits for a relay that is at one of them. A row that it
-- has put into a lane meanwhile is seen by the next statement.
SELECT task_id FROM outbox WHERE task_id = ANY ($1::bigint[]) ORDER BY task_id FOR UPDATE;

-- name: lock_held
-- The same for those that limits hold back, and for a dispatcher that lets them through.
SELECT task_id FROM held WHERE task_id = ANY ($1::bigint[]) ORDER BY task_id FOR UPDATE;

-- name: holders
-- The tasks of these rows, and whether each is still the only one. Its own row is gone: it is pruned, and was final. One
-- that has started waits no more, also between attempts.
SELECT u.hash, u.task_id, coalesce(t.status = 'pending', false) AS is_pending,
       (u.expires_at IS NULL OR u.expires_at > now())
       AND CASE u.holds WHEN 'always' THEN true
                        WHEN 'waiting' THEN coalesce(t.status = 'pending' AND t.started_at IS NULL, false)
                        ELSE t.id IS NOT NULL AND t.finished_at IS NULL END AS holds
FROM unique_tasks AS u LEFT JOIN tasks AS t ON t.id = u.task_id
WHERE u.hash = ANY ($1::bytea[]);

-- name: submit_unique
-- What `submit` does, for tasks of which some have their id already, and others ($18) take over the row of one that holds
-- it no more.
WITH item AS MATERIALIZED (
    SELECT i.*, coalesce(i.known_id, nextval('tasks_id_seq')) AS id,
           coalesce(i.run_at, now() + make_interval(secs => i.delay_seconds)) AS due_at,
           coalesce(i.deadline_at, now() + make_interval(secs => i.deadline_seconds)) AS ends_at,
           coalesce(i.expires_at, now() + make_interval(secs => i.expires_seconds)) AS starts_until
    FROM unnest($1::text[], $2::text[], $3::smallint[], $4::json[], $5::integer[], $6::json[], $7::double precision[],
                $8::double precision[], $9::timestamptz[], $10::text[], $11::text[], $12::text[],
                $13::double precision[], $14::timestamptz[], $15::double precision[], $16::timestamptz[],
                $17::bigint[], $18::bytea[], $19::text[], $20::double precision[])
         WITH ORDINALITY AS i (type, queue, priority, payload, max_attempts, retry, timeout_seconds,
                               delay_seconds, run_at, request_id, trace_context, client_id,
                               deadline_seconds, deadline_at, expires_seconds, expires_at,
                               known_id, hash, holds, unique_seconds, position)
), stored AS (
    INSERT INTO tasks (id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, run_at,
                       request_id, trace_context, client_id, deadline_at, expires_at, idempotency_key, parent_id)
    SELECT id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, due_at, request_id, trace_context,
           client_id, ends_at, starts_until, $21, $22
    FROM item
    RETURNING 1
), due AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, 0, queue, priority, due_at FROM item
), taken_over AS (
    UPDATE unique_tasks AS u
    SET task_id = i.id, holds = i.holds, expires_at = now() + make_interval(secs => i.unique_seconds),
        check_at = least(now() + make_interval(secs => i.unique_seconds), now() + interval '5 min')
    FROM item AS i WHERE u.hash = i.hash
)
SELECT array_agg(id ORDER BY position) AS ids, (SELECT pg_notify('bobrai_outbox', '')) AS notified,
       CASE WHEN (SELECT count(*) FROM stored) < count(*) THEN current_setting('bobrai.a_trigger_keeps_tasks_away') END
FROM item;

-- name: replace_waiting
-- Gives locked tasks that wait other contents, with a fresh set of attempts, as if they were accepted now. One that is to
-- start later than a hint for it may be out counts one attempt, as a loss does, so that the hint is stale: any that was
-- due may be out, unless a limit holds it back. So does one that limits have let through, whose other contents may count
-- by other keys: its place goes with the stale hint. What was due and still is keeps its place in the order. No hint is
-- added to one that is out.
WITH item AS MATERIALIZED (
    SELECT i.*, coalesce(i.run_at, now() + make_interval(secs => i.delay_seconds)) AS due_at,
           coalesce(i.deadline_at, now() + make_interval(secs => i.deadline_seconds)) AS ends_at,
           coalesce(i.expires_at, now() + make_interval(secs => i.expires_seconds)) AS starts_until
    FROM unnest($1::bigint[], $2::smallint[], $3::json[], $4::integer[], $5::json[], $6::double precision[],
                $7::double precision[], $8::timestamptz[], $9::text[], $10::text[],
                $11::double precision[], $12::timestamptz[], $13::double precision[], $14::timestamptz[])
         AS i (task_id, priority, payload, max_attempts, retry, timeout_seconds,
               delay_seconds, run_at, request_id, trace_context,
               deadline_seconds, deadline_at, expires_seconds, expires_at)
), not_held AS (
    DELETE FROM held WHERE task_id = ANY ($1::bigint[]) RETURNING task_id
), next AS MATERIALIZED (
    SELECT i.*, h.task_id IS NOT NULL OR n.task_id IS NOT NULL AS has_hint,
           (n.task_id IS NULL
            AND (i.due_at > clock_timestamp() AND coalesce(h.due_at <= clock_timestamp(), true)
                 OR (SELECT a.task_id FROM admissions AS a WHERE a.task_id = i.task_id) IS NOT NULL))::integer AS step
    FROM item AS i
    LEFT JOIN outbox AS h ON h.task_id = i.task_id
    LEFT JOIN not_held AS n ON n.task_id = i.task_id
), changed AS (
    UPDATE tasks AS t
    SET payload = n.payload, priority = n.priority, attempt = t.attempt + n.step, attempts_before = t.attempt + n.step,
        max_attempts = t.attempt + n.step + n.max_attempts, retry = n.retry, timeout_seconds = n.timeout_seconds,
        run_at = CASE WHEN n.due_at <= now() THEN least(t.run_at, n.due_at) ELSE n.due_at END,
        deadline_at = n.ends_at, expires_at = n.starts_until, retry_until = NULL, snoozes = 0, started_at = NULL,
        progress = NULL, request_id = n.request_id, trace_context = n.trace_context, updated_at = now()
    FROM next AS n
    WHERE t.id = n.task_id AND t.status || '' = 'pending'
    RETURNING t.id, t.attempt, t.queue, t.priority, t.run_at, n.has_hint OR n.step > 0 AS has_hint
), due AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, attempt, queue, priority, run_at FROM changed WHERE has_hint
    ON CONFLICT (task_id) DO UPDATE
        SET attempt = excluded.attempt, priority = excluded.priority, due_at = excluded.due_at
)
SELECT (SELECT pg_notify('bobrai_outbox', '')) AS notified,
       CASE WHEN count(*) < cardinality($1) THEN current_setting('bobrai.a_trigger_keeps_tasks_away') END
FROM changed;

-- name: await_task
-- Returns when nobody holds a task's row any more.
SELECT id FROM tasks WHERE id = $1 FOR SHARE;

-- name: take_key
-- Takes an idempotency key if it is free, as `submit_keyed` does; what was stored under it is noted by `note_tasks`.
INSERT INTO idempotency_keys AS k (client_id, key, fingerprint, task_ids, expires_at)
VALUES ($1, $2, $3, '{}', now() + make_interval(secs => $4::double precision))
ON CONFLICT (client_id, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, task_ids = '{}', expires_at = excluded.expires_at
    WHERE k.expires_at <= now()
RETURNING key;

-- name: note_tasks
UPDATE idempotency_keys SET task_ids = $3, known_ids = $4 WHERE client_id = $1 AND key = $2 RETURNING key;

-- name: prune_unique
-- Removes rows whose task holds them no more, of some whose time to be looked at has come. Most tasks have ended when they
-- are looked at first; the others are looked at every hour.
WITH seen AS MATERIALIZED (
    SELECT u.hash, (u.expires_at IS NULL OR u.expires_at > now())
                   AND (u.holds = 'always' OR t.id IS NOT NULL AND t.finished_at IS NULL
                        AND (u.holds = 'unfinished' OR t.status = 'pending')) AS is_of_use
    FROM unique_tasks AS u LEFT JOIN tasks AS t ON t.id = u.task_id
    WHERE u.check_at <= now()
    ORDER BY u.check_at LIMIT $1 FOR UPDATE OF u SKIP LOCKED
), kept AS (
    UPDATE unique_tasks SET check_at = least(expires_at, now() + interval '1 h')
    WHERE hash = ANY (ARRAY(SELECT hash FROM seen WHERE is_of_use))
), removed AS (
    DELETE FROM unique_tasks WHERE hash = ANY (ARRAY(SELECT hash FROM seen WHERE NOT is_of_use))
)
SELECT count(*) AS seen FROM seen;
