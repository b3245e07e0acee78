# pyswarm. Two commands matter: `make demo` and `make test`. Both install what they need (as root, on Debian).
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
JOBS ?= $(shell nproc)
PROTOS := $(wildcard proto/pyswarm/v1/*.proto)
CODE := common manager worker overlay agent-runtime node cli lab simulator
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install demo test check bench soak proto proto-check fmt clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: ## Debian packages and the virtual environment
	@deploy/install-dependencies.sh
	@deploy/make-venv.sh $(VENV)

demo: install ## the main job, told as a story (root)
	@$(PY) -m pyswarm_lab.demo

test: install ## every test this machine can run
	@$(PY) -m pytest -n $(JOBS) --dist loadfile tests

check: install proto-check ## linters, types, import contracts, generated code, fast tests
	@ruff check .
	@ruff format --check .
	@mypy $(CODE)
	@lint-imports
	@$(PY) -m pytest -q -n $(JOBS) -m 'not slow' tests/unit tests/transcripts tests/sim

bench: install ## figures, as a table and as JSON in bench/results
	@$(PY) -m bench.main

# Profiles that no seed has by itself: a fifth as many seeds of each.
SOAKED_TOO := jobs rollouts orchestration scaling networks

soak: install ## the whole cluster in virtual time, over many seeds: make soak SEEDS=5000 [FIRST_SEED=N JOBS=N]
	@pyswarm simulate soak --seeds $(or $(SEEDS),1000) --first-seed $(or $(FIRST_SEED),0) --jobs $(JOBS)
	@for profile in $(SOAKED_TOO); do echo "$$profile:"; pyswarm simulate soak --profile $$profile \
	  --seeds $$(( $(or $(SEEDS),1000) / 5 + 1 )) --first-seed $(or $(FIRST_SEED),0) --jobs $(JOBS) || exit 1; done

proto: install ## regenerate the code beside the .proto files
	@$(PY) -m grpc_tools.protoc -I proto --python_out=proto --grpc_python_out=proto \
	  --mypy_out=quiet:proto --mypy_grpc_out=quiet:proto $(PROTOS)

proto-check: proto
	@git diff --exit-code --stat -- proto || { echo "generated code was stale: commit what 'make proto' wrote"; exit 1; }

fmt: install ## format and fix
	@ruff check --fix . ; ruff format .

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
