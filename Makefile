# make demo: the main job on an embedded chain. make test: everything that CI checks. make plans: random plans on a local chain.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Tests wait for blocks, servers and processes for a part of their time.
WAITING_JOBS := $(shell expr $(JOBS) + $(JOBS) / 2)
# Cases of faults wait more than they work: two for each core.
FAULT_JOBS ?= 4
# Bytecode is kept beside its source, whatever the shell says. Of what is installed a tenth is ever read: that is compiled at the end.
export PYTHONDONTWRITEBYTECODE :=
unexport PYTHONPYCACHEPREFIX
# .venv holds what the demo needs, or what a service needs, or everything.
DEMO := .venv/.demo
SERVICE := .venv/.service
READY := .venv/.ready

.PHONY: demo test check setup service cover scenes slow web plans faults faults-futures faults-postgresql kills fuzz safe-kit mutants golden fmt installs wheel lock docs pictures clean

demo: $(DEMO)
	$(BIN)/trimtab demo

# Both parts run side by side, each whatever the other says: types are checked by one core.
test: $(READY)
	$(MAKE) --keep-going --jobs 2 check cover

# Imports, words and places of files: part of check, not of the suite.
SHAPE := tests/test_architecture.py tests/test_words.py tests/test_tree.py
# Lint, types, shape, Solidity, the site.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/check/documented_python.py
	$(BIN)/python scripts/check/solhint.py
	$(BIN)/pytest --noconftest $(SHAPE)
	$(MAKE) docs

# The pages of docs/ as a site in build/site; a page without a place, or a link to an anchor that is none, fails.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# The pictures of README and docs/, each drawn from a run; needs Chromium.
pictures: $(READY)
	$(BIN)/trimtab demo --svg docs/demo.svg
	$(BIN)/python scripts/make/dashboard_pictures.py
	$(BIN)/python scripts/make/report_picture.py

# Reports are looked at in Chromium (Debian: apt-get install chromium); without it those tests are skipped, and fail where CI is set.
# The whole suite in one run, lines and branches measured: 92 % of everything, 96 % of the pure part.
COVERAGE := build/coverage.json
# Stores of tests lie in memory where it has 4 GB for files and may run programs: else each of their commits waits for the disk.
IN_MEMORY := $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 4000000 ] 2>/dev/null && \
  ! grep -q ' /dev/shm .*noexec' /proc/mounts && echo /dev/shm)
cover: $(READY)
	mkdir -p build && rm -f $(COVERAGE)
	failed=; scratch=; measured="-p tests.support.coverage --covered $(COVERAGE)"; \
	$(BIN)/python -c 'import slipcover' 2>/dev/null || { measured=; echo "Coverage is not measured: slipcover has no wheel here."; }; \
	if [ -n "$(IN_MEMORY)" ] && scratch=$$(mktemp -d -p $(IN_MEMORY) trimtab.XXXXXX); then export TMPDIR=$$scratch; trap 'rm -rf "$$scratch"' EXIT INT TERM; fi; \
	$(BIN)/python -m pytest $$measured -n $(WAITING_JOBS) --dist worksteal -m 'not slow and not scene' $(addprefix --ignore=,$(SHAPE)) || failed="$$failed tests"; \
	if [ -n "$$measured" ]; then \
	  $(BIN)/python scripts/check/covered.py $(COVERAGE) --least 92 || failed="$$failed coverage"; \
	  $(BIN)/python scripts/check/covered.py $(COVERAGE) --least 96 --only pure || failed="$$failed coverage-of-the-pure-part"; \
	fi; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed"; exit 1; fi

# The tests that take longer than a second or so (tests/scenes.txt), mostly whole scenes on a chain or at the command line.
scenes: $(READY)
	$(BIN)/python -m pytest -n $(WAITING_JOBS) --dist worksteal -m 'scene and not slow'

