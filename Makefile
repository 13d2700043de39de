# segpipe: `make demo` and `make test` need python3 (3.11+), pip and make; everything else they bring themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV := .boot/bin/uv
SEGPIPE_HOME ?= $(CURDIR)/.segpipe
MLFLOW_PORT ?= 5000
PREFECT_PORT ?= 4200
export SEGPIPE_HOME
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 17

install: .venv/installed ## the environment, from the hashed lock

.boot/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segpipe needs Python 3.11 or newer, found " + sys.version)'
	$(PYTHON) -m venv .boot
	.boot/bin/pip install --quiet --disable-pip-version-check uv

.venv/installed: requirements.lock pyproject.toml | .boot/bin/uv
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	# Compiled once: where Python may not write its caches, each of Ray's and Prefect's processes would do it anew.
	$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

demo: install ## generate scenes, retrain three architectures, show the champion (about 6 minutes on 2 cores)
	$(BIN)/python -m flows flows/recipes/scenes.yaml

test: install ## the tests (about 15 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder tests

soak: install ## every trial of the rows A, B3, C and E of the goal sheet, with their table (about 20 minutes on 2 cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup --timeout 7200 --soak tests/soak

learn: install ## each architecture learns eight images by heart, and compiled says the same (about 25 minutes on 2 cores)
	$(BIN)/python -m pytest -q -n 2 --timeout 1200 --learn tests/learn

.cache/browser/installed: | .boot/bin/uv
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .cache/browser
	$(UV) pip install --quiet --python .cache/browser/bin/python 'playwright>=1.50'
	touch $@

CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
browser: install .cache/browser/installed ## opens model cards and comparison pages in headless Chromium and uses them (a minute; takes a Chromium on PATH, or brings one)
	$(if $(CHROMIUM),,.cache/browser/bin/playwright install chromium)
	$(BIN)/python -m tests.browser.pages .cache/browser/pages
	.cache/browser/bin/python tests/browser/look.py .cache/browser/pages $(CHROMIUM)

check: install ## lint, format, strict types, walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_walls.py

format: install ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: install ## open MLflow and Prefect on this machine (Ctrl-C ends both)
	infra/local/ui.sh

camvid: install ## the real run: server, worker, MLflow, then the deployed CamVid retrain (up to an hour on 2 cores)
	infra/local/night.sh camvid

nuclei: install ## the same on nuclei: Mask R-CNN beside U-Net and watershed (about half an hour on 2 cores)
	infra/local/night.sh nuclei

panoptic: install ## panoptic maps of made-up scenes: Panoptic FPN beside Panoptic-DeepLab (about 5 minutes on 2 cores)
	$(BIN)/python -m flows flows/recipes/scenes_panoptic.yaml

coco-mini: install ## a few COCO photographs from JSON to registered Mask R-CNN, on coco_mini in SEGPIPE_DATA (2 minutes)
	$(BIN)/python -m flows flows/recipes/coco_mini.yaml

drift: install ## shifted images, and what comes of them: event, automation, retrain, gate (about a quarter of an hour on 2 cores)
	infra/local/drift.sh

bench: install ## what orchestration costs beside bare training
	$(BIN)/python benchmarks/orchestration.py

.cache/peers/installed: benchmarks/peers.txt | .boot/bin/uv
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .cache/peers
	$(UV) pip install --quiet --python .cache/peers/bin/python --requirements benchmarks/peers.txt
	touch $@

bench-metrics: install ## what counting for metrics costs beside the common ways
	$(BIN)/python benchmarks/metrics.py

bench-crf: install ## how fast DenseCRF refines, and whether its labels are right, on CamVid in SEGPIPE_DATA; PYDENSECRF=PYTHON
	$(BIN)/python benchmarks/crf.py $(if $(PYDENSECRF),--peers $(PYDENSECRF))

bench-detection: install ## how fast Mask R-CNN trains beside torchvision's own loop, on COCO images in SEGPIPE_DATA
	$(BIN)/python benchmarks/detection.py

bench-step: install .cache/peers/installed ## training steps and forward passes beside other people's networks (20 minutes on 2 cores)
	$(BIN)/python benchmarks/step.py --peers .cache/peers/bin/python

bench-predict: install ## how fast images become masks on disk and in Parquet, beside the bare model
	$(BIN)/python benchmarks/predict.py

bench-loss: install ## what cross entropy of coarse logits costs beside resizing them and torch's
	$(BIN)/python benchmarks/coarse_loss.py

bench-data: install .cache/peers/installed ## what ingest and training input cost beside other libraries, on CamVid in SEGPIPE_DATA
	$(BIN)/python benchmarks/masks.py
	$(BIN)/python benchmarks/ingest.py --peers .cache/peers/bin/python
	$(BIN)/python benchmarks/input.py --peers .cache/peers/bin/python
	$(BIN)/python benchmarks/input.py --peers .cache/peers/bin/python --colour 0.4
	$(BIN)/python benchmarks/memory.py

lock: .boot/bin/uv ## resolve the dependencies anew
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock

clean: ## remove caches and the environment; results stay
	rm -rf .venv .boot .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-results: ## remove the results of this folder: datasets, runs, ledger, databases
	rm -rf .segpipe

.PHONY: help install demo test soak learn browser check format ui camvid nuclei panoptic coco-mini drift bench bench-metrics bench-crf bench-detection bench-step bench-predict bench-loss bench-data lock clean clean-results
