#!/bin/bash
# Runs before every start of the server, as the server's user: makes the database on an empty volume, refuses a volume of
# another major version, and gives the roles the passwords that the Secret holds now.
# In: PGDATA, APPLICATION_DATABASE, APPLICATION_USER, APPLICATION_PASSWORD, SUPERUSER_PASSWORD, REPLICATION_PASSWORD and
# MONITORING_PASSWORD (both optional).
set -euo pipefail

configuration=/etc/bobrai/postgresql
root=/var/lib/postgresql
socket=/var/run/postgresql
major=$(postgres --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')

say() { printf 'prepare: %s\n' "$*"; }
refuse() {
  printf 'prepare: REFUSED: %s\n' "$*" >&2
  exit 1
}

[ "$APPLICATION_USER" != postgres ] || refuse 'the application must not be the superuser: change the key "username" of the Secret'

if [ -s "$PGDATA/PG_VERSION" ]; then
  found=$(cat "$PGDATA/PG_VERSION")
  [ "$found" = "$major" ] || refuse "$PGDATA was written by PostgreSQL $found and this image is $major." \
    'Go back to the old image, take a backup, and restore it into a new volume (docs/operations.md).'
else
  for other in "$root/PG_VERSION" "$root"/data/PG_VERSION "$root"/*/PG_VERSION "$root"/*/docker/PG_VERSION; do
    [ ! -s "$other" ] || refuse "$PGDATA is empty, but $(dirname "$other") holds a database of PostgreSQL $(cat "$other")." \
      'An empty database beside it would look like lost data. Move the volume to this layout or restore a backup.'
  done
  say "making a database in $PGDATA"
  # under another name until it is complete: a pod that is killed here starts over
  fresh=$PGDATA.incomplete
  rm -rf "$fresh"
  mkdir -p "$fresh"
  # the built-in collation does not change with the image's C library, which would break indexes
  initdb --pgdata="$fresh" --username=postgres --auth-local=peer --auth-host=reject --encoding=UTF8 \
    --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 --set=huge_pages=off
  [ ! -d "$PGDATA" ] || rmdir "$PGDATA"
  mv "$fresh" "$PGDATA"
fi
chmod 0700 "$PGDATA"

# a stop.sh that was cut off
if [ -e "$root/refuses-writes" ]; then
  sed -i '/^default_transaction_read_only /d' "$PGDATA/postgresql.auto.conf"
  rm "$root/refuses-writes"
fi

# heard on the socket alone; it also recovers what a crash left behind, which takes as long as it takes
say 'setting up roles and database'
pg_ctl start --pgdata="$PGDATA" --wait --timeout=86400 --silent \
  --options="-c config_file=$configuration/postgresql.conf -c listen_addresses='' -c shared_preload_libraries='' -c max_wal_senders=0"
stop() { pg_ctl stop --pgdata="$PGDATA" --mode=fast --wait --timeout=600 --silent; }
trap stop EXIT
psql --no-psqlrc --quiet --host="$socket" --username=postgres --dbname=postgres --file="$configuration/roles.sql"
trap - EXIT
stop
say 'done'
