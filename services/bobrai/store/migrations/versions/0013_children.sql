-- Without a default: no row is rewritten. The task that has submitted this one, and which may be pruned; NULL: none has.
ALTER TABLE tasks ADD COLUMN parent_id bigint;
-- It holds nothing for tasks without a parent.
CREATE INDEX tasks_parent ON tasks (parent_id, id) WHERE parent_id IS NOT NULL;
