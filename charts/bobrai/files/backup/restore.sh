#!/bin/bash
# Restores a dump into the database, replacing what it holds, in one transaction: all of it or nothing. It refuses at once while bobrAI
# works on the database, and never begins by itself because that ended meanwhile.
# In: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, DUMP (a file's name; empty: the newest), STOP (the commands that stop bobrAI).
set -euo pipefail

folder=/backup
quiet_seconds=15 # a process of bobrAI asks something every few seconds

say() { printf 'restore: %s\n' "$*"; }
ask() { psql --no-psqlrc --tuples-only --no-align --set=ON_ERROR_STOP=1 --command="$1"; }

dump=${DUMP:-}
if [ -z "$dump" ]; then
  dump=$(find "$folder" -maxdepth 1 -name "$PGDATABASE-*.dump" | sed 's|.*/||' | sort | tail -n 1)
fi
if [ -z "$dump" ]; then
  say "there is no dump of $PGDATABASE in the volume" >&2
  exit 1
fi
if [ ! -f "$folder/$dump" ]; then
  say "there is no dump \"$dump\"; these are here:" >&2
  find "$folder" -maxdepth 1 -name '*.dump' | sed 's|.*/|  |' | sort >&2
  exit 1
fi

# who has connections of which CONDITION is true, such as "API (3), workers (8)"; the external metrics only read, and go on while all
# others are away
users() {
  ask "
    SELECT string_agg(format('%s (%s)', part, connections), ', ' ORDER BY part) FROM (
      SELECT CASE
          WHEN application_name = 'bobrai-api' THEN 'API'
          WHEN application_name IN ('bobrai-dispatcher', 'bobrai-listener') THEN 'dispatcher'
          WHEN application_name IN ('bobrai-worker', 'bobrai-handlers', 'bobrai-heartbeat', 'bobrai-isolated') THEN 'workers'
          ELSE application_name
        END AS part, count(*) AS connections
      FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'bobrai%' AND application_name <> 'bobrai-external-metrics' AND ($1)
      GROUP BY part) AS used"
}

refuse_while_used() {
  local used
  used=$(users "state <> 'idle' OR state_change > '$begun'")
  if [ -n "$used" ]; then
    # who works is busy for moments only: all who were lately
    used=$(users "state <> 'idle' OR state_change > clock_timestamp() - interval '$quiet_seconds seconds'")
    say "REFUSED, nothing was changed: the database is in use by $used. Stop them, then start a new restore:" >&2
    printf '%s\n' "${STOP:-}" >&2
    exit 1
  fi
}

# What stopped leaves connections behind, which PgBouncer keeps open for nobody. They differ from those in use by being idle, and staying so.
begun=$(ask 'SELECT clock_timestamp()')
refuse_while_used
left=$(users "state_change > timestamptz '$begun' - interval '$quiet_seconds seconds'")
if [ -n "$left" ]; then
  say "idle connections of $left were in use less than $quiet_seconds s ago. Waiting for up to $quiet_seconds s; refusing if one is used again."
  # assigned before it is looked at: a question that fails must end the script, and is no answer
  while [ -n "$left" ]; do
    refuse_while_used
    sleep 0.5
    left=$(users "state_change > clock_timestamp() - interval '$quiet_seconds seconds'")
  done
  refuse_while_used
fi

say "$dump"
pg_restore --dbname="$PGDATABASE" --no-password --clean --if-exists --no-owner --no-privileges --single-transaction --exit-on-error "$folder/$dump"
PGOPTIONS='-c client_min_messages=error' psql --no-psqlrc --quiet --command='ANALYZE' \
  || say 'the data are restored, but not their statistics: autovacuum makes them, or ANALYZE'
say "done"
