#!/bin/sh
# Start the study of $STUDY in /runs, or continue it where it was stopped; make the keys of the workers.
set -eu
: "${STUDY:?the folder of a study below /studies, such as cavity}"
run=/runs/$STUDY

# Each worker takes a key of its own (worker.sh). Keys can be made as soon as the run directory has its own.
keys() {
  until [ -s "$run/connect.json" ]; do sleep 0.2; done
  install -d -m 0700 "/keys/$STUDY"
  for number in $(seq 1 "${WORKER_KEYS:-16}"); do
    [ -e "/keys/$STUDY/worker-$number.json" ] ||
      penstock key add "$run" "worker-$number" --out "/keys/$STUDY/worker-$number.json"
  done
}
keys &

# Prometheus finds the study here: its file discovery takes a * in the last part of a path only.
mkdir -p /runs/targets
ln -sf "../$STUDY/targets.json" "/runs/targets/$STUDY.json"

if [ -e "$run/study.toml" ]; then
  exec penstock resume "$run"
fi
# shellcheck disable=SC2086 # OVERRIDES holds several arguments
exec penstock run "/studies/$STUDY" --out "$run" --set "server.host=\"$NETWORK\"" --set solver.concurrency=0 ${OVERRIDES:-}
