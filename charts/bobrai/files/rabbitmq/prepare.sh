#!/bin/bash
# Runs before every start of a node: writes the cookie and the definitions (policies from the ConfigMap, the user from the
# Secret) into memory, and waits until the node's own name can be resolved.
# In: ERLANG_COOKIE, RABBITMQ_USER, RABBITMQ_PASSWORD, RABBITMQ_TAGS, VIRTUAL_HOST, NODE_HOST, START_DELAY_SECONDS.
set -euo pipefail

configuration=${CONFIGURATION:-/etc/rabbitmq}
home=/var/lib/rabbitmq
run=/run/bobrai

# a JSON string: control characters, quotes and backslashes escaped
quoted() {
  local text=$1 code character escape
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  for code in {1..31}; do
    printf -v character "\\x$(printf %02x "$code")"
    printf -v escape '\\u%04x' "$code"
    text=${text//"$character"/"$escape"}
  done
  printf '"%s"' "$text"
}

umask 077
if [ -n "${ERLANG_COOKIE:-}" ]; then
  printf '%s' "$ERLANG_COOKIE" > "$home/.erlang.cookie"
  chmod 0600 "$home/.erlang.cookie"
fi

mkdir -p "$run/definitions"
cp "$configuration/definitions.json" "$run/definitions/10-policies.json"
user=$(quoted "$RABBITMQ_USER")
host=$(quoted "$VIRTUAL_HOST")
cat > "$run/definitions/20-users.json" << DEFINITIONS
{
  "users": [{"name": $user, "password": $(quoted "$RABBITMQ_PASSWORD"), "tags": [$(quoted "$RABBITMQ_TAGS")]}],
  "permissions": [{"user": $user, "vhost": $host, "configure": ".*", "write": ".*", "read": ".*"}]
}
DEFINITIONS

# a name that is asked for too early is remembered as unknown for up to half a minute by the cluster's DNS
sleep "$START_DELAY_SECONDS"
for _ in {1..120}; do
  if getent hosts "$NODE_HOST" > /dev/null; then
    exit 0
  fi
  sleep 1
done
printf 'prepare: %s cannot be resolved; the node will try all the same\n' "$NODE_HOST" >&2