# Formats, and applies the safe fixes of the linter; what is left is named by check.
fmt: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Tests that take long: many looks in a row, random portfolios on a chain, an upgrade killed at every statement, a run killed around each
# write of a control, controls beside a run, a besieged futures book, an approval of an agent key killed at each moment. Of
# random searches and of cases that repeat one another the long part, and each property on twenty times as many examples, new ones each time.
# Then tests that sign, store, plan and send, without the shortcuts that spare the suite what libraries repeat. Last, tests of the store on
# PostgreSQL in place of a file.
PLAIN_TESTS := tests/unit/signing tests/unit/store tests/unit/execution $(wildcard tests/unit/layers/*/test_store.py) \
  tests/unit/layers/futures/execution tests/differential/test_sender.py tests/differential/test_second_quote.py \
  tests/cases/test_rebalance.py tests/cases/test_rebalance_atomic.py tests/cases/test_approvals.py tests/cases/test_key_services.py \
  tests/cli/test_sending.py tests/cli/test_commands.py
STORE_TESTS := tests/unit/store $(wildcard tests/unit/layers/*/test_store.py) tests/unit/execution/test_bookkeeping.py \
  tests/unit/execution/approvals/test_open_allowances.py tests/unit/execution/adopted_budgets/test_recorded_day.py
slow: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes -r locks/requirements-figures.lock \
	  || echo 'quantstats and cvxportfolio are not installed: the tests with them are SKIPPED'
	$(BIN)/pytest -n $(JOBS) -m slow
	HYPOTHESIS_PROFILE=long $(BIN)/pytest -n $(JOBS) --timeout 1800 -m "hypothesis and not slow"
	TRIMTAB_TEST_SHORTCUTS=off $(BIN)/pytest -n $(JOBS) $(PLAIN_TESTS)
	$(BIN)/pytest -p tests.support.stores_on_postgresql $(STORE_TESTS)

# API and dashboard at length: schemathesis calls every operation with hundreds of valid and invalid parameters; in Chromium login, controls
# on the local chain, set-up, by keyboard; the demo in the browser.
web: $(READY)
	$(BIN)/pytest -m slow tests/cli/test_api.py tests/cli/test_localchain_command.py tests/browser

# A hundred random plans carried out on anvil: each ends at its destination or names the bound that stopped it; a hundred over every kind of
# pool, some time after their snapshot. Then thousands offline,
# of every kind, by arithmetic of their own; some are solved by cvxpy too, which needs a network once.
plans: $(READY)
	$(BIN)/python scripts/check/plans_on_chain.py --problems 100
	$(BIN)/python scripts/check/mixed_plans.py --problems 100
	$(BIN)/python scripts/check/random_plans.py --problems 1500 --cvxpy 50

# Hashes and signatures of 200 random calls of a Safe, by Safe's protocol-kit, which npm installs (100 MB).
safe-kit: $(READY)
	$(BIN)/python scripts/check/safe_kit.py --calls 200

# Faults at every journal state, write, send and answer, on anvil: none may break what docs/reliability.md promises. Figures in build/.
faults: $(READY)
	mkdir -p build
	$(BIN)/python scripts/check/faults.py --jobs $(FAULT_JOBS) --minutes 22 --least 2000 --out build/faults.json

# The same over futures orders, on the contracts of Perpetual Protocol v2.
faults-futures: $(READY)
	mkdir -p build
	$(BIN)/python scripts/check/faults.py --futures --jobs $(FAULT_JOBS) --minutes 22 --least 500 --out build/faults-futures.json

# Faults with the stores on PostgreSQL, but for those of the file itself: of swaps, then of futures orders.
faults-postgresql: $(READY)
	mkdir -p build
	$(BIN)/python -m tests.faults.on_postgresql --suite kill --suite chain --suite chaos --suite lies --jobs $(FAULT_JOBS) --minutes 22 --least 500 \
	  --out build/faults-postgresql.json
	$(BIN)/python -m tests.faults.on_postgresql --suite futures-kill --suite futures-chain --suite futures-chaos --suite futures-lies \
	  --jobs $(FAULT_JOBS) --minutes 22 --least 500 --out build/faults-postgresql-futures.json

# 500 SIGKILLs at random moments of live rebalances on anvil: each rebalance is done exactly once.
kills: $(READY)
	mkdir -p build
	$(BIN)/python scripts/check/kills.py --jobs $(JOBS) --kills 500 --out build/kills.json

