# Every target works on a fresh machine with Python >= 3.10 and pip: the environment is made first, once.
PYTHON ?= python3
BIN := .venv/bin
KEYPOINTS ?= examples/data/keypoints.json
OUT ?= out/demo
ARGS ?=

# Two processes share two cores badly when each starts one thread a core.
export OMP_NUM_THREADS ?= 1
# A worker a core; files stay whole, so that what a file makes once is made once.
WORKERS := -n auto --dist loadfile

# What runs on the compiled kernel where it was built runs once more without it.
EAGER_TOO := $(filter-out %_compiled.py,$(wildcard tests/bodymodel/test_model*.py)) tests/bodymodel/test_fused.py tests/laws/test_body_laws.py

.PHONY: test lint demo bench bench-record bench-check check clean
.DEFAULT_GOAL := test

# Dynamo cannot trace the wrappers of the shape checks, so files about torch.compile run without them.
test: .venv/installed
	$(BIN)/pytest $(WORKERS) -o python_files='test_*_compiled.py' $(ARGS)
	$(BIN)/pytest $(WORKERS) --ignore-glob='*_compiled.py' --jaxtyping-packages=physique,beartype.beartype $(ARGS)
	PHYSIQUE_BACKEND=eager $(BIN)/pytest $(WORKERS) --jaxtyping-packages=physique,beartype.beartype $(EAGER_TOO)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

demo: .venv/installed-demo
	$(BIN)/python examples/01_fit_keypoints.py --keypoints $(KEYPOINTS) --out $(OUT)

# A table of ratios to other libraries; `make bench ARGS=--quick` for the rows with floors alone.
bench: .venv/installed-bench
	$(BIN)/python benchmarks/speed.py $(ARGS)

# The same, kept in benchmarks/RESULTS.md, benchmarks/results.json and docs/images/speed.png.
bench-record: .venv/installed-bench
	$(BIN)/python benchmarks/speed.py --record $(ARGS)

# Fails, naming the rows, when ratios have fallen against those kept.
bench-check: .venv/installed-bench
	$(BIN)/python benchmarks/speed.py --quick --check $(ARGS)

check:
	.ci/run

clean:
	rm -rf .venv build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks bodymodel/_kernel.*

# First what the demo needs: the tests' packages are several times as large.
.venv/installed-demo: pyproject.toml constraints.txt setup.py $(wildcard bodymodel/kernel/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[viz,io]'
	touch $@

.venv/installed: .venv/installed-demo
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
