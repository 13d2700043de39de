#!/usr/bin/env bash
# The real run: a Prefect server and worker, an MLflow server and local Ray; deploy everything, then run the deployed
# CamVid retrain as a schedule would. Needs $SEGPIPE_DATA/camvid (the SegNet layout). Up to an hour on 2 cores.
set -euo pipefail
source "$(dirname "$0")/servers.sh"
data=${SEGPIPE_DATA:?set SEGPIPE_DATA to the folder that holds camvid/}
[ -f "$data/camvid/train.txt" ] || { echo "$data/camvid/train.txt is missing: expected the SegNet layout of CamVid" >&2; exit 2; }
export SEGPIPE_DATA=$(cd "$data" && pwd)
start_servers
export PREFECT_API_URL=$prefect_url/api MLFLOW_TRACKING_URI=$mlflow_url
.venv/bin/prefect work-pool create segpipe-process --type process --overwrite
.venv/bin/prefect --no-prompt deploy --all
.venv/bin/prefect worker start --pool segpipe-process >"$home/logs/worker.log" 2>&1 &
# On a busy machine the stream of events may break off; the run goes on, so its state is what is waited for.
.venv/bin/prefect deployment run retrain/camvid --watch || true
.venv/bin/python - "$PREFECT_API_URL" <<'PY'
import json, sys, time, urllib.request

def newest_run():
    query = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flows": {"name": {"any_": ["retrain"]}}}
    request = urllib.request.Request(f"{sys.argv[1]}/flow_runs/filter", json.dumps(query).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)[0]

while (run := newest_run())["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
    time.sleep(10)
print(f"{run['name']}: {run['state']['name']} {run['state']['message'] or ''}")
sys.exit(run["state"]["type"] != "COMPLETED")
PY
.venv/bin/segpipe board camvid
.venv/bin/segpipe history camvid
echo
echo "Results are in $home; 'make ui' opens the MLflow and Prefect pages."
