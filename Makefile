# Every target sets up .venv by itself when needed, and is quick when it exists.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# The same with the packages that benchmarks compare with.
PEERS := .venv/.peers
# One thread for each maths library: the session's own threads share the cores (docs/explanations/threads.md).
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint docs bench bench-live bench-recon bench-learning soak clean setup

demo: $(READY)  ## The whole beamline in one command, about 90 seconds
	$(BIN)/bluesky-jit demo $(ARGS)

test: $(READY)  ## All tests: those with real processes one by one, then the others, two at a time
	$(BIN)/pytest tests/system tests/hardware $(ARGS)
	$(BIN)/pytest tests/unit --numprocesses 2 $(ARGS)

lint: $(READY)  ## ruff, pyright and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(READY)  ## Reference pages that are made from the code
	$(BIN)/python docs/make_reference.py

bench: bench-live bench-recon bench-learning  ## All benchmarks; figures go to docs/benchmarks

bench-live: $(READY)
	$(BIN)/bluesky-jit bench live $(ARGS)

bench-recon: $(PEERS)
	$(BIN)/bluesky-jit bench recon $(ARGS)

bench-learning: $(PEERS)
	$(BIN)/bluesky-jit bench learning $(ARGS)

soak: $(READY)  ## Ten minutes of live runs: memory, threads and disk stay flat; ARGS="--seconds 60" for less
	$(BIN)/bluesky-jit bench soak $(ARGS)

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:  ## Remove the environment, caches and the demo's data
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache build dist jit-data *.egg-info
