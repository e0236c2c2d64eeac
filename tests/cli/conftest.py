"""One served chain per test process, as `trimtab localchain` makes it; each test has a copy of its config and store."""

from __future__ import annotations

import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import wiring
from agent.artifacts import anvil_binary
from agent.errors import ConfigError
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode, free_port
from agent.localchain.perpetuals import LocalPerps
from agent.planning import planner
from tests.cli.tools import SECRET, STORE_ENDINGS, CommandResult, Desk, forked_in, in_process, takes_config
from tests.support.bands import with_bands
from tests.support.worlds import SHORTCUTS, missing

AT_ONCE = ('first_purchase = "1m"', 'first_purchase = "off"')
"""A desk is not about a first purchase: seeing whether it goes in parts doubles the time of each plan."""


def _served(config: Path, *options: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A config that `trimtab localchain` writes, and what it says of its chain, which is up until the tests end."""
    try:
        anvil_binary()
    except ConfigError as error:
        missing(str(error))
    process = forked_in(config.parent, "localchain", *options, "--port", str(free_port()), "--write-config", str(config), "--json")
    try:
        yield config, process.document()
    finally:
        process.told(signal.SIGTERM)
        assert process.ended(20).code == 0


@contextmanager
def _undone(node: AnvilNode) -> Iterator[None]:
    """What is done to a served chain is undone at the end."""
    if node.now_s() < (now_s := int(time.time())):  # else tests that are faster than a second a block would run into the future
        node.mine_at(now_s)
    mark = node.snapshot()
    yield
    node.rpc("anvil_dropAllTransactions")  # what waits outlives a snapshot
    node.rpc("evm_setAutomine", True)
    node.revert(mark)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`trimtab localchain --write-config`, up until the tests end."""
    yield from _served(tmp_path_factory.mktemp("served") / "local.toml")


PLANNED: dict[bytes, bytes] = {}
"""Solutions of planning problems by all that a problem consists of."""


def _planned_once(*problem: Any, solve: Callable[..., Any] = planner._best_within_plan_cost) -> Any:
    """What the solver finds: desks begin alike, and a test asks for the same plan in several forms, so that most of their commands
    have a problem to solve that another has solved.
    """
    key = pickle.dumps(problem)
    if key not in PLANNED:
        PLANNED[key] = pickle.dumps(solve(*problem))
    return pickle.loads(PLANNED[key])


@pytest.fixture
def desk(
    served: tuple[Path, dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    """A desk at the served chain as it was served, with bands; what the test does is undone."""
    if SHORTCUTS:
        monkeypatch.setattr(planner, "_best_within_plan_cost", _planned_once)
    source, about = served
    config = tmp_path / "trimtab.toml"
    for ending in STORE_ENDINGS:
        store = source.with_name(f"local.db{ending}")
        if store.exists():
            shutil.copy(store, tmp_path / f"trimtab.db{ending}")
    text = with_bands(source.read_text()).replace("sqlite:///local.db", "sqlite:///trimtab.db").replace(*AT_ONCE)
    config.write_text(text.replace(about["url"], f"{about['url']}/?key={SECRET}"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*args: str) -> CommandResult:
        arguments = () if "--config" in args or not takes_config(args) else ("--config", str(config))
        return in_process(capfd, monkeypatch, *args, *arguments)

    node = AnvilNode(about["url"])
    with _undone(node):
        yield Desk(config, node, about, run)


def _runner(
    chain: LocalChain, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., CommandResult]:
    if SHORTCUTS:
        monkeypatch.setattr(planner, "_best_within_plan_cost", _planned_once)
    # Tests that share this chain may have moved its time away from the machine's.
    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: chain.clock.now_s())
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return lambda *args: in_process(capfd, monkeypatch, *args, "--config", str(tmp_path / "trimtab.toml"))


@pytest.fixture
def run(
    anvil_chain: LocalChain, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., CommandResult]:
    """Runs a command with the config that the test has made for the embedded chain."""
    return _runner(anvil_chain, capfd, monkeypatch, tmp_path)


@pytest.fixture
def perps_run(
    perps_chain: LocalPerps, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., CommandResult]:
    """The same for the chain with Perpetual Protocol."""
    return _runner(perps_chain.chain, capfd, monkeypatch, tmp_path)


@pytest.fixture
def bare(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandResult]:
    """Runs a command that needs no chain."""
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *args: in_process(capfd, monkeypatch, *args)


@pytest.fixture(scope="session")
def futures_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`trimtab localchain --futures --write-config`, up until the tests end."""
    yield from _served(tmp_path_factory.mktemp("futures") / "local.toml", "--futures")


@pytest.fixture(scope="module")
def futures_chain(
    futures_served: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The chain with futures as it was served, with a copy of its config and store; what a file of tests does is undone."""
    source, about = futures_served
    config = tmp_path_factory.mktemp("futures") / "local.toml"
    for name in (source.name, *(f"local.db{ending}" for ending in STORE_ENDINGS)):
        if source.with_name(name).exists():
            shutil.copy(source.with_name(name), config.with_name(name))
    with _undone(AnvilNode(about["url"])):
        yield config, about
