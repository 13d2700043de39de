#!/usr/bin/env bash
# A real night on this machine: night.sh NAME runs flows/recipes/NAME.yaml as a schedule would, on a Prefect server and
# worker, an MLflow server and local Ray. Public datasets are looked for in $SEGPIPE_DATA.
set -euo pipefail
source "$(dirname "$0")/servers.sh"
recipe=flows/recipes/${1:?give the name of a recipe in flows/recipes}.yaml
if [ -n "${SEGPIPE_DATA:-}" ]; then
    SEGPIPE_DATA=$(cd "$SEGPIPE_DATA" && pwd) # the worker stands elsewhere
    export SEGPIPE_DATA
fi
.venv/bin/segpipe check "$recipe" # what cannot work is told before five programs are started
start_servers
export PREFECT_API_URL=$prefect_url/api MLFLOW_TRACKING_URI=$mlflow_url
.venv/bin/prefect work-pool create segpipe-process --type process --overwrite
.venv/bin/prefect --no-prompt deploy --name retrain/adhoc # alone: the worker would also do missed nights of the others
.venv/bin/prefect worker start --pool segpipe-process >"$home/logs/worker.log" 2>&1 &
started=$(.venv/bin/prefect deployment run retrain/adhoc --param "recipe=$recipe")
echo "$started"
run=$(grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' <<<"$started" | head -1)
tail -n +1 -F "$home/logs/worker.log" 2>/dev/null &
# Not --watch: its stream of events may break off on a busy machine while the run goes on.
.venv/bin/python - "$PREFECT_API_URL/flow_runs/$run" <<'PY'
import json, sys, time, urllib.request

def flow_run():
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
        return json.load(answer)

while (run := flow_run())["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
    time.sleep(5)
print(f"\n{run['name']}: {run['state']['name']} {run['state']['message'] or ''}")
sys.exit(run["state"]["type"] != "COMPLETED")
PY
.venv/bin/segpipe board "$1"
.venv/bin/segpipe history "$1"
echo
echo "Results are in $SEGPIPE_HOME; 'make ui' opens the MLflow and Prefect pages."
