#!/bin/bash
# Becomes the node. Erlang reserves memory for every file that could be opened, and some hosts allow a billion.
set -euo pipefail

files=65536
if [ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -gt "$files" ]; then
  ulimit -n "$files"
fi
exec rabbitmq-server
