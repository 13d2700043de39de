#!/usr/bin/env bash
# MLflow's and Prefect's pages over the results in $SEGPIPE_HOME, on loopback. Ctrl-C ends both.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=${SEGPIPE_HOME:-$PWD/.segpipe}
mlflow_port=${MLFLOW_PORT:-5000} prefect_port=${PREFECT_PORT:-4200}
export PREFECT_HOME=${PREFECT_HOME:-$home/prefect} PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
export MLFLOW_DISABLE_TELEMETRY=true
export PREFECT_UI_API_URL=http://127.0.0.1:$prefect_port/api
mkdir -p "$home"
trap 'trap - EXIT; kill 0' EXIT INT TERM
.venv/bin/mlflow server --workers 1 --host 127.0.0.1 --port "$mlflow_port" \
    --backend-store-uri "sqlite:///$home/mlflow.db" --artifacts-destination "$home/mlartifacts" >"$home/mlflow.log" 2>&1 &
.venv/bin/prefect server start --host 127.0.0.1 --port "$prefect_port" >"$home/prefect.log" 2>&1 &
echo "MLflow   http://127.0.0.1:$mlflow_port      (log: $home/mlflow.log)"
echo "Prefect  http://127.0.0.1:$prefect_port     (log: $home/prefect.log)"
echo "Both need some twenty seconds to answer. Ctrl-C ends them."
wait -n
echo "One of the servers ended; its log says why." >&2
exit 1
