# make setup | demo | test | test-slow | test-upstream | lint | wheel | gpu - see README.md and CONTRIBUTING.md
PYTHON ?= python3
VENV ?= .venv
OUT ?= benchmarks/results
BIN := $(VENV)/bin

.PHONY: setup demo test test-slow test-upstream lint wheel gpu ablation study

setup: $(VENV)/.installed

# torch first and pinned, so that no other requirement may choose its build
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/reliev3r demo --out demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile -m "not slow"  # a process a core, each of one thread

test-slow: setup
	$(BIN)/pytest -m slow

# Every upstream system that is checked out below RELIEV3R_UPSTREAM, with random weights (docs/baselines.md); hours, 16 GB
test-upstream: setup
	OMP_NUM_THREADS=2 $(BIN)/pytest tests/upstream --timeout 1600

# One wheel in dist/; build/ would bring along modules that are gone
wheel: setup
	rm -rf build dist/*.whl
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

# The loss forms and options on a rendered capture, three seeds each (docs/results/ablation.md); resumable
ablation: setup
	$(BIN)/python studies/one_capture.py --out $(OUT)/ablation --seeds 0 1 2

# Weak against full supervision and the ablations across scenes (docs/results/study.md); resumable, hours on two cores
study: setup
	$(BIN)/python studies/paradigm.py --size cpu --out $(OUT)/study_cpu

# Measurements that wait for an accelerator: the interpreter at hand, nothing installed, each resumable, 9 minutes at most
gpu:
	mkdir -p $(OUT)
	PYTHONPATH=src timeout 540 python3 benchmarks/step.py --preset tiny --out $(OUT)/step_tiny_gpu.json
	PYTHONPATH=src timeout 540 python3 benchmarks/step.py --preset base --out $(OUT)/step_base_gpu.json
	PYTHONPATH=src timeout 540 python3 benchmarks/train.py --out $(OUT)/train_large_gpu.json
	PYTHONPATH=src timeout 540 python3 benchmarks/feed.py --preset base --images 64 --workers 0 8 --out $(OUT)/feed_gpu.json
	PYTHONPATH=src timeout 540 python3 studies/paradigm.py --size gpu --out $(OUT)/study_gpu || test $$? -eq 124  # goes on in the next call
