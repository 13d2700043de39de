#!/usr/bin/env bash
# Drift, from shifted images to a decision, on this machine: a Prefect server and worker, an MLflow server, local Ray and
# the deployments of prefect.yaml with their automations. drift.py tells the story; the results lie in a home of its own.
set -euo pipefail
export SEGPIPE_HOME=${SEGPIPE_HOME:-$PWD/.segpipe}/drift
if [ -e "$SEGPIPE_HOME" ]; then
    echo "$SEGPIPE_HOME holds a story that was told before, and a second one would find nothing new: remove it first" >&2
    exit 2
fi
source "$(dirname "$0")/servers.sh"
start_servers
export PREFECT_API_URL=$prefect_url/api MLFLOW_TRACKING_URI=$mlflow_url
.venv/bin/python infra/local/drift.py begin
.venv/bin/prefect work-pool create segpipe-process --type process --overwrite
.venv/bin/prefect --no-prompt deploy --all --prefect-file "$home/prefect.yaml" >"$home/logs/deploy.log"
.venv/bin/prefect worker start --pool segpipe-process >"$home/logs/worker.log" 2>&1 &
.venv/bin/python infra/local/drift.py tell
.venv/bin/segpipe history streets
echo
echo "Results are in $SEGPIPE_HOME. 'SEGPIPE_HOME=$SEGPIPE_HOME make ui' opens the pages: Prefect's event feed, the"
echo "automations, the runs and the artifact predictions-dark-said; MLflow's model streets."
if [ -n "${STAY:-}" ]; then
    echo "The servers stay until Ctrl-C: $prefect_url and $mlflow_url"
    wait -n
fi
