# The first `make` of anything sets up .venv; Python 3.11 to 3.14 is all that is assumed. PYTHON=python3.12 chooses another one.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONUNBUFFERED := 1
# The tests start some hundred processes: let Python keep what it has compiled, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check lint types tests explore simulate simulate-stages simulate-history bench bench-nab chaos lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1|/' | column -t -s '|' 2>/dev/null || grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST)

setup: ## Make .venv, get Java and Kafka (repeating it costs nothing)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there. Install Python 3.11 to 3.14." >&2; exit 1; }
	@$(PYTHON) infra/bootstrap.py

demo: setup ## Run the whole thing once: workflow, composite event, SQL answer
	@$(BIN)/python -m services.processes.demo

up: setup ## Start everything in the foreground; Ctrl-C stops it
	@$(BIN)/mplp up

test: lint ## Lint, types and all tests: what CI runs
	@$(MAKE) --no-print-directory --jobs=2 types tests

check: test ## The same as test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Three processes at once, the long ones first: half of the time of these tests is waiting.
tests: setup
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),3) --dist loadscope --no-loadscope-reorder

explore: setup ## Run the unit tests with other random examples than last time
	@$(BIN)/python -m pytest -q --numprocesses $(or $(JOBS),2) --hypothesis-profile explore tests/unit tests/contract

simulate: setup ## Run the log kernel under SEEDS=1000 seeds, FROM=0 on, in JOBS=2 processes
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --from $(or $(FROM),0) $(if $(JOBS),--jobs $(JOBS))

simulate-stages: setup ## Run the match and correlate stages under SEEDS=300 seeds, FROM=0 on, in JOBS=2 processes
	@$(BIN)/python -m tests.simulation --stages --seeds $(or $(SEEDS),300) --from $(or $(FROM),0) $(if $(JOBS),--jobs $(JOBS))

simulate-history: setup ## Run the sink of the history under SEEDS=300 seeds, FROM=0 on, in JOBS=2 processes
	@$(BIN)/python -m tests.simulation --history --seeds $(or $(SEEDS),300) --from $(or $(FROM),0) $(if $(JOBS),--jobs $(JOBS))

bench: setup ## Run the benchmarks, or with ONLY="decision" one; results go to docs/benchmarks/
	$(BIN)/python -m tests.benchmarks $(ONLY)

bench-nab: setup ## Score the rule type anomaly on the Numenta Anomaly Benchmark, DATA=folder with its data and labels
	@test -n "$(DATA)" || { echo "error: say where the benchmark is: make bench-nab DATA=folder (with data/ and labels/)." >&2; exit 2; }
	$(BIN)/python -m tests.benchmarks.nab "$(DATA)"

chaos: setup ## Run 1,000 random workflows for 3 minutes while processes are killed and stopped (ARGS="--seconds 60 --seed 7")
	$(BIN)/python -m tests.chaos $(ARGS)

chaos-rules: setup ## Find composites planted among a million records while workers are killed (ARGS="--records 100000 --faults kill,broker")
	$(BIN)/python -m tests.chaos.rules $(ARGS)

chaos-routes: setup ## Deliver 100,000 events while keys fail and workers are killed; put dead letters back (ARGS="--events 10000 --redrive 0")
	$(BIN)/python -m tests.chaos.routes $(ARGS)

chaos-history: setup ## Kill, stop, restart and rob the history's sink 50 times under load: is it exact? (ARGS="--kills 10 --server")
	$(BIN)/python -m tests.chaos.history $(ARGS)

lock: setup ## Resolve all versions anew: Python packages and Kafka's jars
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --extra dev pyproject.toml --output-file requirements-dev.lock
	$(BIN)/python -m infra.setup --lock

clean: ## Remove .venv and caches (not .mplp, your data)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
