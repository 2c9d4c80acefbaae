#!/usr/bin/env bash
# The load balancer in front of the nodes: balancer.sh FILE NODE…
#
# It asks each node at the port that FILE has whether it takes connections, as clouds do, and sends new ones to those that say
# yes. Two questions without an answer take a node out.
set -euo pipefail
file=$1
shift
group=
declare -A failures

while sleep 0.5; do
  port=$(cat "$file" 2>/dev/null) || continue
  alive=
  for node in "$@"; do
    if curl --silent --fail --max-time 1 --output /dev/null "http://172.30.0.1$node:$port/healthz"; then
      failures[$node]=0
    else
      failures[$node]=$((${failures[$node]:-1} + 1))
    fi
    [ "${failures[$node]}" -ge 2 ] || alive+=/$node
  done
  if [ -n "$alive" ] && [ "$alive" != "$group" ]; then
    group=$alive
    ip nexthop replace id 10 group "${group#/}" type resilient buckets 64 idle_timer 2 unbalanced_timer 0
    echo "$(date +%T.%N) ${group#/}"
  fi
done
