"""The Prefect flows: thin doors onto `segpipe/stages/`, and the only place that imports prefect."""
