#!/bin/bash
# Runs before every start of a node: writes the cookie and the definitions (policies from the ConfigMap, the user from the
# Secret) into memory, waits until the node's own name can be resolved, and tells a node that lost its disk whom to join.
# In: CONFIGURATION (a folder), ERLANG_COOKIE, RABBITMQ_USER, RABBITMQ_PASSWORD, RABBITMQ_TAGS, VIRTUAL_HOST, NODE_HOST,
# START_DELAY_SECONDS, RABBITMQ_NODENAME, PEERS (NODE:PORT of the management page, by spaces). Without a cookie, no PEERS.
set -euo pipefail

configuration=$CONFIGURATION
home=/var/lib/rabbitmq
data=/var/lib/rabbitmq/mnesia
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
  ! getent hosts "$NODE_HOST" > /dev/null || break
  sleep 1
done

# the first pod makes the cluster, so with an empty disk it would make a second one beside the cluster that it was in
formed() {
  local host=${1%:*} port=${1##*:}
  timeout 3 bash -c 'exec 3<> "/dev/tcp/$1/$2"
    printf "GET /api/health/checks/reached-target-cluster-size HTTP/1.0\r\n\r\n" >&3
    head -n 1 <&3 | grep -q " 200 "' formed "$host" "$port" 2> /dev/null
}
mkdir -p "$run/conf.d"
printf '# who makes the cluster\n' > "$run/conf.d/90-seed.conf"
if [ -n "${PEERS:-}" ] && [ ! -d "$data/$RABBITMQ_NODENAME" ]; then
  for peer in $PEERS; do
    if [ "${peer%:*}" != "$RABBITMQ_NODENAME" ] && formed "${peer#*@}"; then
      printf 'prepare: the disk is empty and the cluster is there: joining %s\n' "${peer%:*}"
      printf 'cluster_formation.k8s.seed_node = %s\n' "${peer%:*}" >> "$run/conf.d/90-seed.conf"
      break
    fi
  done
fi
