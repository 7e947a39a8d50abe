#!/bin/bash
# Dumps the database into a file, proves that the file can be read to its end, and removes those that are older than wished.
# In: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, KEEP_DAYS, WAIT_SECONDS. Out: /backup/NAME-TIME.dump
set -euo pipefail

folder=/backup
file=$folder/$PGDATABASE-$(date -u +%Y%m%dT%H%M%SZ).dump
partial=$file.partial

say() { printf 'backup: %s\n' "$*"; }

umask 077
deadline=$((SECONDS + WAIT_SECONDS))
until psql --no-psqlrc --quiet --command='SELECT 1' > /dev/null; do
  [ "$SECONDS" -lt "$deadline" ] || { say "the database did not answer within $WAIT_SECONDS s" >&2 && exit 1; }
  sleep 5
done

# what a killed run left behind
find "$folder" -maxdepth 1 -name '*.partial' -mmin +1440 -delete
trap 'rm -f "$partial"' EXIT

pg_dump --format=custom --no-password --file="$partial"
tables=$(pg_restore --list "$partial" | grep -c ' TABLE DATA ' || true)
pg_restore --file=/dev/null "$partial"
sync "$partial"
mv "$partial" "$file"
say "$file: $(stat -c %s "$file") bytes, $tables tables"

# only after a success, so the newest is never removed
find "$folder" -maxdepth 1 -name "$PGDATABASE-*.dump" ! -path "$file" -mtime +"$((KEEP_DAYS - 1))" -print -delete | sed 's|^|backup: removed |'
