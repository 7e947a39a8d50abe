-- A table of a few hundred rows: it is locked for a moment only. Workers of earlier releases announce neither.
ALTER TABLE task_types ADD COLUMN runs_in text;      -- 'process', or NULL: in the worker itself
ALTER TABLE task_types ADD COLUMN memory_mb integer; -- in MiB, of such a process; NULL: what the container has
