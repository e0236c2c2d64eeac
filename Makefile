# make demo: the main job on an embedded chain. make test: everything that CI checks. make plans: random plans on a local chain.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# Cases of faults wait more than they work: two for each core.
FAULT_JOBS ?= 4
# Compiled Python lies in .venv: no test process compiles anew what another has read, whatever the shell says. Of 190 MB of libraries
# a tenth is ever read: pip compiles none.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/.pycache
READY := .venv/.ready

.PHONY: demo test check setup cover slow plans faults kills fuzz lock clean

demo: $(READY)
	$(BIN)/trimtab demo

test: check cover

# Lint, types, architecture, Solidity.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/solhint.py
	$(BIN)/pytest tests/test_architecture.py

# Reports are looked at in Chromium (Debian: apt-get install chromium); without it those tests are skipped, and fail where CI is set.
# The whole suite: 85 % of everything, 95 % of the pure part are covered, branches too, without whole steps, faults and pages, which run apart.
# The architecture is part of check.
PURE := agent/units.py,agent/errors.py,agent/codec.py,agent/reference/*,agent/model/*,agent/amm/*,agent/lp/*,agent/policy/*,agent/planning/*,agent/guards/*
cover: $(READY)
	rm -f .coverage .coverage.*
	$(BIN)/pytest -n $(JOBS) --dist worksteal --cov --cov-report= --ignore=tests/test_architecture.py --ignore=tests/cases --ignore=tests/faults --ignore=tests/browser
	$(BIN)/coverage report --skip-covered --fail-under=85
	$(BIN)/coverage report --include='$(PURE)' --fail-under=95
	$(BIN)/pytest -n $(JOBS) --dist worksteal tests/cases tests/faults tests/browser

# Tests that take half a minute and more: many looks in a row, random portfolios on a chain, an upgrade killed at every statement.
slow: $(READY)
	$(BIN)/pytest -n $(JOBS) -m slow

# A hundred random plans carried out on anvil: each ends at its destination or names the bound that stopped it.
plans: $(READY)
	$(BIN)/python scripts/plans_on_chain.py --problems 100

# Faults at every journal state, write, send and answer, on anvil: none may break what docs/reliability.md promises. Figures in build/.
faults: $(READY)
	mkdir -p build
	$(BIN)/python scripts/faults.py --jobs $(FAULT_JOBS) --minutes 22 --least 2000 --out build/faults.json

# 500 SIGKILLs at random moments of live rebalances on anvil: each rebalance is done exactly once.
kills: $(READY)
	mkdir -p build
	$(BIN)/python scripts/kills.py --jobs $(JOBS) --kills 500 --out build/kills.json

# Attacks at length, each with its figures as JSON; the exit says whether any came through. SECONDS is for each of the first two:
# the signer, and the decoders of what endpoints, files and calldata say. Then the whole agent in any order of events, RUNS times.
SECONDS ?= 120
FUZZ_SECONDS ?= $(SECONDS)
RUNS ?= 100
fuzz: $(READY)
	-$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-fuzz.lock
	$(BIN)/python -m tests.fuzz.signer --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m tests.fuzz.answers --seconds $(FUZZ_SECONDS)
	TRIMTAB_STATEFUL_RUNS=$(RUNS) TRIMTAB_STATEFUL_STEPS=50 $(BIN)/pytest tests/cases/test_whole_agent.py --timeout 7200

setup: $(READY)

$(READY): requirements.lock pyproject.toml contracts/package-lock.json
	$(PYTHON) -c 'import sys; sys.exit("trimtab needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python scripts/npm_install.py
	touch $@

# Pins and hashes without index addresses.
lock:
	$(BIN)/uv pip compile -q pyproject.toml --extra local --extra analysis --extra cluster --extra dev --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal -o requirements.lock
	grep -o 'atheris==[0-9.]*' pyproject.toml | $(BIN)/uv pip compile -q - --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -o requirements-fuzz.lock

clean:
	rm -rf .venv contracts/node_modules .mypy_cache .ruff_cache .hypothesis .coverage*
