#!/bin/bash
# Becomes the node, with as many files as a busy broker opens: some hosts grant a program 1024 unless it asks for more, and
# others a billion, for each of which Erlang would reserve memory.
set -euo pipefail

files=65536
most=$(ulimit -H -n)
if [ "$most" != unlimited ] && [ "$most" -lt "$files" ]; then
  files=$most
fi
ulimit -n "$files"
exec rabbitmq-server
