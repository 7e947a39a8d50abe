-- Changes record themselves: the statement that makes one inserts its row. Here is what is beside that.

-- name: record_purge
-- A purge is many commits and one row, which says at any time how far it has come. $1: the row, once there is one.
WITH counted AS (
    UPDATE audit SET after = jsonb_build_object('cancelled', $2::bigint, 'asked_to_stop', $3::bigint)
    WHERE id = $1::bigint
    RETURNING id
), begun AS (
    INSERT INTO audit (actor, actor_name, source, request_id, action, target, after)
    SELECT $4, $5, $6, $7, 'queue.purge', 'queue:' || $8::text,
           jsonb_build_object('cancelled', $2::bigint, 'asked_to_stop', $3::bigint)
    WHERE $1::bigint IS NULL
    RETURNING id
)
SELECT id FROM counted UNION ALL SELECT id FROM begun;

-- name: list_audit
-- Newest first; the id is the key of the page, as with tasks.
SELECT id, at, actor, actor_name, action, target, source, request_id, before, after
FROM audit
WHERE ($1::bigint IS NULL OR id < $1)
  AND ($2::text IS NULL OR actor = $2)
  AND ($3::text IS NULL OR action = $3)
  AND ($4::text IS NULL OR target = $4)
  AND ($5::timestamptz IS NULL OR at > $5)
  AND ($6::timestamptz IS NULL OR at < $6)
ORDER BY id DESC LIMIT $7;

-- name: prune_audit
-- Rows past their retention, in a small batch.
DELETE FROM audit WHERE id = ANY (ARRAY(
    SELECT id FROM audit WHERE at < now() - make_interval(secs => $1::double precision)
    ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING 1;
