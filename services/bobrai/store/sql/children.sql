-- name: complete_parents
-- Results become final together with the tasks that they leave: what `complete` and `submit` do, in one statement. A
-- result that is not accepted leaves none.
WITH done AS (
    UPDATE tasks AS t
    SET status = 'done', result = o.result, progress = coalesce(o.progress, t.progress), finished_at = now(),
        updated_at = now()
    FROM unnest($2::bigint[], $3::integer[], $4::json[], $5::json[]) AS o (task_id, attempt, result, progress)
    WHERE t.id = o.task_id AND t.status || '' = 'processing' AND t.attempt = o.attempt AND t.worker_id = $1
    RETURNING t.id
), item AS MATERIALIZED (
    SELECT i.*, nextval('tasks_id_seq') AS id,
           coalesce(i.run_at, now() + make_interval(secs => i.delay_seconds)) AS due_at,
           coalesce(i.deadline_at, now() + make_interval(secs => i.deadline_seconds)) AS ends_at,
           coalesce(i.expires_at, now() + make_interval(secs => i.expires_seconds)) AS starts_until
    FROM (
        SELECT a.*
        FROM unnest($6::text[], $7::text[], $8::smallint[], $9::json[], $10::integer[], $11::json[],
                    $12::double precision[], $13::double precision[], $14::timestamptz[], $15::text[], $16::text[],
                    $17::text[], $18::double precision[], $19::timestamptz[], $20::double precision[],
                    $21::timestamptz[], $22::bigint[])
             WITH ORDINALITY AS a (type, queue, priority, payload, max_attempts, retry, timeout_seconds,
                                   delay_seconds, run_at, request_id, trace_context, client_id,
                                   deadline_seconds, deadline_at, expires_seconds, expires_at, parent_id, position)
        JOIN done ON done.id = a.parent_id
        ORDER BY a.position
    ) AS i
), stored AS (
    INSERT INTO tasks (id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, run_at,
                       request_id, trace_context, client_id, deadline_at, expires_at, parent_id)
    SELECT id, type, queue, priority, payload, max_attempts, retry, timeout_seconds, due_at, request_id, trace_context,
           client_id, ends_at, starts_until, parent_id
    FROM item
    RETURNING 1
), due AS (
    INSERT INTO outbox (task_id, attempt, queue, priority, due_at)
    SELECT id, 0, queue, priority, due_at FROM item
)
SELECT id, (SELECT pg_notify('bobrai_outbox', '')) AS notified,
       CASE WHEN (SELECT count(*) FROM stored) < (SELECT count(*) FROM item)
            THEN current_setting('bobrai.a_trigger_keeps_tasks_away') END
FROM done;