# Attacks at length, each with its figures as JSON; the exit says whether any came through. SECONDS is for each of the first two:
# the signer, and the decoders of what endpoints, files and calldata say. Then the whole agent in any order of events, RUNS times.
SECONDS ?= 120
FUZZ_SECONDS ?= $(SECONDS)
RUNS ?= 100
fuzz: $(READY)
	-$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r locks/requirements-fuzz.lock
	$(BIN)/python -m tests.fuzz.signer --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m tests.fuzz.answers --seconds $(FUZZ_SECONDS)
	TRIMTAB_STATEFUL_RUNS=$(RUNS) TRIMTAB_STATEFUL_STEPS=50 $(BIN)/pytest tests/cases/test_whole_agent.py --timeout 7200

# Small mistakes in the pure part, the layers, the signer, the store, execution, chain, venues and web, drawn by a seed: how many do the
# tests near them notice? Each by the tests of its line. Figures in build/, by package too.
MUTANTS ?= 300
MUTATED ?= pure,agent/engine.py,agent/layers/*,agent/signing/*,agent/store/*,agent/execution/*,agent/chain/*,agent/venues/*,agent/web/*
NEAR_TESTS ?= tests/unit $(wildcard $(addprefix tests/differential/test_,reader*.py sender.py perp_reading.py perp_snapshot.py \
  second_quote.py discovery.py lp_positions.py lens.py past*.py tester_transport.py token_screen_on_chain.py) \
  $(addprefix tests/cases/test_,rebalance.py rebalance_atomic.py approvals.py refusals.py step_journal.py budgets.py ledger_on_chain.py providing.py \
  waiting_on_anvil.py submission_refusals_on_chain.py endpoints_fail.py stale_blocks.py reorganisations.py proposals.py review_steps.py \
  confirmation.py first_purchase.py native_coin.py more_ticks.py hard_pause.py withdrawing.py rounds_on_chain.py paper_on_chain.py \
  futures_orders.py futures_margin.py futures_unnamed.py hyperliquid.py hyperliquid_steps.py hedges_on_chain.py strategies.py \
  liquidity.py limit_orders_on_chain.py) \
  $(addprefix tests/cli/test_,assistant.py api.py dashboard_figures.py controls_command.py) tests/faults/test_shortfall_kill.py)
mutants: $(READY)
	nice $(BIN)/python scripts/check/mutants.py --files '$(MUTATED)' --tests $(NEAR_TESTS) --mutants $(MUTANTS) --jobs $(JOBS) --out build/mutants.json

# What every command prints and what recorded steps decide, against tests/golden. After a change that is meant:
# .venv/bin/python scripts/check/golden.py --write
golden: $(READY)
	$(BIN)/python scripts/check/golden.py

setup: $(READY)

# A live agent and nothing else, as the container has it.
service: $(SERVICE)

# An environment in $(1), made anew if another Python made it. A Python too old is refused.
define environment
	$(PYTHON) -c 'import sys; sys.exit("trimtab needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) scripts/make/environment.py $(1)
endef
BUILD := locks/requirements-build.lock pyproject.toml

$(DEMO): locks/requirements-demo.lock $(BUILD) contracts/package-lock.json
	$(call environment,.venv)
	$(BIN)/python scripts/make/install.py locks/requirements-demo.lock --npm users
	touch $@

$(SERVICE): locks/requirements-run.lock $(BUILD)
	$(call environment,.venv)
	$(BIN)/python scripts/make/install.py locks/requirements-run.lock
	touch $@

$(READY): locks/requirements.lock $(BUILD) contracts/package-lock.json contracts/perps/package-lock.json
	$(call environment,.venv)
	$(BIN)/python scripts/make/install.py locks/requirements.lock --npm developers
	touch $@ $(DEMO) $(SERVICE)

# Installs without a compiler, for Python 3.11 to 3.14: for real where the interpreter is here, else by the wheels that there are.
installs: $(READY)
	$(BIN)/python scripts/check/check_install.py

# The wheel with the site, built once, plays demo, backtest, serve and mcp on each Python from 3.11 to 3.14 that is here; the others are named.
wheel: docs
	$(BIN)/pytest -rs --timeout 1800 -m slow tests/cli/test_wheel.py

# Pins and hashes without index addresses. Newer versions: .venv/bin/python scripts/make/lock.py --upgrade NAME
lock:
	$(BIN)/python scripts/make/lock.py

clean:
	rm -rf .venv contracts/node_modules .mypy_cache .ruff_cache .hypothesis
