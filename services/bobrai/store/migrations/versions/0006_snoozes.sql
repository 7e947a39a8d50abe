-- A constant default: no row is rewritten, and whatever size the table has it is locked for a moment only.
ALTER TABLE tasks ADD COLUMN snoozes integer NOT NULL DEFAULT 0; -- RetryLater that cost no attempt, since the latest replay
