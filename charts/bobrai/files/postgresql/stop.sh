#!/bin/bash
# Runs before the server is told to end. A fast shutdown cuts off whatever statement runs, and who sent it through a pooler cannot
# know whether it took effect. So first the server refuses to write, which says that it did not, and what writes already comes to
# its end, for two seconds at most.
# In: PGDATA. Out: a server that is shutting down, whatever went wrong here; SIGTERM alone would wait for clients.
set -u

# prepare.sh undoes what is left when this is cut off
export MARK=/var/lib/postgresql/refuses-writes
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=/var/run/postgresql --username=postgres --dbname=postgres > /dev/null << 'SQL'
SET statement_timeout = '5s';
SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off' AS writes \gset
\if :writes
\! touch "$MARK"
ALTER SYSTEM SET default_transaction_read_only = on;
SELECT pg_reload_conf();
DO $$
DECLARE
  over timestamptz := clock_timestamp() + interval '2 seconds';
BEGIN
  PERFORM pg_sleep(0.05); -- until every session has heard of it
  WHILE clock_timestamp() < over AND EXISTS (
    SELECT FROM pg_stat_get_activity(NULL) WHERE client_port IS NOT NULL AND backend_xid IS NOT NULL)
  LOOP
    PERFORM pg_sleep(0.01);
    PERFORM pg_stat_clear_snapshot();
  END LOOP;
END
$$;
-- in the file alone: this server goes on to refuse, the next one does not
ALTER SYSTEM RESET default_transaction_read_only;
\! rm -f "$MARK"
\endif
SQL

exec pg_ctl stop --mode=fast --no-wait --silent
