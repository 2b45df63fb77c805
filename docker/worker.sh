#!/bin/sh
# Run simulations of $STUDY, with a key that no other worker uses. With arguments: run these in place of it.
set -eu
[ "$#" = 0 ] || exec "$@"
: "${STUDY:?the name of a folder below /studies, such as cavity}"
keys=/keys/$STUDY
waits=
while [ ! -e "$keys/finished" ]; do
  for file in "$keys"/worker-*.json; do
    [ -s "$file" ] || continue
    exec 9>>"$file.lock"                   # locked for as long as the worker lives
    if flock --nonblock 9; then
      echo "the key of this worker: $file"
      exec penstock worker --connect "$file"
    fi
  done
  [ -n "$waits" ] || echo "waiting for a key in $keys: the server makes them (WORKER_KEYS) when it has started"
  waits=1
  sleep 1
done
echo "the study $STUDY has finished"
