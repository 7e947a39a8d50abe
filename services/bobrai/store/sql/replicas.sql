-- name: register_replica
-- A new API process; the others are told, so that they divide rates anew at once.
INSERT INTO api_replicas (expires_at) VALUES (now() + make_interval(secs => $1::double precision))
RETURNING id, pg_notify('bobrai_access', '') AS notified;

-- name: renew_replica
-- No row: this process was silent for too long, and was forgotten.
UPDATE api_replicas SET expires_at = now() + make_interval(secs => $2::double precision) WHERE id = $1 RETURNING 1;

-- name: forget_replicas
-- This process, and whoever was killed.
DELETE FROM api_replicas WHERE id = $1 OR expires_at < now() RETURNING pg_notify('bobrai_access', '') AS notified;

-- name: count_replicas
SELECT count(*) AS replicas FROM api_replicas WHERE expires_at > now();
