# make setup | demo | test | test-slow | test-upstream | lint | docs | wheel | gpu | rehearsal - see README.md and CONTRIBUTING.md
PYTHON ?= python3
VENV ?= .venv
OUT ?= benchmarks/results
BIN := $(VENV)/bin

.PHONY: setup demo test test-slow test-upstream lint docs wheel gpu ablation study rehearsal

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

# The site, from docs/ and the source: build/site/index.html; a broken link or a page without a place stops it
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

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

# The paper's study (docs/reproduce.md) from datasets to tables, on miniatures of all of them: minutes on two cores
REHEARSAL := $(OUT)/rehearsal
DATA := $(REHEARSAL)/data
rehearsal: setup
	OMP_NUM_THREADS=1 $(BIN)/python studies/miniatures.py --out $(DATA)
	OMP_NUM_THREADS=1 $(BIN)/python studies/paper.py --size rehearsal --out $(REHEARSAL)/study --workers 2 \
	  --data $(DATA)/DL3DV-10K --depth-truth 'wai:$(DATA)/DL3DV-10K-WAI/{scene}' \
	  --benchmark $(DATA)/DL3DV-Benchmark --benchmark-depth 'wai:$(DATA)/DL3DV-Benchmark-WAI/{scene}' \
	  --synthetic ase:$(DATA)/ASE tartanair:$(DATA)/TartanAir mvs-synth:$(DATA)/MVS-Synth blendedmvs:$(DATA)/BlendedMVS \
	  --scannetpp $(DATA)/ScanNetPP --depth 'folder:$(DATA)/simulated/{name}' --tracks sift \
	  --semi-depth 'folder:$(DATA)/simulated/{name}' --semi-intrinsics fov:66
	OMP_NUM_THREADS=1 $(BIN)/reliev3r label $(REHEARSAL)/study/probe/captures --out $(REHEARSAL)/experts --views 4 \
	  --depth depth-pro:$(DATA)/depth-pro --tracks sift  # the real class; its random weights mean nothing

# Measurements that wait for an accelerator: the interpreter at hand, nothing installed, each resumable, 9 minutes at most.
# In the order of what they decide; beside each the minutes that it should take (none was run yet). A quarter of an hour
# of a GPU is the first four lines, or the two runs of `small`. PI3=DIR, a checkout of yyfz/Pi3 (branch training), sets
# its step beside ours.
ON_GPU := PYTHONPATH=src timeout 540 python3
SMALL := train small-gpu --minutes 5 steps=none --resume auto heldout_scenes=8
gpu:
	mkdir -p $(OUT)
	for how in none cheap most; do $(ON_GPU) benchmarks/step.py --preset base --recompute $$how --out $(OUT)/step_base_$${how}_gpu.json; done  # 2
	$(ON_GPU) benchmarks/train.py --views 8 --repeats 5 $(if $(PI3),--upstream $(PI3)) --out $(OUT)/train_large_gpu.json  # 2
	for what in blocks whole; do $(ON_GPU) benchmarks/step.py --preset base --compile $$what --out $(OUT)/step_base_$${what}_gpu.json; done  # 6
	$(ON_GPU) benchmarks/feed.py --preset base --images 64 --workers 0 8 --out $(OUT)/feed_gpu.json  # 4
	$(ON_GPU) -m reliev3r.cli $(SMALL) --out $(OUT)/small_solved_gpu  # 6
	$(ON_GPU) -m reliev3r.cli $(SMALL) --out $(OUT)/small_regressed_gpu network.cameras=regressed network.match_dim=64 \
	  objective.correspondence_weight=0.3  # 6
	$(ON_GPU) benchmarks/step.py --preset tiny --out $(OUT)/step_tiny_gpu.json  # 1
	$(ON_GPU) studies/paradigm.py --size gpu --out $(OUT)/study_gpu || test $$? -eq 124  # 9; goes on in the next call
