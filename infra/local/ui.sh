#!/usr/bin/env bash
# Opens MLflow's and Prefect's pages over the results in $SEGPIPE_HOME. Ctrl-C ends both.
set -euo pipefail
source "$(dirname "$0")/servers.sh"
start_servers
echo
echo "  MLflow   $mlflow_url     experiments, runs, pictures, registered models"
echo "  Prefect  $prefect_url     flow runs, leaderboard artifacts, schedules"
echo
echo "Ctrl-C ends both."
wait -n
echo "One of the servers ended; its log in $home/logs says why." >&2
exit 1
