#!/bin/bash
# Before a node stops: wait until the queues can do without it, and move its leaders. Both only for a while: when the whole
# release goes, the last nodes wait for peers that never come back. In: CLUSTER_SIZE, QUORUM_WAIT_SECONDS, DRAIN_SECONDS.
if [ "$CLUSTER_SIZE" -gt 1 ]; then
  timeout "$QUORUM_WAIT_SECONDS" rabbitmq-upgrade await_online_quorum_plus_one -t "$QUORUM_WAIT_SECONDS"
  timeout "$DRAIN_SECONDS" rabbitmq-upgrade drain
fi
exit 0
