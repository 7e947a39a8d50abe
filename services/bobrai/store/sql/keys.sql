-- name: known_keys
-- What authentication needs: the keys that can be used, and those that ended lately, whose holders are told so. Times are
-- in seconds from now, because the database is the clock.
SELECT id, name, secret_hash, previous_hash, scopes, queues, types, own_tasks, rate,
       burst, max_waiting, revoked_at IS NOT NULL AS revoked,
       extract(epoch FROM expires_at - now())::double precision AS expires_in,
       extract(epoch FROM previous_until - now())::double precision AS previous_ends_in
FROM api_keys
WHERE coalesce(revoked_at, 'infinity') > now() - interval '1 day'
  AND coalesce(expires_at, 'infinity') > now() - interval '1 day';

-- name: list_keys
-- For people: never a hash.
SELECT id, name, scopes, queues, types, own_tasks, rate, burst, max_waiting, created_at,
       created_by, rotated_at, previous_until, expires_at,
       coalesce(expires_at, 'infinity') <= now() AS expired, superseded_at IS NOT NULL AS superseded, revoked_at,
       last_used_at
FROM api_keys WHERE $1::text IS NULL OR id = $1 ORDER BY created_at, id;

-- name: create_key
-- No row: the name is taken, or there are as many keys as there may be.
WITH made AS (
    INSERT INTO api_keys (id, name, secret_hash, scopes, queues, types, own_tasks, rate, burst,
                          max_waiting, expires_at, created_by)
    SELECT $1, $2, $3, $4::text[], $5::text[], $6::text[], $7, $8, $9, $10,
           coalesce($11::timestamptz, now() + make_interval(secs => $12::double precision)), $14
    WHERE (SELECT count(*) FROM api_keys
           WHERE revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now()) < $13::integer
    ON CONFLICT (name) WHERE revoked_at IS NULL AND superseded_at IS NULL DO NOTHING
    RETURNING id, name, scopes, queues, types, own_tasks, rate, burst, max_waiting, expires_at
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, after)
    SELECT $14, $15, $16, $17, 'key.create', 'key:' || id, to_jsonb(m) - 'id' FROM made AS m
    RETURNING id
)
SELECT (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_access', '') AS notified FROM made;

-- name: key_name_taken
SELECT FROM api_keys WHERE name = $1 AND revoked_at IS NULL AND superseded_at IS NULL;

-- name: free_key_name
-- Takes its name from a key that has expired, so that another key can have it.
UPDATE api_keys SET superseded_at = now()
WHERE name = $1 AND expires_at <= now() AND revoked_at IS NULL AND superseded_at IS NULL
RETURNING id;

-- name: rotate_key
-- The secret so far goes on to work for a grace. No row: there is no such key, or the grace of the last rotation is not over:
-- of three secrets nobody knows which one is in use.
WITH before AS MATERIALIZED (
    SELECT rotated_at, previous_until FROM api_keys WHERE id = $1 FOR UPDATE
), rotated AS (
    UPDATE api_keys
    SET secret_hash = $2, rotated_at = now(),
        previous_hash = CASE WHEN $3::double precision > 0 THEN secret_hash END,
        previous_until = CASE WHEN $3::double precision > 0 THEN now() + make_interval(secs => $3::double precision) END
    WHERE id = $1 AND revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now() AND EXISTS (SELECT FROM before)
      AND ($3::double precision = 0 OR coalesce(previous_until, '-infinity') <= now())
    RETURNING rotated_at, previous_until
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $4, $5, $6, $7, 'key.rotate', 'key:' || $1, to_jsonb(b), to_jsonb(r) FROM before AS b, rotated AS r
    RETURNING id
)
SELECT (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_access', '') AS notified FROM rotated;

-- name: grace_of_key
SELECT previous_until FROM api_keys
WHERE id = $1 AND revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now() AND previous_until > now();

-- name: revoke_key
WITH revoked AS (
    UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL
    RETURNING id, name, scopes, queues, types, own_tasks, rate, burst, max_waiting, expires_at
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before)
    SELECT $2, $3, $4, $5, 'key.revoke', 'key:' || id, to_jsonb(r) - 'id' FROM revoked AS r
    RETURNING id
)
SELECT (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_access', '') AS notified FROM revoked;

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

-- name: supersede_twins
-- A declared key whose file holds a key with another id by now: it makes way for that one, and works for the grace. Its own
-- file may come back.
WITH ended AS (
    UPDATE api_keys SET superseded_at = now(), expires_at = now() + make_interval(secs => $7::double precision)
    WHERE name = $1 AND id <> $2 AND created_by = $3 AND revoked_at IS NULL AND superseded_at IS NULL
    RETURNING id, name, scopes, queues, types, own_tasks, rate, burst, max_waiting, expires_at
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $3, $4, $5, $6, 'key.change', 'key:' || id, to_jsonb(e) - 'id' - 'expires_at', to_jsonb(e) - 'id' FROM ended AS e
    RETURNING id
)
SELECT id, (SELECT id FROM recorded) AS audit_id, pg_notify('bobrai_access', '') AS notified FROM ended;

-- name: declare_key
-- Makes a key, or makes one what its declaration says. Its secret is another only when the file's is another than was
-- declared last: what people rotated or revoked meanwhile stays so. No row: it is so already, or somebody else's.
WITH before AS MATERIALIZED (
    SELECT name, scopes, queues, types, own_tasks, rate, burst, max_waiting, rotated_at, revoked_at
    FROM api_keys WHERE id = $1 FOR UPDATE
), declared AS (
    INSERT INTO api_keys AS k (id, name, secret_hash, scopes, queues, types, own_tasks, rate, burst,
                               max_waiting, created_by, declared_hash)
    SELECT $1, $2, $3, $4::text[], $5::text[], $6::text[], $7, $8, $9, $10, $12, $3
    WHERE (SELECT count(*) FROM before) < 2 -- so that it is looked at before
      AND NOT EXISTS (SELECT FROM api_keys AS o WHERE o.name = $2 AND o.id <> $1 AND o.revoked_at IS NULL AND o.superseded_at IS NULL)
    ON CONFLICT (id) DO UPDATE
    SET name = $2, scopes = excluded.scopes, queues = excluded.queues, types = excluded.types,
        own_tasks = excluded.own_tasks, rate = excluded.rate,
        burst = excluded.burst, max_waiting = excluded.max_waiting, declared_hash = excluded.declared_hash,
        secret_hash = CASE WHEN k.declared_hash = excluded.declared_hash THEN k.secret_hash ELSE excluded.secret_hash END,
        rotated_at = CASE WHEN k.declared_hash = excluded.declared_hash THEN k.rotated_at ELSE now() END,
        previous_hash = CASE WHEN k.declared_hash = excluded.declared_hash THEN k.previous_hash
                             WHEN k.revoked_at IS NULL THEN k.secret_hash END,
        previous_until = CASE WHEN k.declared_hash = excluded.declared_hash THEN k.previous_until
                              WHEN k.revoked_at IS NULL THEN now() + make_interval(secs => $11::double precision) END,
        revoked_at = CASE WHEN k.declared_hash = excluded.declared_hash THEN k.revoked_at END,
        superseded_at = NULL, expires_at = NULL
    WHERE k.created_by = $12
      AND (k.name, k.declared_hash, k.scopes, k.queues, k.types, k.own_tasks, k.rate, k.burst,
           k.max_waiting, k.superseded_at)
          IS DISTINCT FROM (excluded.name, excluded.declared_hash, excluded.scopes, excluded.queues, excluded.types,
                            excluded.own_tasks, excluded.rate, excluded.burst,
                            excluded.max_waiting, NULL::timestamptz)
    RETURNING id, name, scopes, queues, types, own_tasks, rate, burst, max_waiting, rotated_at, revoked_at
), recorded AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, before, after)
    SELECT $12, $13, $14, $15, CASE WHEN EXISTS (SELECT FROM before) THEN 'key.change' ELSE 'key.create' END,
           'key:' || d.id, (SELECT to_jsonb(b) FROM before AS b), to_jsonb(d) - 'id'
    FROM declared AS d
    RETURNING id, action
)
SELECT r.id AS audit_id, r.action, pg_notify('bobrai_access', '') AS notified
FROM declared LEFT JOIN recorded AS r ON true;

-- name: other_key_of_name
-- Who else has the name or the id.
SELECT id FROM api_keys
WHERE (name = $1 AND revoked_at IS NULL AND superseded_at IS NULL AND (id <> $2 OR created_by <> $3))
   OR (id = $2 AND created_by <> $3);
