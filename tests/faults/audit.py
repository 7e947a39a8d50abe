"""What the test database writes down by itself: every transition of every task, and the effects of handlers.

In: `SCHEMA`, run once on a migrated database. Out: rows that `invariants.py` reads. The triggers see every writer,
so a transition that the product would rather not mention is here all the same.
"""

SCHEMA = """
CREATE SCHEMA faults;

-- no unique constraint: a doubled effect must be counted, not refused
CREATE TABLE faults.effects (task_id bigint NOT NULL, attempt integer NOT NULL, pid integer NOT NULL);

CREATE TABLE faults.transitions (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id     bigint      NOT NULL,
    old_status  text,
    new_status  text        NOT NULL,
    old_attempt integer,
    new_attempt integer     NOT NULL,
    worker_id   bigint,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION faults.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO faults.transitions (task_id, old_status, new_status, old_attempt, new_attempt, worker_id)
    VALUES (NEW.id, OLD.status, NEW.status, OLD.attempt, NEW.attempt, coalesce(NEW.worker_id, OLD.worker_id));
    RETURN NULL;
END $$;

CREATE TRIGGER faults_born AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION faults.note();
CREATE TRIGGER faults_moved AFTER UPDATE ON tasks FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.attempt IS DISTINCT FROM NEW.attempt
          OR OLD.finished_at IS NOT NULL)
    EXECUTE FUNCTION faults.note();
"""
