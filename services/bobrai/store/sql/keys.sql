-- name: known_keys
-- What authentication needs: the keys that can be used, and those that ended lately, whose holders are told so. Times are
-- in seconds from now, because the database is the clock.
SELECT id, name, secret_hash, previous_hash, scopes, queues, types, own_tasks, rate_count, rate_seconds,
       burst, max_waiting, revoked_at IS NOT NULL AS revoked,
       extract(epoch FROM expires_at - now())::double precision AS expires_in,
       extract(epoch FROM previous_until - now())::double precision AS previous_ends_in
FROM api_keys
WHERE coalesce(revoked_at, 'infinity') > now() - interval '1 day'
  AND coalesce(expires_at, 'infinity') > now() - interval '1 day';

-- name: list_keys
-- For people: never a hash.
SELECT id, name, scopes, queues, types, own_tasks, rate_count, rate_seconds, burst, max_waiting, created_at,
       created_by, rotated_at, previous_until, expires_at,
       coalesce(expires_at, 'infinity') <= now() AS expired, revoked_at, last_used_at
FROM api_keys WHERE $1::text IS NULL OR id = $1 ORDER BY created_at, id;

-- name: create_key
-- No row: the name is taken, or there are as many keys as there may be.
INSERT INTO api_keys (id, name, secret_hash, scopes, queues, types, own_tasks, rate_count, rate_seconds, burst,
                      max_waiting, created_by, expires_at)
SELECT $1, $2, $3, $4::text[], $5::text[], $6::text[], $7, $8, $9, $10, $11, $12,
       coalesce($13::timestamptz, now() + make_interval(secs => $14::double precision))
WHERE (SELECT count(*) FROM api_keys WHERE revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now()) < $15::integer
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING id, pg_notify('bobrai_access', '') AS notified;

-- name: key_name_taken
SELECT FROM api_keys WHERE name = $1 AND revoked_at IS NULL;

-- name: rotate_key
-- The secret so far goes on to work for a grace, and the one before that ends.
UPDATE api_keys
SET secret_hash = $2, rotated_at = now(),
    previous_hash = CASE WHEN $3::double precision > 0 THEN secret_hash END,
    previous_until = CASE WHEN $3::double precision > 0 THEN now() + make_interval(secs => $3::double precision) END
WHERE id = $1 AND revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now()
RETURNING id, pg_notify('bobrai_access', '') AS notified;

-- name: revoke_key
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL
RETURNING id, pg_notify('bobrai_access', '') AS notified;

-- name: touch_keys
-- Notes that these keys are used, at most once a minute whichever process says so.
UPDATE api_keys SET last_used_at = now() WHERE id = ANY (ARRAY(
    SELECT id FROM api_keys
    WHERE id = ANY ($1::text[]) AND coalesce(last_used_at, '-infinity') < now() - interval '1 min'
    FOR UPDATE SKIP LOCKED));

-- name: prune_keys
-- Keys that ended so long ago that nobody asks for them any more.
DELETE FROM api_keys
WHERE least(revoked_at, expires_at) < now() - make_interval(secs => $1::double precision)
RETURNING 1;

-- name: end_declared_twins
-- A declared key whose file holds a key with another id by now: it makes way for that one.
UPDATE api_keys SET revoked_at = now() WHERE name = $1 AND id <> $2 AND created_by = $3 AND revoked_at IS NULL
RETURNING id, pg_notify('bobrai_access', '') AS notified;

-- name: declare_key
-- Makes a key, or makes one what its declaration says. One that was revoked stays so until its secret is another. No row:
-- it is so already, or the name is another key's.
INSERT INTO api_keys AS k (id, name, secret_hash, scopes, queues, types, own_tasks, rate_count, rate_seconds, burst,
                           max_waiting, created_by)
SELECT $1, $2, $3, $4::text[], $5::text[], $6::text[], $7, $8, $9, $10, $11, $12
WHERE NOT EXISTS (SELECT FROM api_keys AS o WHERE o.name = $2 AND o.id <> $1 AND o.revoked_at IS NULL)
ON CONFLICT (id) DO UPDATE
SET name = $2, scopes = excluded.scopes, queues = excluded.queues, types = excluded.types,
    own_tasks = excluded.own_tasks, rate_count = excluded.rate_count, rate_seconds = excluded.rate_seconds,
    burst = excluded.burst, max_waiting = excluded.max_waiting, secret_hash = excluded.secret_hash,
    rotated_at = CASE WHEN k.secret_hash = excluded.secret_hash THEN k.rotated_at ELSE now() END,
    previous_hash = CASE WHEN k.secret_hash = excluded.secret_hash THEN k.previous_hash
                         WHEN k.revoked_at IS NULL THEN k.secret_hash END,
    previous_until = CASE WHEN k.secret_hash = excluded.secret_hash THEN k.previous_until
                          WHEN k.revoked_at IS NULL THEN now() + make_interval(secs => $13::double precision) END,
    revoked_at = CASE WHEN k.secret_hash = excluded.secret_hash THEN k.revoked_at END
WHERE k.created_by = $12
  AND (k.name, k.secret_hash, k.scopes, k.queues, k.types, k.own_tasks, k.rate_count, k.rate_seconds, k.burst, k.max_waiting)
      IS DISTINCT FROM (excluded.name, excluded.secret_hash, excluded.scopes, excluded.queues, excluded.types,
                        excluded.own_tasks, excluded.rate_count, excluded.rate_seconds, excluded.burst, excluded.max_waiting)
RETURNING id, pg_notify('bobrai_access', '') AS notified;

-- name: other_key_of_name
SELECT id FROM api_keys WHERE name = $1 AND revoked_at IS NULL AND (id <> $2 OR created_by <> $3);
