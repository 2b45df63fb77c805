#!/bin/sh
# Serve simulations of $STUDY with a key that no other worker uses: a lock of its file, which ends with this process.
set -eu
: "${STUDY:?the folder of a study below /studies, such as cavity}"
while :; do
  for file in "/keys/$STUDY"/worker-*.json; do
    [ -s "$file" ] || continue
    exec 9>>"$file.lock"
    if flock --nonblock 9; then
      exec penstock worker --connect "$file"
    fi
  done
  sleep 1
done
