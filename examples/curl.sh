#!/bin/sh
# The backbone over HTTP, with nothing but curl. Start it first: mplp up --detach
# With API keys configured, add: -H "Authorization: Bearer $KEY"
set -eu
URL=${1:-http://127.0.0.1:8700}
HERE=$(dirname "$0")

say() { printf '\n# %s\n' "$*"; }
post() { curl --silent --show-error --fail-with-body -H 'Content-Type: application/json' --data-binary "$2" "$URL$1"; echo; }
get() { curl --silent --show-error --fail-with-body "$URL$1"; echo; }

say 'Does everything answer?'
get /readyz

say 'Publish one event, then several lines; the broken one is named, the others are kept'
post /v1/events '{"type": "order.paid", "source": "shop", "subject": "order-7", "data": {"total": 12.5}}'
printf '%s\n' '{"type": "order.failed", "subject": "order-8"}' '{broken' '{"type": "order.failed", "subject": "order-9"}' |
  curl --silent --show-error -H 'Content-Type: application/x-ndjson' --data-binary @- "$URL/v1/events"
echo

say 'Ask in SQL; parameters, not string building'
post /v1/query '{"sql": "SELECT type, count() AS n FROM system_events WHERE subject LIKE {like:String} GROUP BY type ORDER BY type", "parameters": {"like": "order-%"}}'

say 'Run a workflow and wait for its end; the key makes a repeat harmless'
started=$(printf '{"definition": %s, "input": {}, "wait": 60}' "$(cat "$HERE/multi-agent-collaboration.json")" |
  curl --silent --show-error --fail-with-body -H 'Content-Type: application/json' -H "Idempotency-Key: curl-$$" --data-binary @- "$URL/v1/executions")
echo "$started"
id=$(printf '%s' "$started" | sed 's/.*"execution_id":"\([^"]*\)".*/\1/')

say 'Look at it, and at the first of its transitions'
get "/v1/executions/$id"
get "/v1/executions/$id/transitions?limit=2"

say 'Cancelling what has ended is refused, with a code'
curl --silent --show-error -X POST "$URL/v1/executions/$id/cancel"
echo

say 'Apply a rule; three failures of one customer make one composite event'
curl --silent --show-error --fail-with-body -H 'Content-Type: application/yaml' --data-binary @"$HERE/rules/orders-failing.yaml" "$URL/v1/rules?why=example"
echo
post /v1/events '[{"type": "order.failed", "data": {"customer": "c-7"}}, {"type": "order.failed", "data": {"customer": "c-7"}}, {"type": "order.failed", "data": {"customer": "c-7"}}]'
curl --silent --no-buffer --max-time 10 "$URL/v1/stream?topic=mplp.composite.events&from=beginning" | grep --max-count=1 '^data:' || true

say 'Call a module'
get /v1/modules
post /v1/modules/context/create-context '{"name": "from curl"}'

say 'Follow a topic: two records from the beginning'
curl --silent --no-buffer --max-time 5 "$URL/v1/stream?topic=mplp.system.events&from=beginning" | grep --max-count=2 '^data:' || true
