-- name: announce_types
INSERT INTO task_types (name, queue, description, payload_schema, result_schema, retry, timeout_seconds)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::json[], $5::json[], $6::json[], $7::double precision[])
ON CONFLICT (name) DO UPDATE
SET queue = excluded.queue, description = excluded.description, payload_schema = excluded.payload_schema,
    result_schema = excluded.result_schema, retry = excluded.retry, timeout_seconds = excluded.timeout_seconds,
    announced_at = now();

-- name: task_types
SELECT name, queue, description, payload_schema, result_schema, retry, timeout_seconds FROM task_types ORDER BY name;
