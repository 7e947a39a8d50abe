-- Without defaults: no row is rewritten.
ALTER TABLE tasks ADD COLUMN deadline_at timestamptz;                 -- no attempt starts or runs after it; NULL: there is none
ALTER TABLE task_types ADD COLUMN deadline_seconds double precision;  -- of a task, from its acceptance on; NULL: none
-- What waits for too long. It holds nothing for tasks without a deadline.
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE status = 'pending' AND deadline_at IS NOT NULL;
