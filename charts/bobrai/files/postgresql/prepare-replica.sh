#!/bin/bash
# Runs before every start of a streaming replica: copies the primary into an empty volume, and copies it again when the
# primary no longer holds the log that this replica would need. A promoted replica is left alone.
# In: PGDATA, PRIMARY_HOST, PRIMARY_PORT, REPLICATION_PASSWORD, POD_NAME. Out: /run/bobrai/{postgresql.conf,pgpass}.
set -euo pipefail

configuration=/etc/bobrai/postgresql
run=/run/bobrai
slot=${POD_NAME//-/_}

say() { printf 'prepare-replica: %s\n' "$*"; }

umask 077
password=${REPLICATION_PASSWORD//\\/\\\\}
printf '*:*:*:replicator:%s\n' "${password//:/\\:}" > "$run/pgpass"
export PGPASSFILE=$run/pgpass
cat > "$run/postgresql.conf" << CONFIGURATION
include '$configuration/postgresql.conf'
primary_conninfo = 'host=$PRIMARY_HOST port=$PRIMARY_PORT user=replicator passfile=$run/pgpass application_name=$slot'
primary_slot_name = '$slot'
CONFIGURATION

if [ -s "$PGDATA/PG_VERSION" ] && [ ! -e "$PGDATA/standby.signal" ]; then
  say 'this server was promoted: nothing to prepare'
  exit 0
fi

ask() { psql --no-psqlrc --tuples-only --no-align --host="$PRIMARY_HOST" --port="$PRIMARY_PORT" --username=replicator --dbname=postgres --command="$1"; }
until ask 'SELECT 1' > /dev/null; do
  say "waiting for $PRIMARY_HOST"
  sleep 5
done

state=$(ask "SELECT coalesce(wal_status, 'new') FROM pg_replication_slots WHERE slot_name = '$slot'")
if [ "$state" = lost ]; then
  ask "SELECT pg_drop_replication_slot('$slot')" > /dev/null
  state=
fi
if [ -z "$state" ]; then
  ask "SELECT pg_create_physical_replication_slot('$slot', true)" > /dev/null
  [ ! -e "$PGDATA" ] || say 'the primary does not hold our log any more'
fi

if [ -z "$state" ] || [ ! -s "$PGDATA/PG_VERSION" ]; then
  say "copying $PRIMARY_HOST"
  fresh=$PGDATA.incomplete
  rm -rf "$fresh" "$PGDATA"
  mkdir -p "$fresh"
  pg_basebackup --pgdata="$fresh" --host="$PRIMARY_HOST" --port="$PRIMARY_PORT" --username=replicator --no-password \
    --wal-method=stream --slot="$slot" --checkpoint=fast
  touch "$fresh/standby.signal"
  chmod 0700 "$fresh"
  mv "$fresh" "$PGDATA"
fi
say 'done'
