#!/bin/sh
# Start the study of $STUDY, or continue it where it was stopped. With arguments: run these in place of it.
set -euf
[ "$#" = 0 ] || exec "$@"
: "${STUDY:?the name of a folder below /studies, such as cavity}"
run=/runs/$STUDY keys=/keys/$STUDY target=/targets/$STUDY.json

address=$(hostname -i | tr ' ' '\n' | grep -m 1 '^[0-9.]*$')
if [ -e "$run/study.toml" ]; then
  set -- penstock resume "$run" --set "server.host=\"$address\""
else
  rm -rf "$keys"                           # those of a run that was deleted
  set -- penstock run "/studies/$STUDY" --out "$run" --set "server.host=\"$address\"" --set solver.concurrency=0
  for setting in ${OVERRIDES:-}; do set -- "$@" --set "$setting"; done
fi
install -d -m 0700 "$keys"
touch "$keys/started"
python3 /opt/penstock/bin/keys.py "$run" "$keys" "${WORKER_KEYS:-64}" "$keys/started" &

# Prometheus reads where the metrics are from a volume of its own: a run directory is closed to other users.
while :; do
  if [ -s "$run/targets.json" ] && ! cmp -s "$run/targets.json" "$target"; then
    cp "$run/targets.json" "$target.new" && chmod 0644 "$target.new" && mv "$target.new" "$target"
  fi
  sleep 2
done &

"$@" &
penstock=$!
trap 'kill -TERM "$penstock"' TERM INT     # `docker stop`: the study stops with a checkpoint
code=0
wait "$penstock" || code=$?
while kill -0 "$penstock" 2>/dev/null; do  # a signal has ended the wait
  code=0
  wait "$penstock" || code=$?
done
rm -f "$target"
[ "$code" != 0 ] || touch "$keys/finished" # workers that start later then end
exit "$code"
