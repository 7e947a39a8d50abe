#!/bin/bash
# Restores a dump into the database, replacing what it holds, in one transaction: all of it or nothing.
# In: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, DUMP (a file's name; empty: the newest), WAIT_SECONDS (for bobrAI to be gone).
set -euo pipefail

folder=/backup
dump=${DUMP:-}
if [ -z "$dump" ]; then
  dump=$(find "$folder" -maxdepth 1 -name "$PGDATABASE-*.dump" | sed 's|.*/||' | sort | tail -n 1)
fi
if [ -z "$dump" ] || [ ! -f "$folder/$dump" ]; then
  printf 'restore: there is no dump "%s"; these are here:\n' "$dump" >&2
  find "$folder" -maxdepth 1 -name '*.dump' | sed 's|.*/|  |' | sort >&2
  exit 1
fi

# connections that PgBouncer keeps open for nobody are idle for long; a process of bobrAI asks something every few seconds. The
# external metrics only read, and go on while all others are away
in_use() {
  psql --no-psqlrc --tuples-only --no-align --command="
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'bobrai%' AND application_name <> 'bobrai-external-metrics'
      AND (state <> 'idle' OR state_change > now() - interval '15 seconds')"
}
deadline=$((SECONDS + ${WAIT_SECONDS:-60}))
until [ "$(in_use)" = 0 ]; do
  if [ "$SECONDS" -ge "$deadline" ]; then
    printf 'restore: %s connections of bobrAI are in use. Scale API, dispatcher and workers to 0 first (docs/operations.md).\n' "$(in_use)" >&2
    exit 1
  fi
  sleep 2
done

printf 'restore: %s\n' "$dump"
pg_restore --dbname="$PGDATABASE" --no-password --clean --if-exists --no-owner --no-privileges --single-transaction --exit-on-error "$folder/$dump"
PGOPTIONS='-c client_min_messages=error' psql --no-psqlrc --quiet --command='ANALYZE'
printf 'restore: done\n'
