-- One row per task that is the only one of its kind, as long as it is, and somewhat longer. Never a unique index on tasks
-- by their status: a retry must not be refusable.
CREATE TABLE unique_tasks (
    hash       bytea       PRIMARY KEY CHECK (length(hash) = 32), -- of type, key and the value there: domain/unique.py
    task_id    bigint      NOT NULL,                              -- it may be pruned by now, and holds nothing then
    holds      text        NOT NULL CHECK (holds IN ('waiting', 'unfinished', 'always')),
    expires_at timestamptz,                                       -- it holds no longer than this; NULL: no bound in time
    check_at   timestamptz NOT NULL,                              -- when to look next whether it is of use
    CONSTRAINT unique_tasks_always_ends CHECK (holds <> 'always' OR expires_at IS NOT NULL)
);
CREATE INDEX unique_tasks_check ON unique_tasks (check_at);
-- Its rows live minutes: clean up after thousands of changes, not after a share.
ALTER TABLE unique_tasks SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
                              autovacuum_vacuum_cost_delay = 1);

-- Without defaults, on tables that are locked for a moment only.
ALTER TABLE idempotency_keys ADD COLUMN known_ids bigint[]; -- of task_ids: those that were there before; NULL: none
ALTER TABLE task_types ADD COLUMN unique_rule json;         -- NULL: none
