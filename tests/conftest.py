"""Fixtures for every test: the two embedded chains, and how hard hypothesis looks."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from agent.config.secrets import known
from agent.errors import ConfigError
from agent.localchain import LocalChain, open_anvil
from agent.localchain.perpetuals import LocalPerps
from agent.observe.logs import Redactor
from tests.browser.chromium import REMEDY, program
from tests.support.kernels import compiled_by_one
from tests.support.perps import perps_on
from tests.support.transactions import STORES
from tests.support.venues import Venues, deploy_venues
from tests.support.worlds import (
    Origin,
    forks_asked_by_turns,
    missing,
    one_case,
    shortcuts,
    tester_world,
)

atexit.register(gc.freeze)  # what lives at the end goes with the process: taking it apart took seconds per worker
os.environ.setdefault("ECC_BACKEND_CLASS", "eth_keys.backends.NativeECCBackend")  # else each signature looks for coincurve once more
os.umask(0o022)  # configs that tests write are their owner's to change, whatever the machine's umask

SCENES = Path(__file__).with_name("scenes.txt")
"""The tests that take long, one in a line (scripts/make/scene_tests.py)."""

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile("long", settings.get_profile("dev"), max_examples=1_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def _imported_by_turns(config: pytest.Config, process: int, processes: int) -> None:
    """Imports the files of tests, from a share of this process's own on: each file that has changed is rewritten by one of them all.

    In the same order all would rewrite all of them at once, 12 s of processor time for each. What fails to import fails again when
    it is collected.
    """
    paths = [config.invocation_params.dir / name.partition("::")[0] for name in config.args]
    files = sorted(file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path]))
    left_out = [config.invocation_params.dir / name for name in config.getoption("ignore") or ()]
    files = [file for file in files if not any(file.is_relative_to(folder) for folder in left_out)]
    begin = len(files) * process // processes
    for file in files[begin:] + files[:begin]:
        with contextlib.suppress(Exception, pytest.skip.Exception, pytest.fail.Exception):
            importlib.import_module(".".join(file.relative_to(config.rootpath).with_suffix("").parts))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ends a run of CI at once, in one line, where tests in the browser would each fail for want of Chromium."""
    config = session.config
    folder = Path(__file__).parent / "browser"
    if not os.environ.get("CI") or hasattr(config, "workerinput") or program() is not None:
        return
    named = [(config.invocation_params.dir / name.partition("::")[0]).resolve() for name in config.args]
    if any(folder.is_relative_to(path) or path.is_relative_to(folder) for path in named):
        pytest.exit(REMEDY, returncode=1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what takes long as a scene, which `make test` leaves to `make scenes`."""
    scenes = set(SCENES.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in scenes:
            item.add_marker("scene")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """What libraries and tests brought along stays to the end: the garbage collector goes through it neither now nor later.

    All that lives is gone through after a hundred passes of its middle generation, not after ten: that took 4 % of the processor time.
    """
    gc.disable()
    gc.set_threshold(700, 10, 100)
    if work := getattr(session.config, "workerinput", None):
        _imported_by_turns(session.config, int(work["workerid"].removeprefix("gw")), work["workercount"])
    yield
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is a process of its own: its errors hide the secrets of no config of an earlier test."""
    monkeypatch.setattr(known, "_redactor", Redactor())
    monkeypatch.setattr(known, "_unread_config_by_path", {})


@pytest.fixture(scope="session", autouse=True)
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What all tests repeat is done once per process: the compiling of queries, the multiples of the generator, and the check of ABIs.

    The kernel is compiled once for all processes. Forks of a chain are asked by turns.
    """
    with (
        forks_asked_by_turns(),
        shortcuts(),
        compiled_by_one(tmp_path_factory.getbasetemp().parent),
    ):
        yield


@pytest.fixture(scope="session")
def tester_session(tmp_path_factory: pytest.TempPathFactory) -> LocalChain:
    """One eth-tester world per process, deployed once for them all; tests take `tester_chain`."""
    try:
        return tester_world(tmp_path_factory.getbasetemp().parent)
    except (ConfigError, ImportError) as error:
        missing(str(error))
        raise


@pytest.fixture(scope="session")
def anvil_world() -> Iterator[Origin]:
    """The world on anvil, deployed once per process. Nobody changes it: tests take forks of it."""
    with contextlib.ExitStack() as session:
        try:
            chain = session.enter_context(open_anvil())
        except (ConfigError, ImportError) as error:
            missing(str(error))
            return
        yield Origin.of(chain)


@pytest.fixture(scope="session")
def anvil_session(anvil_world: Origin) -> Iterator[LocalChain]:
    """One fork of the world per process, for tests that keep to many small scenes of their own; others take `anvil_chain`."""
    with anvil_world.forked() as chain:
        yield chain


def _one_test(chain: LocalChain) -> Iterator[LocalChain]:
    mark = chain.snapshot()
    yield chain
    chain.revert(mark)


@pytest.fixture
def tester_chain(tester_session: LocalChain) -> Iterator[LocalChain]:
    """The world in process, as deployed; what the test changes is undone after it."""
    yield from _one_test(tester_session)


T = TypeVar("T")
FRESH_AFTER = 300
"""Blocks after which a fork begins again: anvil keeps the states of 512, those undone among them, and tests look back to the first."""


class _Worlds(Generic[T]):
    """A fork of one world on anvil, which begins again after so many blocks. `furnished` adds to it what tests take, once."""

    def __init__(self, world: Origin, furnished: Callable[[LocalChain], T]) -> None:
        self._world = world
        self._furnished = furnished
        self._left = contextlib.ExitStack()
        self._open: tuple[LocalChain, T] | None = None
        self._mined = 0

    @contextlib.contextmanager
    def one_test(self) -> Iterator[T]:
        """What was added to a world, under a block of the test's own."""
        if self._open is None:
            chain = self._left.enter_context(self._world.forked())
            self._open = chain, self._furnished(chain)
            self._world = self._world.furnished(chain)
        chain, furnished = self._open
        if self._mined > FRESH_AFTER:
            self._world.begin_again(chain)
            self._mined = 0
        begin = chain.w3.eth.block_number
        with one_case(chain):
            yield furnished
            self._mined += chain.w3.eth.block_number - begin

    def close(self) -> None:
        """Ends the world, if there is one."""
        self._left.close()


@pytest.fixture(scope="session")
def anvil_worlds(anvil_world: Origin) -> Iterator[_Worlds[LocalChain]]:
    """One fork per process; tests take `anvil_chain`."""
    worlds = _Worlds(anvil_world, lambda chain: chain)
    yield worlds
    worlds.close()


@pytest.fixture
def anvil_chain(anvil_worlds: _Worlds[LocalChain]) -> Iterator[LocalChain]:
    """The world on anvil, as deployed; what the test changes is undone after it."""
    with anvil_worlds.one_test() as chain:
        yield chain


@pytest.fixture
def chain(anvil_chain: LocalChain) -> LocalChain:
    """The world on anvil, as most tests call it."""
    return anvil_chain


@pytest.fixture(scope="session")
def perps_worlds(anvil_world: Origin) -> Iterator[_Worlds[LocalPerps]]:
    """Perpetual Protocol on one fork per process; tests take `perps_chain`."""
    worlds = _Worlds(anvil_world, perps_on)
    yield worlds
    worlds.close()


@pytest.fixture
def perps_chain(perps_worlds: _Worlds[LocalPerps]) -> Iterator[LocalPerps]:
    """Perpetual Protocol on anvil, as deployed with two markets; what the test changes is undone after it."""
    with perps_worlds.one_test() as perps:
        yield perps


@pytest.fixture(scope="session")
def venue_worlds(anvil_world: Origin) -> Iterator[_Worlds[Venues]]:
    """Every kind of pool on one fork per process; tests take `venues`."""
    worlds = _Worlds(anvil_world, deploy_venues)
    yield worlds
    worlds.close()


@pytest.fixture
def venues(venue_worlds: _Worlds[Venues]) -> Iterator[Venues]:
    """The contracts of every kind of pool on anvil, as deployed; what the test changes is undone after it."""
    with venue_worlds.one_test() as deployed:
        yield deployed


@pytest.fixture(params=["eth-tester", "anvil"])
def local_chain(request: pytest.FixtureRequest) -> LocalChain:
    """Each of the two chains in turn, for what must hold on both."""
    return request.getfixturevalue("tester_chain" if request.param == "eth-tester" else "anvil_chain")


@pytest.fixture(params=STORES)
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store: the contract of the repositories is the same for all."""
    return str(request.param)
