# Every target does its own set-up: on a machine with Python 3.11 and make, `make test` is all it takes.

.DEFAULT_GOAL := help
# Two environments at once would ask apt-get for the same package at once.
.NOTPARALLEL:
SHELL := /bin/sh
VENV := .venv
PROTO_VENV := .venv-proto
BIN := $(VENV)/bin
export PYTHON
# The tests and tools of this tree, whatever the caller's environment says.
unexport PYTHONPATH VIRTUAL_ENV

# Stamps: an environment is remade when what defines it changes, and only then.
READY := $(VENV)/.ready
PROTO_READY := $(PROTO_VENV)/.ready

$(READY): requirements/dev.txt pyproject.toml scripts/setup
	@scripts/setup $(VENV) requirements/dev.txt --with-project
	@touch $@

$(PROTO_READY): requirements/proto.txt scripts/setup
	@scripts/setup $(PROTO_VENV) requirements/proto.txt
	@touch $@

##@ The two to begin with
.PHONY: demo
demo: $(READY)  ## classify 200 real images against a local Athena
	@$(BIN)/python scripts/demo.py

.PHONY: test
test: $(READY) $(PROTO_READY)  ## all tests, in five to ten minutes on two cores
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

##@ Quality
.PHONY: check
check: $(READY) $(PROTO_READY)  ## lint, format, types, import contract, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit/test_proto.py

.PHONY: check-wheel
check-wheel: $(READY)  ## install the built wheel without extras into an empty environment and import it
	@scripts/check_wheel

.PHONY: format
format: $(READY)  ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

##@ Measures and proofs
.PHONY: bench
bench: $(READY)  ## every scenario beside its peers; writes benchmarks/results
	@$(BIN)/python -m benchmarks --full

.PHONY: bench-quick
bench-quick: $(READY)  ## the same with small numbers, in under 90 s
	@$(BIN)/python -m benchmarks --quick

.PHONY: bench-micro
bench-micro: $(READY)  ## the parts: controller, demultiplexer, wire, preprocessing
	@$(BIN)/python -m pytest benchmarks/micro -o addopts="--import-mode=importlib" --benchmark-only

.PHONY: sim
sim: $(READY)  ## a million images, 200 disconnects, virtual time; SIM_ARGS="--seed 1" repeats a run
	@$(BIN)/python -m tests.simulation $(SIM_ARGS)

.PHONY: soak
soak: $(READY)  ## 20 minutes of random faults; memory, tasks and descriptors watched
	@$(BIN)/python -m tests.soak

.PHONY: corpus
corpus: $(READY)  ## every image of Pillow's own test suite, each failing alone
	@$(BIN)/python scripts/fetch_image_corpus
	@$(BIN)/python -m pytest tests/faults/test_hostile_images.py $(PYTEST_ARGS)

##@ Upkeep
.PHONY: setup
setup: $(READY) $(PROTO_READY)  ## the environments, and nothing else

.PHONY: proto
proto: $(PROTO_READY)  ## regenerate the protobuf code from proto/
	@$(PROTO_VENV)/bin/python scripts/generate_proto.py

.PHONY: simd
simd: $(READY)  ## an environment with Pillow-SIMD built for AVX2
	@scripts/build_simd_env
	@.venv-simd/bin/python -m pytest tests/unit/images tests/properties/test_images.py tests/faults/test_hostile_images.py

.PHONY: lock
lock: $(READY)  ## compile requirements/*.txt; LOCK_ARGS=--upgrade takes the newest
	@scripts/lock $(LOCK_ARGS)

.PHONY: clean
clean:  ## remove the environments and everything that tools left behind
	rm -rf $(VENV) .venv-* dist build .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this list
	@awk 'BEGIN {FS = ":.*  ## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	     /^[a-z-]+:.*  ## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
