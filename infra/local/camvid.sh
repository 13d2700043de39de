#!/usr/bin/env bash
# The real run: a Prefect server and worker, an MLflow server and local Ray; deploys the CamVid retrain and runs it as a
# schedule would. Needs $SEGPIPE_DATA/camvid (the SegNet layout). Up to an hour on 2 cores.
set -euo pipefail
source "$(dirname "$0")/servers.sh"
data=${SEGPIPE_DATA:?set SEGPIPE_DATA to the folder that holds camvid/}
[ -f "$data/camvid/train.txt" ] || { echo "$data/camvid/train.txt is missing: expected the SegNet layout of CamVid" >&2; exit 2; }
export SEGPIPE_DATA=$(cd "$data" && pwd)
start_servers
export PREFECT_API_URL=$prefect_url/api MLFLOW_TRACKING_URI=$mlflow_url
.venv/bin/prefect work-pool create segpipe-process --type process --overwrite
.venv/bin/prefect --no-prompt deploy --name retrain/camvid # alone: the worker would also do missed nights of the others
.venv/bin/prefect worker start --pool segpipe-process >"$home/logs/worker.log" 2>&1 &
started=$(.venv/bin/prefect deployment run retrain/camvid)
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
.venv/bin/segpipe board camvid
.venv/bin/segpipe history camvid
echo
echo "Results are in $SEGPIPE_HOME; 'make ui' opens the MLflow and Prefect pages."
