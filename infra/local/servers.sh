# Sourced by ui.sh and night.sh: MLflow's and Prefect's servers over the results in $SEGPIPE_HOME, on loopback.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export SEGPIPE_HOME=${SEGPIPE_HOME:-$PWD/.segpipe}
home=$SEGPIPE_HOME # for what cannot lie in an object store: databases, logs
case $home in *://*) home=$PWD/.segpipe ;; esac
mlflow_url=http://127.0.0.1:${MLFLOW_PORT:-5000} prefect_url=http://127.0.0.1:${PREFECT_PORT:-4200}
export PREFECT_HOME=${PREFECT_HOME:-$home/prefect}
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # ten idle processes for features of language models
mkdir -p "$home/logs"

answers() { # answers NAME URL PID: waits until URL answers, at most two minutes; PID is the server that should
    for _ in $(seq 120); do
        # Another program on this port would answer, too: ours has ended then, because the port was taken.
        kill -0 "$3" 2>/dev/null || break
        .venv/bin/python - "$2" <<'PY' && return
import sys, urllib.request
try:
    sys.exit(urllib.request.urlopen(sys.argv[1], timeout=2).status != 200)
except OSError:
    sys.exit(1)
PY
        sleep 1
    done
    echo "$1 does not answer at $2; its log in $home/logs says why. Is the port taken? MLFLOW_PORT and PREFECT_PORT choose others" >&2
    return 1
}

stop_all() { # the last started first: a worker whose server is gone waits for it; ten seconds each, then by force
    trap - EXIT INT TERM
    local pid pids
    pids=$(jobs -p | sort -rn)
    disown -a # bash need not report how each of them ended
    for pid in $pids; do
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 20); do
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.5
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

start_servers() {
    # Job control: else bash starts them deaf to SIGINT, which is what Prefect's worker turns a SIGTERM into.
    set -m
    trap stop_all EXIT INT TERM
    .venv/bin/mlflow server --workers 1 --host 127.0.0.1 --port "${mlflow_url##*:}" \
        --backend-store-uri "sqlite:///$home/mlflow.db" --artifacts-destination "$home/mlartifacts" \
        >"$home/logs/mlflow.log" 2>&1 &
    local mlflow=$!
    PREFECT_UI_API_URL=$prefect_url/api .venv/bin/prefect server start --host 127.0.0.1 --port "${prefect_url##*:}" \
        >"$home/logs/prefect.log" 2>&1 &
    local prefect=$!
    echo "starting MLflow at $mlflow_url and Prefect at $prefect_url (logs in $home/logs) ..."
    answers MLflow "$mlflow_url/health" $mlflow
    answers Prefect "$prefect_url/api/health" $prefect
}
