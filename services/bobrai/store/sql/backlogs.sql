-- name: backlogs
-- What scaling goes by: waiting and running tasks alike, so that a busy worker is not taken for one too many.
SELECT name, due + processing AS tasks, measured_at,
       extract(epoch FROM now() - measured_at)::double precision AS age_seconds
FROM queues WHERE removed_at IS NULL ORDER BY name;
