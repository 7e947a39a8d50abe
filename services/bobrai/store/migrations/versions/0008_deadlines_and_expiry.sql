-- Without defaults: no row is rewritten.
ALTER TABLE tasks ADD COLUMN deadline_at timestamptz;                 -- no attempt starts or runs after it; NULL: there is none
ALTER TABLE tasks ADD COLUMN expires_at timestamptz;                  -- no first attempt starts after it; NULL: it never expires
ALTER TABLE task_types ADD COLUMN deadline_seconds double precision;  -- of a task, from its acceptance on; NULL: none
-- What waits for too long. It holds nothing for tasks without a deadline, nor for what has started and had only to do that.
CREATE INDEX tasks_overdue ON tasks (least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END))
    WHERE status = 'pending' AND least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END) IS NOT NULL;
