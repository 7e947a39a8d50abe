-- name: submit
-- Stores tasks and their outbox rows; one row comes back: the ids in the order of the arrays. Ids are drawn before the
-- insert, because the order of RETURNING is nobody's promise. A trigger that silently keeps a row away must not leave an
-- id for which there is no task: asking for a parameter that nobody has is an error, 42704, that undoes everything.
WITH item AS MATERIALIZED (
    SELECT i.*, nextval('tasks_id_seq') AS id,
           coalesce(i.run_at, now() + make_interval(secs => i.delay_seconds)) AS due_at,
           coalesce(i.deadline_at, now() + make_interval(secs => i.deadline_seconds)) AS ends_at,
           coalesce(i.expires_at, now() + make_interval(secs => i.expires_seconds)) AS starts_until
    FROM unnest($1::text[], $2::text[], $3::smallint[], $4::json[], $5::integer[], $6::json[], $7::double precision[],
                $8::double precision[], $9::timestamptz[], $10::text[], $11::text[], $12::text[],
                $13::double precision[], $14::timestamptz[], $15::double precision[], $16::timestamptz[])
         WITH ORDINALITY AS i (type, queue, priority, payload, max_attempts, retry, timeout_seconds,
                               delay_seconds, run_at, request_id, trace_context, client_id,
                               deadline_seconds, deadline_at, expires_seconds, expires_at, position)
), stored AS (
    INSERT INTO tasks (id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, run_at,
                       request_id, trace_context, client_id, deadline_at, expires_at)
    SELECT id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, due_at, request_id, trace_context,
           client_id, ends_at, starts_until
    FROM item
    RETURNING 1
), due AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, 0, queue, priority, due_at FROM item
)
SELECT array_agg(id ORDER BY position) AS ids, (SELECT pg_notify('bobrai_outbox', '')) AS notified,
       CASE WHEN (SELECT count(*) FROM stored) < count(*) THEN current_setting('bobrai.a_trigger_keeps_tasks_away') END
FROM item;

-- name: submit_keyed
-- One request under an idempotency key: its tasks are stored only if the key was free. A parallel request with the same
-- key waits here for the first one's commit. No row: the key is taken, see idempotency_lookup.
WITH item AS MATERIALIZED (
    SELECT i.*, nextval('tasks_id_seq') AS id,
           coalesce(i.run_at, now() + make_interval(secs => i.delay_seconds)) AS due_at,
           coalesce(i.deadline_at, now() + make_interval(secs => i.deadline_seconds)) AS ends_at,
           coalesce(i.expires_at, now() + make_interval(secs => i.expires_seconds)) AS starts_until
    FROM unnest($1::text[], $2::text[], $3::smallint[], $4::json[], $5::integer[], $6::json[], $7::double precision[],
                $8::double precision[], $9::timestamptz[], $10::text[], $11::text[], $12::text[],
                $13::double precision[], $14::timestamptz[], $15::double precision[], $16::timestamptz[])
         WITH ORDINALITY AS i (type, queue, priority, payload, max_attempts, retry, timeout_seconds,
                               delay_seconds, run_at, request_id, trace_context, client_id,
                               deadline_seconds, deadline_at, expires_seconds, expires_at, position)
), taken AS (
    INSERT INTO idempotency_keys AS k (client_id, key, fingerprint, task_ids, expires_at)
    SELECT $17, $18, $19, array_agg(id ORDER BY position), now() + make_interval(secs => $20::double precision)
    FROM item
    ON CONFLICT (client_id, key) DO UPDATE
        SET fingerprint = excluded.fingerprint, task_ids = excluded.task_ids, expires_at = excluded.expires_at
        WHERE k.expires_at <= now()
    RETURNING k.task_ids
), stored AS (
    INSERT INTO tasks (id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, run_at,
                       request_id, trace_context, client_id, deadline_at, expires_at, idempotency_key)
    SELECT id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, due_at, request_id, trace_context,
           client_id, ends_at, starts_until, $18
    FROM item WHERE EXISTS (SELECT FROM taken)
    RETURNING 1
), due AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, 0, queue, priority, due_at FROM item WHERE EXISTS (SELECT FROM taken)
)
SELECT task_ids AS ids, pg_notify('bobrai_outbox', '') AS notified,
       CASE WHEN (SELECT count(*) FROM stored) < cardinality(task_ids)
            THEN current_setting('bobrai.a_trigger_keeps_tasks_away') END
FROM taken;

-- name: idempotency_lookup
-- What the first request under this key stored, and what of it was there before.
SELECT fingerprint, task_ids AS ids, known_ids FROM idempotency_keys WHERE client_id = $1 AND key = $2 AND expires_at > now();

-- name: prune_idempotency_keys
-- The rows are locked before they are deleted, so that their places (ctid) stay what they are.
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_keys WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING 1;
