#!/bin/sh
# Writes PgBouncer's list of users from the environment into memory, then becomes PgBouncer. Any character may be in a password.
# In: DATABASE_USER, DATABASE_PASSWORD, STATS_PASSWORD (optional).
set -eu

configuration=/etc/bobrai/pgbouncer
run=/run/bobrai

quoted() {
  printf '"'
  printf '%s' "$1" | sed 's/"/""/g'
  printf '"'
}

umask 077
{
  quoted "$DATABASE_USER" && printf ' ' && quoted "$DATABASE_PASSWORD" && printf '\n'
  if [ -n "${STATS_PASSWORD:-}" ]; then
    quoted pgbouncer_stats && printf ' ' && quoted "$STATS_PASSWORD" && printf '\n'
  fi
} > "$run/userlist.txt"
unset DATABASE_PASSWORD STATS_PASSWORD

# each client is an open file, and many hosts grant 1024 to a program that does not ask for more
ulimit -S -n "$(ulimit -H -n)"
exec pgbouncer "$configuration/pgbouncer.ini"
